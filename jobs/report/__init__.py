"""The report of a run: facts from its output folder, as a page and as numbers."""
