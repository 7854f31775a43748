"""Whatever a push is cut off at, every device can go on: judged by python-tuf's own client."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from kill_points import killed_at
from signed_repository import Operator, bundle_bytes
from tuf.api.metadata import Metadata

from soundpost.device.errors import InputError, UsageError
from soundpost.device.updates.trusted_download import TrustedRepository
from soundpost.export.repository.ceremony import renew, rotate
from soundpost.export.repository.publish import push
from soundpost.export.repository.settings import Days, RepositorySettings


def seen(public: Path, root: bytes, state: Path) -> list[str]:
    """Versions that a device with this state is offered; it fails where it must not be believed."""
    reader = TrustedRepository(str(public), root, state, synchronised=lambda: True)
    return sorted(offer.version for offer in reader.refresh())


def staged_release(operator: Operator) -> None:
    operator.add(bundle_bytes("1.1.0"))


def staged_rotation(role: str) -> Callable[[Operator], None]:
    def stage(operator: Operator) -> None:
        operator.add(bundle_bytes("1.1.0"))
        assert rotate(operator.folder, role, operator.ring(), operator.now()).missing == ()

    return stage


@pytest.mark.parametrize(
    "stage",
    [staged_release, *map(staged_rotation, ("root", "targets", "snapshot", "timestamp"))],
    ids=["release", "root", "targets", "snapshot", "timestamp"],
)
def test_a_push_that_is_killed_leaves_a_repository_for_old_and_new_devices(
    memory_path: Path, stage: Callable[[Operator], None]
) -> None:
    """Before each of its changes of the disk; and the next push completes it."""
    operator = Operator(memory_path / "repository")
    operator.release("1.0.0")
    old_state = memory_path / "old"
    assert seen(operator.public, operator.root, old_state) == ["1.0.0"]
    stage(operator)
    whole = memory_path / "whole"
    operator.path.rename(whole)

    points, versions = 0, []
    while True:
        shutil.rmtree(operator.path, ignore_errors=True)
        shutil.copytree(whole, operator.path)
        cut = killed_at(points, operator.push)
        done = operator.folder.staged_targets() is None and operator.folder.is_public()
        assert done or cut
        for name, state in (("old", old_state), ("new", None)):
            copy = memory_path / "device"
            shutil.rmtree(copy, ignore_errors=True)
            if state is not None:
                shutil.copytree(state, copy, symlinks=True)
            found = seen(operator.public, operator.root, copy)
            assert found in ([["1.1.0"]] if done else [["1.0.0"], ["1.1.0"]]), name
            versions.append(found)
        operator.push()
        assert seen(operator.public, operator.root, copy) == ["1.1.0"]
        assert list((operator.path / "staged").rglob("*.json")) == []
        if not cut:
            break
        points += 1
    # Before the first of them nothing had happened, and after the last of them all had.
    assert points >= 8
    assert versions[0] == ["1.0.0"]
    assert versions[-1] == ["1.1.0"]
    assert versions == sorted(versions)


def test_numbered_metadata_never_change(memory_path: Path) -> None:
    operator = Operator(memory_path / "repository")
    metadata = operator.public / "metadata"
    kept: dict[str, bytes] = {}
    for version in ("1.0.0", "1.0.1", "1.0.2"):
        operator.release(version)
        now = {path.name: path.read_bytes() for path in metadata.iterdir()}
        now.pop("timestamp.json")
        assert kept.items() <= now.items()
        kept = now
        operator.push()
    assert sorted(kept) == sorted(
        [
            "1.root.json",
            *(f"{n}.{role}.json" for n in range(1, 5) for role in ("snapshot", "targets")),
        ]
    )


def test_a_daily_push_needs_neither_root_nor_targets_keys(memory_path: Path) -> None:
    operator = Operator(memory_path / "repository")
    operator.release("1.0.0")
    for path in (operator.path / "keys").glob("*.pem"):
        if path.name.startswith(("root", "targets")):
            path.unlink()
    published = operator.push()
    assert (published.targets, published.snapshot, published.timestamp) == (2, 2, 3)
    # A snapshot of seven days is signed anew after half of them.
    operator.late = timedelta(days=4)
    assert operator.push().snapshot == 3


def test_without_its_keys_a_push_changes_nothing(memory_path: Path) -> None:
    operator = Operator(memory_path / "repository")
    operator.add(bundle_bytes("1.0.0"))
    before = {path: path.read_bytes() for path in operator.path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=r"no snapshot key at hand: 0 of 1 .* nothing was changed"):
        push(operator.folder, operator.ring(memory_path), operator.now())
    assert before == {path: path.read_bytes() for path in before}
    assert not (operator.public / "targets").exists()


def test_expired_roles_are_named_and_renewed(memory_path: Path) -> None:
    days = Days(root=30, targets=10)
    operator = Operator(memory_path / "repository", RepositorySettings(days=days))
    operator.late = timedelta(days=8)
    (note,) = operator.push().notes
    assert note.startswith("targets expires in 2.0 days: soundpost repo rotate")
    operator.late = timedelta(days=11)
    with pytest.raises(UsageError, match=r"the targets metadata expired on .* targets --renew"):
        operator.push()
    renew(operator.folder, "targets", operator.ring(), operator.now())
    assert operator.push().targets == 2
    operator.late = timedelta(days=31)
    renew(operator.folder, "targets", operator.ring(), operator.now())
    with pytest.raises(UsageError, match="the root metadata expired"):
        operator.push()
    renew(operator.folder, "root", operator.ring(), operator.now())
    assert operator.push().root == 2
    with pytest.raises(UsageError, match="every `soundpost repo push` renews it"):
        renew(operator.folder, "snapshot", operator.ring(), operator.now())


@pytest.mark.parametrize("role", ["snapshot", "timestamp"])
def test_a_lost_key_is_replaced_without_it(memory_path: Path, role: str) -> None:
    operator = Operator(memory_path / "repository")
    operator.release("1.0.0")
    state = memory_path / "device"
    seen(operator.public, operator.root, state)
    (lost,) = (operator.path / "keys").glob(f"{role}-*.pem")
    lost.unlink()
    with pytest.raises(UsageError, match=f"no {role} key at hand"):
        operator.push()
    rotate(operator.folder, role, operator.ring(), operator.now())
    (note,) = operator.push().notes
    assert f"the old {role} key was not at hand" in note
    for folder in (state, memory_path / "new"):
        assert seen(operator.public, operator.root, folder) == ["1.0.0"]


def test_a_lost_targets_key_is_replaced_without_it(memory_path: Path) -> None:
    operator = Operator(memory_path / "repository")
    operator.release("1.0.0")
    (lost,) = (operator.path / "keys").glob("targets-*.pem")
    lost.unlink()
    with pytest.raises(UsageError, match="no targets key at hand"):
        operator.add(bundle_bytes("1.1.0"))
    rotate(operator.folder, "targets", operator.ring(), operator.now())
    operator.release("1.1.0")
    assert seen(operator.public, operator.root, memory_path / "new") == ["1.1.0"]


def test_a_published_file_that_was_damaged_is_noticed(memory_path: Path) -> None:
    operator = Operator(memory_path / "repository")
    content = operator.release("1.0.0")
    (file,) = (operator.public / "targets").iterdir()
    file.write_bytes(b"bit rot")
    with pytest.raises(InputError, match=r"tiny-1\.0\.0\.bundle: is missing or damaged"):
        operator.push()
    operator.add(content)
    operator.push()
    assert file.read_bytes() == content


def test_what_is_public_is_written_and_never_believed(memory_path: Path) -> None:
    """Whoever has broken into the web server gets none of it signed."""
    operator = Operator(memory_path / "repository")
    operator.release("1.0.0")
    other = Operator(memory_path / "other")
    other.release("2.0.0")
    for path in (other.public / "metadata").iterdir():
        shutil.copy(path, operator.public / "metadata" / path.name)
        shutil.copy(path, operator.public / "metadata" / path.name.replace("1.", "9."))
    operator.release("1.1.0")
    assert seen(operator.public, operator.root, memory_path / "device") == ["1.1.0"]
    # And one that was emptied is filled again, for devices with any root.
    staged_rotation("timestamp")(operator)
    operator.push()
    shutil.rmtree(operator.public / "metadata")
    operator.push()
    assert seen(operator.public, operator.root, memory_path / "new") == ["1.1.0"]


@pytest.mark.parametrize("name", ["timestamp.json", "1.root.json", "1.snapshot.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b'{"signed": {}, "signatures": []}'])
def test_damaged_metadata_are_one_line(memory_path: Path, name: str, content: bytes | None) -> None:
    operator = Operator(memory_path / "repository")
    path = operator.path / "signed" / name
    whole = path.read_bytes()
    if content is None:
        path.unlink()
        if name == "timestamp.json":
            return
    else:
        path.write_bytes(content)
    with pytest.raises(InputError) as told:
        operator.push()
    assert "\n" not in str(told.value)
    path.write_bytes(whole)
    operator.push()


def test_what_is_published_can_lie_elsewhere(memory_path: Path) -> None:
    share = memory_path / "share"
    operator = Operator(memory_path / "repository", RepositorySettings(public=str(share)))
    operator.release("1.0.0")
    assert seen(share, operator.root, memory_path / "device") == ["1.0.0"]
    assert not (operator.path / "public").exists()


def test_the_files_are_those_that_tuf_names(memory_path: Path) -> None:
    """Consistent snapshots, as its specification says in section 6.2."""
    operator = Operator(memory_path / "repository")
    operator.release("1.0.0")
    targets = Metadata.from_file(str(operator.public / "metadata" / "2.targets.json"))
    (target,) = targets.signed.targets.values()
    names = [path.name for path in (operator.public / "targets").iterdir()]
    assert names == [f"{target.hashes['sha256']}.tiny-1.0.0.bundle"]
