"""What a task head's numbers mean: classes, spans, answers, the windows of a long document; and how a checkpoint
embeds and reranks."""
