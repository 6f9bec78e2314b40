"""What a kind of task is: what it makes of a checkpoint, of rows, of answers. The kinds are in `pipelines.tasks`."""
