"""Controllers act without a request: they cast runs of workflows and searches, and send webhooks, after each event.

workflows  casts the steps of workflows
searches   casts the trials of searches
bayesian   chooses the next trial of a bayesian search
webhooks   sends a message when a run has ended
"""
