"""The ranks of a replica: how they find each other, believe each other, and add up their parts."""
