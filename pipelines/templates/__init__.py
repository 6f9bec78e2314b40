"""Templates of a job over the columns of a row."""
