"""The engine: `scheduling` decides what a step computes, `sampling` and `scoring` compute it; around them one loop, its async stream, and
the processes of its shards."""
