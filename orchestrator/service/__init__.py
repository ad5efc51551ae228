"""The verbs: what the API routes call, and the only thing they call."""
