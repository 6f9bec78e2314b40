"""What happens to the rows of a unit on both sides of the engine: they are prepared before it, and finished behind it."""
