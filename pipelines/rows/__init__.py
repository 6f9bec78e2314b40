"""What a unit is, and its rows: looked at, set apart, and carried from stage to stage."""
