"""Two runs over the same rows held against each other: agreement, differences, the rows that differ."""
