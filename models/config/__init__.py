"""What a checkpoint says about itself, checked, in one form for all families."""
