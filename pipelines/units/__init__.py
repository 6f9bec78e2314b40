"""The input cut into units: its files listed, its records counted, one schema for all; and the units read."""
