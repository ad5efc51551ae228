"""Checks names of runs, labels, projects, aliases and secrets."""

from __future__ import annotations

import re

from orchestrator.errors import InvalidConfig

# Not compiled here: every `spell run` loads this module and needs few of them.
_RUN_NAME = r"[A-Za-z][A-Za-z0-9_.-]{0,62}\Z"
_LABEL = r"[\w][\w .:/@+-]{0,62}\Z"
_PROJECT = r"\w[\w .+-]{0,62}(?<! )\Z"
_ALIAS = r"(?!-)[^\s/.\"\\\[\]:;|=,~]{1,63}\Z"
_RESERVED_NAMES = frozenset({"latest"})


def check_run_name(name: str) -> str:
    """`name`, if it is allowed.

    Raises:
        InvalidConfig: it is not.
    """
    if not re.match(_RUN_NAME, name) or name in _RESERVED_NAMES:
        from orchestrator.spec.pasted import kind_of  # 0.2 ms; few names are refused

        typeset = "The quotes are typographic, which are none to a shell. " if kind_of(name) == "quote" else ""
        raise InvalidConfig(
            f"Run name {name!r} is not allowed.",
            f"{typeset}A name starts with a letter, has up to 63 letters, digits, '_', '.' and '-', and is not 'latest'.",
        )
    return name


def check_label(label: str) -> str:
    """`label`, if it is allowed.

    Raises:
        InvalidConfig: it is not.
    """
    if not re.match(_LABEL, label):
        raise InvalidConfig(f"Label {label!r} is not a word of up to 63 letters, digits and ' .:/@+-'.")
    return label


def check_project(name: str) -> str:
    """`name`, if it is allowed.

    Raises:
        InvalidConfig: it is not.
    """
    if not re.match(_PROJECT, name):
        cure = "A name starts with a letter, digit or '_', and has up to 63 of these, spaces, '.', '+' and '-'."
        raise InvalidConfig(f"Project name {name!r} is not allowed.", cure)
    return name


def check_alias(alias: str) -> str:
    """`alias`, if it is allowed.

    Raises:
        InvalidConfig: it is not.
    """
    if not re.match(_ALIAS, alias) or not alias.isprintable() or alias in ("runs", "uploads", "public"):
        cure = 'An alias has up to 63 characters, none of them a space or one of / . " \\ [ ] : ; | = , ~'
        raise InvalidConfig(
            f"Alias {alias!r} is not allowed.",
            f"{cure}; it does not begin with '-', and is not runs, uploads or public.",
        )
    return alias


def check_secret_name(name: str) -> str:
    """`name`, if it is allowed.

    Raises:
        InvalidConfig: it is not.
    """
    if not re.match(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}\Z", name):
        cure = "A name starts with a letter or '_' and has up to 63 letters, digits, '_', '.' and '-'."
        raise InvalidConfig(f"Secret name {name!r} is not allowed.", cure)
    return name
