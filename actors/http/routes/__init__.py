"""One file an endpoint, and what several of them share."""
