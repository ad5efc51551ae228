"""Requests of a person: runs, searches and workflows, the files they are written in, and their checks."""
