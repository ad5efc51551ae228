"""Benchmarks, each with its limit. `python -m benchmarks` prints the table of docs/benchmarks.md; names select some."""
