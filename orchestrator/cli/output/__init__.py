"""Output on the terminal: lines, tables, bars and live screens."""
