"""Trying dead letters again: which rows, how they are read and committed among the others of their
units, and the driver of it."""
