"""From a checkpoint to a loaded model: what is chosen, whether it fits, and the loading."""
