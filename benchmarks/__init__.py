"""What is measured, against what. `python -m benchmarks` prints the table of docs/benchmarks.md; names pick single ones."""
