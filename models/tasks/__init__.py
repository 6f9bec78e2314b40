"""What a task head's numbers mean: classes, spans, answers, and the windows of a long document."""
