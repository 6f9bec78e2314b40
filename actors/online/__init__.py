"""Models for requests that come one by one: what a service asks of them, and one in this process."""
