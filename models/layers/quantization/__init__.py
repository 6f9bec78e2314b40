"""Weights in 8 and 4 bits: made while loading, or saved so."""
