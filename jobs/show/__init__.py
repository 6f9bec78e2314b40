"""What people are shown: progress, plans, and text that a terminal cannot be told anything by."""
