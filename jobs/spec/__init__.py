"""The job spec: YAML read strictly, with the place of every key, and what is wrong with it before a run."""
