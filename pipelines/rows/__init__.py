"""The rows of one unit: read, looked at, set apart, and carried from stage to stage."""
