"""The families of networks, and the task heads over any of them."""
