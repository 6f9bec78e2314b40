"""A service: its spec, its life, and the record by which jobs find it."""
