"""Where templates run: jinja2's sandbox, what a rendering may cost, and how a source becomes code."""
