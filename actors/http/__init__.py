"""The HTTP API over any models, without Ray: the app, keys, limits, and what ends with its client."""
