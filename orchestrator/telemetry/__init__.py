"""What is gathered beside a run: its log, its metrics, and samples of what it uses."""
