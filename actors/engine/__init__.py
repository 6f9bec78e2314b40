"""An engine behind an async call, the shards of a replica as Ray actors, and who owns them."""
