"""Several tasks that are asked of every row by one model: their requests together, and their columns side by side."""
