"""Splits texts."""


def of(text: str) -> list[str]:
    """The words of a text, each once."""
    return sorted(set(text.split()))
