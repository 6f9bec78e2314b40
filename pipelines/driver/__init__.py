"""What the driver of a run does, one module a phase: the cluster, the plan, computing, the ending. `pipelines.run` puts them together."""
