"""Attention over a packed step: what all backends share, and one file a backend."""
