"""The Python API: `client.py` has `Client`, and each other noun has a module with its verbs.

with connect() as client:
    client.projects.create("jokes")
"""
