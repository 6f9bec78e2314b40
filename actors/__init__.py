"""Thin shells around `models`: what a Ray actor, a Serve deployment or an HTTP route needs beyond computing."""
