"""The Mamba-2 mixer, the plan of its step, and its recurrence."""
