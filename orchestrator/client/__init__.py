"""The Python API: `client.py` has the door, and a module for each noun what can be asked about it.

with connect() as client:
    client.projects.create("jokes")
"""
