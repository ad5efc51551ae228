"""Workflows: runs that need each other's outputs."""
