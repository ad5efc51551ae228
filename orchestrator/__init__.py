"""spell: numbered runs of machine-learning commands, with their code, environment, log and outputs kept."""

__version__ = "0.1.0"
