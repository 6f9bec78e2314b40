"""A YAML document read strictly, with the place of every key: for job specs and service files alike."""
