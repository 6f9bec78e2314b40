"""Where a checkpoint is, what files it has, and what is in their headers; no torch."""
