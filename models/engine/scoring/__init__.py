"""Work of one pass: task heads, embeddings, and how likely labels are."""
