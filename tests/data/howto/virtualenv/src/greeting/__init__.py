"""Greets a person."""

import sys

import six


def main() -> None:
    print(f"Hello {sys.argv[1]}, from six {six.__version__}")
