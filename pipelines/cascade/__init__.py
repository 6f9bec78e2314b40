"""What is found out of a cascade before it runs: the bounds of its models on labelled rows, and how many rows each will answer."""
