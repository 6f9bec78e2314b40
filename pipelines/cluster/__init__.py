"""The Ray cluster of a run: connecting, what it has room for, and how a process that uses one ends."""
