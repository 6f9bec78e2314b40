"""What files hold, as one Arrow schema for all of a run, and back."""
