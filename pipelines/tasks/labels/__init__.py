"""Labels of one's own: prompts after which a causal model's answer is one of them, and the task that asks."""
