"""Ray Data graphs: units are read, prepared, computed, finished and committed."""
