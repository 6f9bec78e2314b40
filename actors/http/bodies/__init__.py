"""Bodies of requests: read within bounds, counted before they are parsed, and their schemas."""
