"""The Ray Data graph of a run: its stages, its execution, and what watches over it."""
