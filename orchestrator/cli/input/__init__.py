"""What a person typed, and what the folder says, as specs."""
