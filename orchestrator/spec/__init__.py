"""What a person asks for: runs, searches, workflows, and the files that say it."""
