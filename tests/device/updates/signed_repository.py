"""Repositories as an operator makes them, with real keys, and bundles to put in."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import datetime, timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from soundpost.device.bundle import Bundle, pack_bundle, parse_bundle
from soundpost.device.updates.offers import Installed, Offer
from soundpost.export.repository.ceremony import RootKeys, init_repository
from soundpost.export.repository.contents import Added, add_bundle
from soundpost.export.repository.folder import RepositoryFolder
from soundpost.export.repository.keys import PASSPHRASE_VARIABLE, KeyRing, Passphrase
from soundpost.export.repository.publish import Published, push
from soundpost.export.repository.settings import RepositorySettings
from soundpost.export.repository.signing import utc_now

PASSPHRASE = "correct horse battery staple"
ENVIRONMENT = {PASSPHRASE_VARIABLE: PASSPHRASE}
DEVICE = "porch-pi"


def tiny_student() -> ModuleType:
    """tests/device/tiny_student.py."""
    if "tiny_student" in sys.modules:
        return sys.modules["tiny_student"]
    path = Path(__file__).parents[1] / "tiny_student.py"
    specification = spec_from_file_location("tiny_student", path)
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    sys.modules["tiny_student"] = module
    specification.loader.exec_module(module)
    return module


_made: dict[tuple[str, str, str], bytes] = {}


def bundle_bytes(version: str, name: str = "tiny", card: str = "# tiny\n") -> bytes:
    """A bundle of the tiny student."""
    key = (version, name, card)
    if key not in _made:
        tiny = tiny_student()
        student, manifest = tiny.tiny_student(), tiny.tiny_manifest()
        golden = tiny.tiny_golden(student, manifest)
        manifest = replace(manifest, name=name, version=version)
        _made[key] = pack_bundle(manifest, student.model, golden, card)
    return _made[key]


class Operator:
    """Somebody with all the keys of a repository.

    late : by how much this one's clock is ahead of ours; negative, and signatures are older
    """

    def __init__(
        self,
        path: Path,
        settings: RepositorySettings | None = None,
        root_keys: RootKeys | None = None,
        late: timedelta = timedelta(0),
    ) -> None:
        self.path, self.late = path, late
        settings = settings or RepositorySettings(devices=(DEVICE,))
        init_repository(
            path, settings, root_keys or RootKeys(2, 1), Passphrase(ENVIRONMENT), self.now()
        )
        self.root = self.folder.root_file(1).read_bytes()

    def now(self) -> datetime:
        return utc_now() + self.late

    @property
    def folder(self) -> RepositoryFolder:
        return RepositoryFolder(self.path)

    @property
    def public(self) -> Path:
        return self.folder.public

    def ring(self, *folders: Path) -> KeyRing:
        return KeyRing(folders or [self.path / "keys"], Passphrase(ENVIRONMENT), ENVIRONMENT)

    def add(
        self,
        content: bytes,
        channel: str | None = "stable",
        device: str | None = None,
        allow_older: bool = False,
    ) -> Added:
        return add_bundle(
            self.folder,
            parse_bundle(content, "bundle"),
            content,
            self.ring(),
            self.now(),
            channels=[channel] if channel else [],
            devices=[device] if device else [],
            allow_older=allow_older,
        )

    def push(self) -> Published:
        return push(self.folder, self.ring(), self.now())

    def release(self, version: str) -> bytes:
        """Add the bundle of this version to `stable`, and push; returns it."""
        content = bundle_bytes(version)
        self.add(content)
        self.push()
        return content


def installed(offer: Offer | Bundle) -> Installed:
    """What a device has once it has installed this."""
    if isinstance(offer, Bundle):
        return Installed(offer.manifest.name, offer.manifest.version, offer.sha256)
    return Installed(offer.name, offer.version, offer.sha256)
