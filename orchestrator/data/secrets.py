"""Encrypts secrets in the store, and decrypts them only for runs that use them.

A value is encrypted with AES-256-GCM (NIST SP 800-38D), its name as associated data: version byte, nonce, ciphertext with
tag. The key of a home is made once, in `store/secrets.key`, and is otherwise only in the memory of the server.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from orchestrator.errors import HomeUnusable, InvalidConfig, NotFound, SecretLost
from orchestrator.home import Home
from orchestrator.records.secrets import SecretRecord
from orchestrator.spec.names import check_secret_name
from orchestrator.store import Store

MAX_BYTES = 64 << 10  # the kernel allows 128 KiB in one variable
_KEY_BYTES, _NONCE_BYTES = 32, 12
_VERSION = b"\x01"
_AGAIN = "Set it again: spell secret set {name}"


class Secrets:
    """The secrets of one home.

    Args:
        home: holds the key.
        store: holds the encrypted values.
    """

    def __init__(self, home: Home, store: Store) -> None:
        self._path, self._store = home.secrets_key, store.secrets

    def put(self, name: str, value: bytes) -> SecretRecord:
        """Encrypt and store a value, in place of an earlier one of this name.

        Args:
            value: UTF-8 text of at most 64 KiB.

        Raises:
            InvalidConfig: when name or value is invalid.
            HomeUnusable: when the key cannot be used.
        """
        check_secret_name(name)
        _check_value(name, value)
        nonce = os.urandom(_NONCE_BYTES)
        encrypted = _VERSION + nonce + AESGCM(self._key()).encrypt(nonce, value, name.encode())
        return self._store.put(name, encrypted)

    def records(self) -> list[SecretRecord]:
        """Return the records of all secrets, by name, without values."""
        return self._store.records()

    def remove(self, name: str) -> None:
        """Remove a secret. Raises NotFound when it does not exist."""
        self._store.remove(name)

    def require(self, wanted: Mapping[str, str]) -> None:
        """Check that these secrets (variable → name) exist.

        Raises:
            NotFound: names one that does not.
        """
        if wanted:
            there = self._store.encrypted(set(wanted.values()))
            for name in wanted.values():
                if name not in there:
                    raise NotFound(f"There is no secret {name!r}.", f"Set it with: spell secret set {name}")

    def open(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Return the values of these secrets, by variable.

        Raises:
            SecretLost: names one that was removed, or that the key does not decrypt.
        """
        if not wanted:
            return {}
        there = self._store.encrypted(set(wanted.values()))
        for name in wanted.values():
            if name not in there:
                raise SecretLost(f"secret {name} was removed before the run was started.", _AGAIN.format(name=name))
        try:
            key = self._read_key()
        except FileNotFoundError:
            words = f"the key of all secrets, {self._path}, is gone."
            raise SecretLost(words, "Restore it, or set the secrets again: spell secret set NAME") from None
        except HomeUnusable as error:
            raise SecretLost(error.message, error.cure) from None
        return {variable: _decrypt(key, name, there[name]) for variable, name in wanted.items()}

    def open_what_is_there(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Return the same as `open`, without secrets that are lost."""
        found: dict[str, str] = {}
        for variable, name in wanted.items():
            with contextlib.suppress(SecretLost):
                found |= self.open({variable: name})
        return found

    def _key(self) -> bytes:
        """Return the key; makes it on first use."""
        with contextlib.suppress(FileNotFoundError):
            return self._read_key()
        try:
            _make_key(self._path)
        except OSError as error:
            words = f"{self._path} cannot be written: {error.strerror}."
            raise HomeUnusable(words, "Correct the permissions of its folder, or free some space.") from error
        return self._read_key()

    def _read_key(self) -> bytes:
        """Read the key. Raises FileNotFoundError; HomeUnusable when the file must not be used."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            raise
        except OSError as error:
            why = "is a link" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
            raise HomeUnusable(f"{self._path} {why}.", f"It must be a file of yours: chmod 600 {self._path}") from error
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise HomeUnusable(f"{self._path} is not a file of the server's user.", "Restore the earlier file.")
            if status.st_mode & 0o077:
                words = f"{self._path}, the key of all secrets, is accessible to other users."
                raise HomeUnusable(words, f"Remove their access: chmod 600 {self._path}")
            key = file.read(_KEY_BYTES + 1)
        if len(key) != _KEY_BYTES:
            cure = "Restore the earlier file; or remove this one, and set the secrets again: spell secret set NAME"
            raise HomeUnusable(f"{self._path} is damaged.", cure)
        return key


def _check_value(name: str, value: bytes) -> None:
    if not value:
        raise InvalidConfig(f"Secret {name!r} is empty.")
    if len(value) > MAX_BYTES:
        raise InvalidConfig(f"Secret {name!r} is longer than {MAX_BYTES >> 10} KiB.")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        cure = "Set it in base64, for example, and let the command decode it."
        raise InvalidConfig(f"Secret {name!r} is not text in UTF-8, or has a NUL character.", cure) from None


def _decrypt(key: bytes, name: str, encrypted: bytes) -> str:
    nonce, rest = encrypted[1 : 1 + _NONCE_BYTES], encrypted[1 + _NONCE_BYTES :]
    try:
        return AESGCM(key).decrypt(nonce, rest, name.encode()).decode()
    except (InvalidTag, ValueError):  # ValueError: too short
        words = f"secret {name} was encrypted with another key than the present one."
        raise SecretLost(words, _AGAIN.format(name=name)) from None


def _make_key(path: Path) -> None:
    """Write a new key, complete and durable, unless another process has made one first."""
    beside = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
