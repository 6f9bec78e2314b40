"""Text to token ids and back, and chat messages to a prompt, as a checkpoint's own files say."""
