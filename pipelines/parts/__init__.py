"""Parts of a prompt whose order is found: templates that stand where another prints `{{ parts }}`."""
