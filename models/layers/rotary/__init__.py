"""Rotary position embeddings: how fast channels turn, and the turning."""
