"""Signing keys: Ed25519, each in a PEM file that a passphrase locks, or in the environment.

The public half stands in the root metadata, under a key id (the sha256 of the public key as TUF
writes it). A file is named by its role and the beginning of that id, so that what is where can be
told without opening anything.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner

from soundpost.device.errors import InputError, UsageError
from soundpost.device.files import write_atomically

PASSPHRASE_VARIABLE = "SOUNDPOST_REPO_PASSPHRASE"
# And a role: SOUNDPOST_REPO_KEY_TIMESTAMP holds the PEM text of a key itself.
KEY_VARIABLE = "SOUNDPOST_REPO_KEY_"
ROLES = ("root", "targets", "snapshot", "timestamp")
LEAST_PASSPHRASE = 12
_ID_DIGITS = 16


class Passphrase:
    """The passphrase of a run: from the environment, or asked for when first needed."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._known = environment.get(PASSPHRASE_VARIABLE, "")

    def get(self, *, new: bool = False) -> bytes:
        """The passphrase.

        new : it is to lock keys: it must be long enough, and is asked for twice

        Raises UsageError where there is none and nobody to ask, or it is too short for a new one.
        """
        if not self._known:
            if not sys.stdin.isatty():
                raise UsageError(
                    f"no passphrase for the keys: set {PASSPHRASE_VARIABLE}, or run this in a "
                    "terminal"
                )
            self._known = getpass.getpass("passphrase of the keys: ")
            if new and getpass.getpass("once more: ") != self._known:
                raise UsageError("the two passphrases differ; nothing was made")
        if new and len(self._known) < LEAST_PASSPHRASE:
            raise UsageError(
                f"the passphrase has {len(self._known)} characters: expected at least "
                f"{LEAST_PASSPHRASE}, such as four words; nothing was made"
            )
        return self._known.encode()


def key_file(folder: Path, role: str, keyid: str) -> Path:
    """Where a key is kept."""
    return folder / f"{role}-{keyid[:_ID_DIGITS]}.pem"


def save_key(signer: CryptoSigner, role: str, folder: Path, passphrase: bytes) -> Path:
    """Write a private key, locked, for its owner's eyes only; returns the file."""
    key = load_pem_private_key(signer.private_bytes, None)
    content = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase)
    )
    path = key_file(folder, role, signer.public_key.keyid)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror})") from error
    write_atomically(path, content, 0o600)
    return path


class KeyRing:
    """Private keys that this run can reach.

    folders : where key files are looked for
    passphrase : opens them
    environment : for keys in variables, by role
    """

    def __init__(
        self,
        folders: Sequence[Path],
        passphrase: Passphrase,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.folders = tuple(folders)
        self.passphrase = passphrase
        self._environment = environment
        self._opened: dict[str, CryptoSigner] = {}

    def remember(self, signer: CryptoSigner) -> None:
        """Keep a key that was just made, so that its file need not be opened."""
        self._opened[signer.public_key.keyid] = signer

    def place(self, role: str, keyid: str) -> str:
        """Where the private half of a key is; empty where it is out of reach."""
        signer = self._from_environment(role)
        if signer is not None and signer.public_key.keyid == keyid:
            return f"${KEY_VARIABLE}{role.upper()}"
        path = self._file(role, keyid)
        return str(path) if path else ""

    def signer(self, role: str, keyid: str) -> CryptoSigner | None:
        """What signs with a key; None where its private half is out of reach.

        Raises UsageError where the passphrase does not open it, InputError where it is damaged.
        """
        if keyid in self._opened:
            return self._opened[keyid]
        signer = self._from_environment(role)
        if signer is None or signer.public_key.keyid != keyid:
            path = self._file(role, keyid)
            if path is None:
                return None
            try:
                content = path.read_bytes()
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror})") from error
            signer = _open_key(content, self.passphrase.get(), str(path))
            if signer.public_key.keyid != keyid:
                raise InputError(f"{path}: is another key than its name says; put the right one")
        self._opened[keyid] = signer
        return signer

    def _file(self, role: str, keyid: str) -> Path | None:
        paths = (key_file(folder, role, keyid) for folder in self.folders)
        return next((path for path in paths if path.is_file()), None)

    def _from_environment(self, role: str) -> CryptoSigner | None:
        name = f"{KEY_VARIABLE}{role.upper()}"
        content = self._environment.get(name, "")
        if not content:
            return None
        locked = "ENCRYPTED" in content.partition("\n")[0]
        return _open_key(content.encode(), self.passphrase.get() if locked else None, f"${name}")


def _open_key(content: bytes, passphrase: bytes | None, where: str) -> CryptoSigner:
    try:
        key = load_pem_private_key(content, passphrase)
    except TypeError as error:
        raise UsageError(f"{where}: is not locked; lock it with a passphrase") from error
    except ValueError as error:
        # OpenSSL does not tell a wrong passphrase from a damaged file.
        raise UsageError(
            f"{where}: the passphrase does not open it, or it is no PEM file of a private key; see "
            f"{PASSPHRASE_VARIABLE}"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{where}: is no Ed25519 key; make keys with `soundpost repo`")
    return CryptoSigner(key)
