"""Keys are made, shared out and replaced by enough of those who hold them."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest
from kill_points import killed_at
from signed_repository import ENVIRONMENT, PASSPHRASE, Operator, bundle_bytes
from tuf.api.metadata import Metadata, Root

from soundpost.device.errors import InputError, UsageError
from soundpost.export.repository.ceremony import (
    RootKeys,
    add_signatures,
    init_repository,
    rotate,
)
from soundpost.export.repository.folder import RepositoryFolder
from soundpost.export.repository.keys import KeyRing, Passphrase
from soundpost.export.repository.publish import push
from soundpost.export.repository.settings import RepositorySettings
from soundpost.export.repository.signing import utc_now


def made(path: Path, root_folder: Path | None = None, keys: RootKeys | None = None) -> None:
    init_repository(
        path,
        RepositorySettings(),
        keys or RootKeys(3, 2),
        Passphrase(ENVIRONMENT),
        utc_now(),
        root_folder,
    )


def ring(*folders: Path) -> KeyRing:
    return KeyRing(folders, Passphrase(ENVIRONMENT), ENVIRONMENT)


def sticks(memory_path: Path, keys: RootKeys | None = None) -> tuple[RepositoryFolder, list[Path]]:
    """A repository whose root keys lie on one stick each."""
    made(memory_path / "repository", memory_path / "table", keys)
    places = []
    for number, key in enumerate(sorted((memory_path / "table").iterdir())):
        places.append(memory_path / f"stick{number}")
        places[-1].mkdir()
        key.rename(places[-1] / key.name)
    return RepositoryFolder(memory_path / "repository"), places


def test_keys_are_locked_and_their_owners_alone(memory_path: Path) -> None:
    made(memory_path / "repository", memory_path / "stick")
    own = sorted(path.name.split("-")[0] for path in (memory_path / "repository/keys").iterdir())
    assert own == ["snapshot", "targets", "timestamp"]
    files = [*(memory_path / "stick").iterdir(), *(memory_path / "repository/keys").iterdir()]
    assert len(files) == 6
    for path in files:
        assert path.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    public = (memory_path / "repository/public").rglob("*")
    assert not any(b"PRIVATE" in path.read_bytes() for path in public if path.is_file())


def test_an_init_that_is_killed_leaves_nothing_or_what_a_push_completes(memory_path: Path) -> None:
    path, points = memory_path / "repository", 0
    while killed_at(points, lambda: made(path, keys=RootKeys(1, 1))):
        if path.exists():
            push(RepositoryFolder(path), ring(path / "keys"), utc_now())
            assert RepositoryFolder(path).published_timestamp() is not None
            shutil.rmtree(path)
        points += 1
    assert points >= 12
    assert RepositoryFolder(path).published_timestamp() is not None


def test_something_that_is_there_is_left_alone(memory_path: Path) -> None:
    (memory_path / "file").write_bytes(b"mine")
    operator = Operator(memory_path / "repository")
    for path in (memory_path / "file", memory_path, operator.path):
        before = sorted(memory_path.rglob("*"))
        with pytest.raises(InputError, match="is there already"):
            made(path)
        assert sorted(memory_path.rglob("*")) == before
    (memory_path / "empty").mkdir()
    made(memory_path / "empty")


@pytest.mark.parametrize(("count", "threshold"), [(1, 2), (0, 0), (3, 0), (21, 2), (-1, -1)])
def test_thresholds_that_nobody_could_meet_are_refused(count: int, threshold: int) -> None:
    with pytest.raises(UsageError, match="a threshold of 1 to their number"):
        RootKeys(count, threshold)


def test_a_new_root_gathers_signatures_stick_by_stick(memory_path: Path) -> None:
    """Two of three, never at the same table; until then all goes on as it was."""
    repository, places = sticks(memory_path)
    own = repository.path / "keys"
    first = rotate(repository, "timestamp", ring(own, places[0]), utc_now())
    assert first.missing[0].startswith("root 2 lacks 1 of the root keys of version 1: ")
    # The daily push publishes with the old root meanwhile, and says that one waits.
    published = push(repository, ring(own), utc_now())
    assert published.root == 1
    assert any("root 2 lacks 1" in note for note in published.notes)
    with pytest.raises(UsageError, match="root 2 is staged already"):
        rotate(repository, "snapshot", ring(own, places[0]), utc_now())
    for keys in (ring(own), ring(places[0])):
        with pytest.raises(UsageError, match=r"root 2 lacks 1 .* nothing was changed"):
            add_signatures(repository, keys)
    second = add_signatures(repository, ring(places[2]))
    assert second.missing == ()
    published = push(repository, ring(own), utc_now())
    assert (published.root, published.notes) == (2, ())
    with pytest.raises(UsageError, match="no root waits for signatures"):
        add_signatures(repository, ring(places[0]))


def test_new_root_keys_need_the_old_and_the_new(memory_path: Path) -> None:
    repository, places = sticks(memory_path)
    new = memory_path / "new"
    change = rotate(repository, "root", ring(places[0], places[1]), utc_now(), RootKeys(5, 3), new)
    assert change.missing == ()
    assert len(change.key_files) == 5
    assert {path.parent for path in change.key_files} == {new}
    push(repository, ring(repository.path / "keys"), utc_now())
    root: Metadata[Root] = Metadata.from_file(str(repository.root_file(2)))
    assert (len(root.signed.roles["root"].keyids), root.signed.roles["root"].threshold) == (5, 3)
    # The old keys have no say in the next one.
    with pytest.raises(UsageError, match="no root key at hand: 0 of 3"):
        rotate(repository, "root", ring(*places), utc_now())
    keys = sorted(new.iterdir())
    for key in keys[3:]:
        key.unlink()
    assert rotate(repository, "root", ring(new), utc_now()).missing == ()


def test_without_any_root_key_nothing_is_made(memory_path: Path) -> None:
    repository, _ = sticks(memory_path)
    before = sorted(memory_path.rglob("*"))
    with pytest.raises(UsageError, match=r"no root key at hand: 0 of 2 .* nothing was changed"):
        rotate(repository, "targets", ring(repository.path / "keys"), utc_now())
    assert sorted(memory_path.rglob("*")) == before


def test_a_rotation_that_is_killed_can_be_done_again(memory_path: Path) -> None:
    operator = Operator(memory_path / "repository")
    operator.release("1.0.0")
    whole, points = memory_path / "whole", 0
    shutil.copytree(operator.path, whole)

    def job() -> object:
        return rotate(operator.folder, "targets", operator.ring(), operator.now())

    while killed_at(points, job):
        operator.push()
        if operator.folder.published_root().signed.version == 1:  # type: ignore[union-attr]
            job()
            operator.push()
        operator.release("1.1.0")
        shutil.rmtree(operator.path)
        shutil.copytree(whole, operator.path)
        points += 1
    assert points >= 4


# ------------------------------------------------------------------------------- passphrases


def test_a_wrong_passphrase_is_one_line(memory_path: Path) -> None:
    operator = Operator(memory_path / "repository")
    wrong = KeyRing(
        [operator.path / "keys"], Passphrase({"SOUNDPOST_REPO_PASSPHRASE": "another one"}), {}
    )
    with pytest.raises(UsageError, match=r"snapshot-.*\.pem: the passphrase does not open it"):
        push(operator.folder, wrong, operator.now())


def test_a_short_passphrase_locks_nothing(memory_path: Path) -> None:
    short = Passphrase({"SOUNDPOST_REPO_PASSPHRASE": "secret"})
    with pytest.raises(UsageError, match="has 6 characters: expected at least 12"):
        init_repository(
            memory_path / "repository", RepositorySettings(), RootKeys(), short, utc_now()
        )
    assert list(memory_path.iterdir()) == []


@pytest.mark.parametrize("locked", [True, False])
def test_keys_may_come_by_the_environment_alone(memory_path: Path, locked: bool) -> None:
    from cryptography.hazmat.primitives import serialization as form

    operator = Operator(memory_path / "repository")
    operator.add(bundle_bytes("1.0.0"))
    environment = dict(ENVIRONMENT) if locked else {}
    for role in ("snapshot", "timestamp"):
        (path,) = (operator.path / "keys").glob(f"{role}-*.pem")
        text = path.read_bytes()
        if not locked:
            key = form.load_pem_private_key(text, PASSPHRASE.encode())
            text = key.private_bytes(
                form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
            )
        environment[f"SOUNDPOST_REPO_KEY_{role.upper()}"] = text.decode()
    keys = KeyRing([], Passphrase(environment), environment)
    assert push(operator.folder, keys, operator.now()).targets == 2
    keyid = operator.folder.root().signed.roles["timestamp"].keyids[0]
    assert keys.place("timestamp", keyid) == "$SOUNDPOST_REPO_KEY_TIMESTAMP"


def test_keys_of_another_kind_and_files_without_lock_are_refused(memory_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    operator = Operator(memory_path / "repository")
    (path,) = (operator.path / "keys").glob("timestamp-*.pem")
    key = form.load_pem_private_key(path.read_bytes(), PASSPHRASE.encode())
    plain = (form.Encoding.PEM, form.PrivateFormat.PKCS8)
    locked = form.BestAvailableEncryption(PASSPHRASE.encode())
    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(*plain, locked)
    other = Operator(memory_path / "other")
    (stranger,) = (other.path / "keys").glob("timestamp-*.pem")
    for content, told in (
        (key.private_bytes(*plain, form.NoEncryption()), "is not locked"),
        (curve, "is no Ed25519 key"),
        (stranger.read_bytes(), "is another key than its name says"),
        (b"", "is no PEM file"),
    ):
        path.write_bytes(content)
        with pytest.raises((UsageError, InputError), match=told):
            operator.push()
