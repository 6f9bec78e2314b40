"""Texts of requests to token ids, in processes that may be killed."""
