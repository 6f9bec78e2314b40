"""Weights from safetensors files into layers that say what they need."""
