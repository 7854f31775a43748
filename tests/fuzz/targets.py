"""What is fuzzed: each target takes bytes, and reads them or refuses them in one clear line."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from mutate import mutated, mutated_json

from soundpost.device.archive import read_archive, write_archive
from soundpost.device.bundle import check_bundle, pack_bundle, parse_bundle
from soundpost.device.config import load_settings
from soundpost.device.errors import SoundpostError
from soundpost.device.events import SoundEvent
from soundpost.device.health import Health
from soundpost.device.level_record import LevelRecord
from soundpost.device.manifest import Manifest
from soundpost.device.microphone import load_profile
from soundpost.device.remote import COMMANDS, parse_request

DEVICE = Path(__file__).parents[1] / "device"
# A refusal says where and what in so many characters, beside a path or name that it quotes whole.
MAX_WORDS = 2_000


def _load(name: str) -> ModuleType:
    specification = spec_from_file_location(name, DEVICE / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


class RefusalError(Exception):
    """A refusal that is no clear line."""


@dataclass(frozen=True)
class Target:
    """seeds : what is read; read : reads it; share : of all inputs, in parts of a hundred."""

    name: str
    seeds: list[bytes]
    read: Callable[[bytes], object]
    share: int
    json: bool = False
    only_json: bool = False

    def run(self, data: bytes) -> bool:
        """Whether it was read; raises whatever is no clear refusal."""
        try:
            self.read(data)
        except SoundpostError as error:
            line = str(error)
            if "\n" in line or not line.isprintable() or len(line) > len(data) + MAX_WORDS:
                raise RefusalError(repr(line[:3_000])) from error
            return False
        return True

    def input(self, rng: random.Random) -> bytes:
        """The next one."""
        seed = rng.choice(self.seeds)
        if self.only_json or (self.json and rng.random() < 0.6):
            return mutated_json(seed, rng)
        return mutated(seed, self.seeds, rng)


def _record(kind: Any) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        record = kind.from_json(data)
        # What is read can be written, and is then the same.
        text = record.to_json()
        if kind.from_json(text).to_json() != text:
            raise AssertionError("written and read again it is another")

    return read


def _command(data: bytes) -> None:
    """A payload as that of every command; a refusal by one is none by the others."""
    refused = None
    for name in COMMANDS:
        try:
            parse_request(name, data)
        except SoundpostError as error:
            refused = error
    if refused is not None:
        raise refused


def _file(folder: Path, name: str, load: Callable[[Path], object]) -> Callable[[bytes], None]:
    path = folder / name

    def read(data: bytes) -> None:
        path.write_bytes(data)
        load(path)

    return read


def _rehash(members: dict[str, bytes], names: tuple[str, ...]) -> dict[str, bytes]:
    """With the hashes that the manifest must have, as one who means harm would write them."""
    manifest = members["manifest.json"]
    for name in names:
        digest = hashlib.sha256(members[name]).hexdigest().encode()
        old = hashlib.sha256(ORIGINAL[name]).hexdigest().encode()
        manifest = manifest.replace(old, digest)
    return {**members, "manifest.json": manifest}


COMMAND_SEEDS = [
    b'{"id":"a1","source":"mic0","duration_s":60}',
    b'{"id":"a2","source":"mic0","label":"smoke_alarm","onset":0.7,"release":0.4}',
    b'{"label":"smoke_alarm","reset":true}',
    b'{"id":"a3"}',
]
ORIGINAL: dict[str, bytes] = {}
MEMBERS = ("model.tflite", "manifest.json", "golden.npz", "MODEL_CARD.md")


def make_bundle() -> bytes:
    """The tiny student's, and its members in ORIGINAL."""
    tiny = _load("tiny_student")
    student, manifest = tiny.tiny_student(), tiny.tiny_manifest()
    raw = pack_bundle(manifest, student.model, tiny.tiny_golden(student, manifest), "# tiny\n")
    ORIGINAL.update(read_archive(raw, MEMBERS, 1 << 26, "seed"))
    return raw


def bundle_with(name: str, content: bytes) -> bytes:
    """The tiny bundle with another member, and the hashes put right."""
    return write_archive(_rehash({**ORIGINAL, name: content}, (name,)))


def _front_end() -> bytes:
    return json.dumps(json.loads(ORIGINAL["manifest.json"])["front_end"]["parameters"]).encode()


def _with_front_end(data: bytes) -> None:
    """A manifest whose front end was changed, with the hash put right, and what comes of it."""
    manifest = json.loads(ORIGINAL["manifest.json"])
    parameters = json.loads(data)
    manifest["front_end"]["parameters"] = parameters
    # As FrontEnd.hash() does.
    text = json.dumps(parameters, sort_keys=True)
    manifest["front_end"]["hash"] = hashlib.sha256(text.encode()).hexdigest()
    content = json.dumps(manifest).encode()
    members = {**ORIGINAL, "manifest.json": content}
    check_bundle(parse_bundle(write_archive(members), "fuzz"))


def targets() -> list[Target]:
    """All of them."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(dir=place, prefix="soundpost-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    raw = make_bundle()
    config = _load("test_config")
    microphone = _load("test_microphone")
    examples = {
        kind: [path.read_bytes() for path in sorted((DEVICE / "examples").glob(f"{kind}*.json"))]
        for kind in ("event", "health", "level")
    }
    profile = microphone.FULL.encode()
    tables = [b"20,-1.0\n1000,0\n20000,2\n", b'"Sens =-18.1dB"\n20.0\t-1.0\t12\n1000\t0\t0\n']
    no_environment: dict[str, str] = {}
    return [
        Target("event", examples["event"], _record(SoundEvent), 30, json=True),
        Target("health", examples["health"], _record(Health), 20, json=True),
        Target("level", examples["level"], _record(LevelRecord), 10, json=True),
        Target("command", COMMAND_SEEDS, _command, 10, json=True),
        Target(
            "settings",
            [config.FULL.encode(), b"[source.yard]\nurl = 'mic:a'\nchannel = 0\n"],
            _file(folder, "s.toml", lambda path: load_settings(path, environment=no_environment)),
            10,
        ),
        Target("profile", [profile], _file(folder, "p.toml", load_profile), 6),
        Target("response table", tables, _file(folder, "p.csv", load_profile), 6),
        Target(
            "manifest",
            [ORIGINAL["manifest.json"], (DEVICE / "examples/manifest-frames.json").read_bytes()],
            Manifest.from_json,
            4,
            json=True,
        ),
        Target("front end", [_front_end()], _with_front_end, 1, json=True, only_json=True),
        Target("bundle bytes", [raw], lambda data: parse_bundle(data, "fuzz"), 1),
        Target(
            "golden vector",
            [ORIGINAL["golden.npz"]],
            lambda data: parse_bundle(bundle_with("golden.npz", data), "fuzz"),
            2,
        ),
    ]


__all__ = ["MEMBERS", "ORIGINAL", "Target", "bundle_with", "make_bundle", "targets"]
