"""Attacks on updates: none installs, none is believed, and none costs what the device has.

Repositories are made by the operator's own commands, servers are real, and the device's side is all
of it but the clock's state, which no test may change.
"""

from __future__ import annotations

import io
import os
import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signed_repository import Operator, bundle_bytes, installed
from web import Web, send

from soundpost.device.errors import (
    InputError,
    UpdateDeferredError,
    UpdateError,
    UpdateRefusedError,
    UpdateUnreachableError,
)
from soundpost.device.updates.bounded_fetch import Pace
from soundpost.device.updates.model_store import ModelStore
from soundpost.device.updates.offers import Offer, choose
from soundpost.device.updates.trusted_download import TrustedRepository

PACE = Pace(gap_s=1.0, least_bytes_s=1_000.0, window_s=1.0)


class Device:
    """What a device has on disk, and the steps of an update up to the candidate."""

    def __init__(self, folder: Path, address: str, root: bytes) -> None:
        self.synchronised = True
        self.late_s = 0.0
        self.store = ModelStore(folder / "models")
        self.metadata = folder / "metadata"
        self.repository = TrustedRepository(
            address,
            root,
            self.metadata,
            PACE,
            refresh_s=20.0,
            download_s=20.0,
            synchronised=lambda: self.synchronised,
            utc_s=lambda: time.time() + self.late_s,
        )

    def offer(self) -> Offer | None:
        offers = self.repository.refresh()
        return choose(offers, "attic", "stable", self.store.state.current).offer

    def update(self) -> str:
        """Install what is offered; returns the version that runs then."""
        offer = self.offer()
        if offer is not None:
            self.store.stage(self.repository.download(offer, self.store), installed(offer))
            self.store.switch()
            self.store.confirm()
        current = self.store.state.current
        return current.version if current else ""

    def kept(self) -> dict[str, bytes]:
        """Every file of models and of metadata, by name."""
        files = [*self.metadata.rglob("*"), *self.store.folder.rglob("*")]
        return {str(path): path.read_bytes() for path in files if path.is_file()}


@pytest.fixture
def operator(memory_path: Path) -> Operator:
    """A repository with version 1.0.0 in `stable`."""
    made = Operator(memory_path / "repository")
    made.release("1.0.0")
    return made


@pytest.fixture
def web(operator: Operator, serve: Callable[..., Any]) -> Web:
    served: Web = serve(operator.public)
    return served


@pytest.fixture
def device(operator: Operator, web: Web, memory_path: Path) -> Device:
    """A device that runs 1.0.0."""
    made = Device(memory_path / "device", web.address, operator.root)
    assert made.update() == "1.0.0"
    web.requests.clear()
    return made


def refused(device: Device, match: str, kind: type[UpdateError] = UpdateRefusedError) -> None:
    """An update fails with one line, and the models stay as they are."""
    models = {name: content for name, content in device.kept().items() if "models" in name}
    with pytest.raises(kind, match=match) as told:
        device.update()
    assert "\n" not in str(told.value)
    assert {name: content for name, content in device.kept().items() if "models" in name} == models


def test_a_release_arrives(operator: Operator, device: Device) -> None:
    content = operator.release("1.1.0")
    assert device.update() == "1.1.0"
    current = device.store.state.current
    assert current is not None
    assert device.store.path(current).read_bytes() == content


def test_a_shared_folder_does_as_a_web_server_does(operator: Operator, memory_path: Path) -> None:
    for number, location in enumerate((str(operator.public), operator.public.as_uri())):
        made = Device(memory_path / str(number), location, operator.root)
        assert made.update() == "1.0.0"
    with pytest.raises(InputError, match="expected an address"):
        Device(memory_path / "other", "ftp://host/models", operator.root)


# ------------------------------------------------------------------------------- altered


def test_an_altered_target(operator: Operator, web: Web, device: Device) -> None:
    content = bytearray(operator.release("1.1.0"))
    content[len(content) // 2] ^= 1
    web.misdeeds["/targets/"] = lambda request: send(request, bytes(content))
    refused(device, "is not to be trusted: .*hash")
    # And what was received is no obstacle to the right one.
    web.misdeeds.clear()
    assert device.update() == "1.1.0"


@pytest.fixture(scope="module")
def rotated(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, bytes]]:
    """The first root of a repository with two of them, and everything that a device asks for."""
    from soundpost.export.repository.ceremony import rotate

    operator = Operator(tmp_path_factory.mktemp("rotated") / "repository")
    operator.release("1.0.0")
    rotate(operator.folder, "targets", operator.ring(), operator.now())
    operator.push()
    files = {path.name: path.read_bytes() for path in (operator.public / "metadata").iterdir()}
    asked = ["2.root.json", "timestamp.json", "2.snapshot.json", "3.snapshot.json"]
    asked += ["2.targets.json", "3.targets.json"]
    return operator.root, {name: files[name] for name in asked if name in files}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_altered_byte_of_metadata(
    data: st.DataObject,
    rotated: tuple[bytes, dict[str, bytes]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Offered is exactly what was signed, or nothing."""
    root, files = rotated
    folder = tmp_path_factory.mktemp("altered")
    (folder / "metadata").mkdir()
    name = data.draw(st.sampled_from(sorted(files)))
    place = data.draw(st.integers(0, len(files[name]) - 1))
    value = data.draw(st.integers(0, 255))
    for other, content in files.items():
        changed = bytearray(content)
        if other == name:
            changed[place] = value
        (folder / "metadata" / other).write_bytes(changed)
    made = Device(folder / "device", str(folder), root)
    try:
        offers = made.repository.refresh()
    except UpdateError as error:
        told = str(error)
        assert "\n" not in told
    else:
        assert [(offer.version, offer.channels) for offer in offers] == [("1.0.0", ("stable",))]
    shutil.rmtree(folder)


# ------------------------------------------------------------------------------- old


@pytest.mark.parametrize("days", [1, 3_650])
@pytest.mark.parametrize("synchronised", [True, False])
def test_a_rollback_is_refused_at_any_clock(
    memory_path: Path, serve: Callable[..., Any], days: int, synchronised: bool
) -> None:
    """What was published before, signed and whole: expired by this clock, or good for ten years.

    A clock that is wrong by years sees expiry as wrong; versions it sees as they are.
    """
    from soundpost.export.repository.settings import Days, RepositorySettings

    operator = Operator(
        memory_path / "repository", RepositorySettings(days=Days(3_650, 3_650, 3_650, days))
    )
    operator.late = timedelta(days=-2)
    operator.release("1.0.0")
    before = memory_path / "before"
    shutil.copytree(operator.public, before)
    operator.late = timedelta(0)
    operator.release("1.1.0")
    web = serve(operator.public)
    device = Device(memory_path / "device", web.address, operator.root)
    assert device.update() == "1.1.0"

    web.folder = before
    kept = device.kept()
    device.synchronised = synchronised
    if synchronised:
        refused(device, "is not to be trusted: New timestamp version 2 must be >= 3")
    else:
        refused(device, "updates wait for the clock", UpdateDeferredError)
    assert device.kept() == kept
    # A device that has lost its models still knows which metadata it has seen.
    device.synchronised = True
    shutil.rmtree(device.store.folder)
    device.store = ModelStore(device.store.folder)
    refused(device, "New timestamp version")
    web.folder = operator.public
    assert device.update() == "1.1.0"


def test_an_older_model_in_newer_metadata_needs_the_operators_word(
    operator: Operator, device: Device
) -> None:
    operator.release("1.1.0")
    assert device.update() == "1.1.0"
    operator.add(bundle_bytes("1.0.5"), allow_older=True)
    operator.push()
    assert device.update() == "1.0.5"


@pytest.mark.parametrize("years", [-56, -10, -1])
def test_a_clock_that_is_before_what_was_seen_lets_updates_wait(
    operator: Operator, web: Web, device: Device, years: int
) -> None:
    """It says that it is right: what has expired would look fresh by it."""
    operator.release("1.1.0")
    device.late_s = years * 365.25 * 86_400
    refused(device, r"updates wait for the clock: it says \d+-\d\d-\d\d", UpdateDeferredError)
    assert web.requests == []
    # Also with metadata that were seen when the program was older than that.
    device.late_s = -2 * 86_400
    refused(device, "is past already", UpdateDeferredError)
    device.late_s = -3_600
    assert device.update() == "1.1.0"


def test_what_is_new_reaches_the_disk(
    operator: Operator, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    device.repository.refresh()
    # python-tuf writes the root that it begins with each time.
    assert set(flushed) <= {"1.root.json", "root_history", "metadata"}
    operator.push()
    flushed.clear()
    device.repository.refresh()
    assert {"timestamp.json", "metadata"} <= set(flushed)
    assert "targets.json" not in flushed


def test_a_freeze_is_noticed_when_the_timestamp_expires(
    memory_path: Path, serve: Callable[..., Any]
) -> None:
    """The same metadata for ever, as they were signed: a day later they are refused."""
    operator = Operator(memory_path / "repository", late=timedelta(days=-1, seconds=-5))
    operator.release("1.0.0")
    device = Device(memory_path / "device", serve(operator.public).address, operator.root)
    refused(device, r"timestamp\.json is expired")
    assert device.store.state.current is None
    operator.late = timedelta(0)
    operator.push()
    assert device.update() == "1.0.0"


def test_an_expired_root(memory_path: Path, serve: Callable[..., Any]) -> None:
    from soundpost.export.repository.ceremony import renew
    from soundpost.export.repository.settings import Days, RepositorySettings

    days = Days(root=1, targets=90, snapshot=30, timestamp=30)
    operator = Operator(
        memory_path / "repository",
        RepositorySettings(days=days),
        late=timedelta(days=-1, seconds=-9),
    )
    operator.release("1.0.0")
    device = Device(memory_path / "device", serve(operator.public).address, operator.root)
    refused(device, r"root\.json is expired")
    # The chain of roots goes on from an expired one.
    operator.late = timedelta(0)
    assert renew(operator.folder, "root", operator.ring(), operator.now()).missing == ()
    operator.push()
    assert device.update() == "1.0.0"


def test_mix_and_match(operator: Operator, web: Web, device: Device) -> None:
    """Each file signed, and from different days."""
    metadata = operator.public / "metadata"
    operator.release("1.1.0")
    first = {name: (metadata / f"2.{name}.json").read_bytes() for name in ("snapshot", "targets")}
    for name, told in (("snapshot", "hash|version|length"), ("targets", "hash|version|length")):
        web.misdeeds[f"/3.{name}"] = lambda request, name=name: send(request, first[name])
        refused(device, told)
        web.misdeeds.clear()
    assert device.update() == "1.1.0"


# ------------------------------------------------------------------------------- forged


def test_a_wrong_key(operator: Operator, web: Web, device: Device, memory_path: Path) -> None:
    """A whole repository of somebody else's, with a newer version."""
    other = Operator(memory_path / "other")
    other.release("1.0.0")
    other.release("2.0.0")
    web.folder = other.public
    refused(device, "is not to be trusted: .*sign")
    new = Device(memory_path / "new", web.address, operator.root)
    refused(new, "is not to be trusted: .*sign")


def test_a_root_that_the_last_one_did_not_sign(
    operator: Operator, web: Web, device: Device, memory_path: Path
) -> None:
    from soundpost.export.repository.ceremony import renew

    other = Operator(memory_path / "other")
    renew(other.folder, "root", other.ring(), other.now())
    other.push()
    forged = (other.public / "metadata" / "2.root.json").read_bytes()
    web.misdeeds["/2.root"] = lambda request: send(request, forged)
    refused(device, "is not to be trusted: .*sign")
    web.misdeeds.clear()
    assert device.offer() is None


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_a_rotation_done_right_is_followed_and_the_old_key_is_dead(
    operator: Operator, web: Web, device: Device, role: str, memory_path: Path
) -> None:
    from tuf.api.metadata import Metadata

    from soundpost.export.repository.ceremony import rotate

    old_ring, old_root = operator.ring(), operator.folder.root()
    keyid = old_root.signed.roles[role].keyids[0]
    old = old_ring.signer(role, keyid)
    assert old is not None
    for _ in range(2):
        assert rotate(operator.folder, role, operator.ring(), operator.now()).missing == ()
        operator.push()
    operator.release("1.1.0")
    for made in (device, Device(memory_path / "new", web.address, operator.root)):
        assert made.update() == "1.1.0"
    # Whoever has stolen the old key signs the next version with it.
    operator.release("1.2.0")
    folder = operator.folder
    number = "" if role == "timestamp" else "4."
    name = f"{number}{role}.json"
    present = getattr(folder, f"published_{role}")()
    content = present.to_bytes()
    forged = Metadata.from_bytes(content)
    if role == "root":
        forged.signed.version += 1
    forged.signatures.clear()
    forged.sign(old)
    web.misdeeds[f"/{name}$" if role in ("root", "timestamp") else rf"\.{role}\.json$"] = (
        lambda request: send(request, forged.to_bytes())
    )
    refused(device, "is not to be trusted")
    web.misdeeds.clear()
    assert device.update() == "1.2.0"


# ------------------------------------------------------------------------------- unfit


def offered(operator: Operator, content: bytes, offer: Offer) -> None:
    """Sign a file in that `add` would not take, as an operator without our commands can."""
    from tuf.api.metadata import TargetFile

    from soundpost.export.repository.signing import next_targets, sign

    folder = operator.folder
    targets, signers = next_targets(folder, operator.ring(), operator.now())
    target = TargetFile.from_data(offer.path, content, ["sha256"])
    target.unrecognized_fields = {"custom": offer.to_custom()}
    targets.signed.targets = {offer.path: target}
    sign(targets, signers)
    folder.stage_bundle(target.hashes["sha256"], content)
    folder.stage_targets(targets)
    operator.push()


def note(operator: Operator) -> Offer:
    (offer,) = TrustedRepository(
        str(operator.public), operator.root, operator.path / "reader", synchronised=lambda: True
    ).refresh()
    return replace(offer, version="1.1.0", path="tiny-1.1.0.bundle")


def test_a_bundle_built_for_another_front_end(operator: Operator, web: Web, device: Device) -> None:
    """Known by its note, nothing is fetched; hidden by a note that lies, it is refused."""
    content = bundle_bytes("1.1.0")
    other = note(operator).front_end.replace('"n_mels": 64', '"n_mels": 40')
    honest = note(operator)
    assert other != honest.front_end
    offered(operator, content, replace(honest, front_end=other))
    web.requests.clear()
    offers = device.repository.refresh()
    choice = choose(offers, "attic", "stable", device.store.state.current)
    assert choice.offer is None
    assert "was made for another front end" in choice.reason
    assert [path for path, _ in web.requests if "targets/" in path] == []

    import hashlib
    import json

    lie = hashlib.sha256(json.dumps(json.loads(other), sort_keys=True).encode()).hexdigest()
    offered(operator, content, replace(honest, front_end=other, front_end_hash=lie))
    refused(device, "its front end is .*, the repository says")


def test_a_zip_bomb(operator: Operator, device: Device) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("MODEL_CARD.md", "golden.npz", "manifest.json"):
            archive.writestr(name, b"")
        archive.writestr("model.tflite", bytes(200_000_000))
    content = file.getvalue()
    assert len(content) < 1_000_000
    offered(operator, content, note(operator))
    refused(device, "expands to 200000000 bytes: expected at most")
    assert list(device.store.downloads.iterdir()) == []


def test_a_file_that_is_no_bundle(operator: Operator, device: Device) -> None:
    offered(operator, b"#!/bin/sh\n", note(operator))
    refused(device, "is damaged or no bundle")


# ------------------------------------------------------------------------------- bounds


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(bytes(65_536))


@pytest.mark.parametrize(
    "where", [r"/2\.root", "/timestamp", "/3.snapshot", "/3.targets", "/targets/"]
)
def test_endless_data(operator: Operator, web: Web, device: Device, where: str) -> None:
    operator.release("1.1.0")
    web.misdeeds[where] = endless
    refused(device, "expected at most .*; nothing of it is used")
    assert list(device.store.downloads.iterdir()) == []


@pytest.mark.parametrize("where", ["/timestamp", "/targets/"])
def test_slow_retrieval(operator: Operator, web: Web, device: Device, where: str) -> None:
    operator.release("1.1.0")

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not web.ending.wait(0.02):
            request.wfile.write(b"{")

    web.misdeeds[where] = drip
    models = device.store.state
    with pytest.raises(UpdateUnreachableError, match="bytes per second: expected at least"):
        device.update()
    assert device.store.state == models


def test_without_a_synchronised_clock_nothing_is_asked(
    operator: Operator, web: Web, device: Device
) -> None:
    operator.release("1.1.0")
    device.synchronised = False
    refused(device, "updates wait for the clock", UpdateDeferredError)
    offer = note(operator)
    with pytest.raises(UpdateDeferredError):
        device.repository.download(offer, device.store)
    assert web.requests == []
    device.synchronised = True
    assert device.update() == "1.1.0"


def test_a_bundle_larger_than_free_space_is_not_begun(
    operator: Operator, web: Web, device: Device
) -> None:
    offer = replace(note(operator), length=10**15)
    with pytest.raises(UpdateDeferredError, match="MB are free: expected 1000000000"):
        device.repository.download(offer, device.store)
    assert web.requests == []


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_server_without_repository_is_out_of_reach(web: Web, device: Device, status: int) -> None:
    web.misdeeds["/timestamp"] = lambda request: request.send_error(status)
    refused(device, f"the web server answers {status}", UpdateUnreachableError)


def test_a_root_that_is_no_root_is_one_line(web: Web, memory_path: Path) -> None:
    for number, root in enumerate((b"", b"{}", b"[]", b'{"signed": 1, "signatures": []}')):
        made = Device(memory_path / str(number), web.address, root)
        with pytest.raises(UpdateRefusedError, match="is not to be trusted"):
            made.repository.refresh()


# ------------------------------------------------------------------------------- resuming


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 6_000), max_size=3), ranges=st.booleans())
def test_a_download_goes_on_where_it_broke_off(
    operator: Operator,
    web: Web,
    tmp_path_factory: pytest.TempPathFactory,
    cuts: list[int],
    ranges: bool,
) -> None:
    folder = tmp_path_factory.mktemp("resumed")
    device = Device(folder, web.address, operator.root)
    content = bundle_bytes("1.0.0")
    offer = device.offer()
    assert offer is not None
    have = 0
    for cut in cuts:

        def answer(request: BaseHTTPRequestHandler, cut: int = cut) -> None:
            start = 0
            if ranges and request.headers.get("Range"):
                start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            request.send_response(206 if start else 200)
            request.send_header("Content-Range", f"bytes {start}-9/{len(content)}")
            request.send_header("Content-Length", str(len(content) - start))
            request.end_headers()
            request.wfile.write(content[start : start + cut])

        web.misdeeds["/targets/"] = answer
        if have + cut >= len(content):
            break
        with pytest.raises(UpdateUnreachableError, match="breaks off"):
            device.repository.download(offer, device.store)
        have = have + cut if ranges else cut
    web.misdeeds.clear()
    web.ranges = ranges
    web.requests.clear()
    assert device.update() == "1.0.0"
    asked = [part for path, part in web.requests if path.startswith("/targets/")]
    assert asked == [f"bytes={have}-" if have else None]
    shutil.rmtree(folder)


def test_what_an_earlier_attempt_was_given_cannot_spoil_the_next(
    operator: Operator, web: Web, device: Device
) -> None:
    content = operator.release("1.1.0")
    offer = device.offer()
    assert offer is not None
    part = device.store.downloads / f"{offer.sha256}.part"
    for junk in (bytes(100), bytes(len(content)), bytes(len(content) + 100)):
        part.write_bytes(junk)
        with pytest.raises(UpdateRefusedError):
            device.repository.download(offer, device.store)
        assert device.repository.download(offer, device.store).read_bytes() == content
        part.unlink()


def test_parts_of_other_offers_are_cleared_away(operator: Operator, device: Device) -> None:
    (device.store.downloads / f"{'0' * 64}.part").write_bytes(bytes(1_000))
    operator.release("1.1.0")
    assert device.update() == "1.1.0"
    assert list(device.store.downloads.iterdir()) == []
