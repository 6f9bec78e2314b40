"""What each kind of task asks of a model for a row, and what its answers become."""
