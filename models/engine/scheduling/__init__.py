"""The half of the engine that is integers: which tokens of which sequence a step computes, and where they are kept."""
