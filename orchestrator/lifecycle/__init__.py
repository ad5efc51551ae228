"""The life of a run, from the queue to its final state."""
