"""Whatever the folder of models holds, a sensor that starts has a model that can be loaded."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kill_points import killed_at
from signed_repository import bundle_bytes, installed, tiny_student

from soundpost.device.bundle import open_bundle, pack_bundle, parse_bundle, starter_bundle_path
from soundpost.device.updates.boot import Boot, boot, note_start, settings_mark
from soundpost.device.updates.model_store import ModelStore
from soundpost.device.updates.offers import Installed
from soundpost.device.updates.update_record import NAME, RecordFile

OLD, NEW = bundle_bytes("1.1.0"), bundle_bytes("1.2.0")


def broken_bytes() -> bytes:
    """A bundle in order, in whose model file no model is."""
    tiny = tiny_student()
    student, manifest = tiny.tiny_student(), tiny.tiny_manifest()
    golden = tiny.tiny_golden(student, manifest)
    return pack_bundle(replace(manifest, version="1.3.0"), b"no model", golden, "# broken\n")


class Folder:
    """A device's folder, its settings' bundle, and starts of its sensor."""

    def __init__(self, path: Path) -> None:
        self.path, self.settings = path / "models", path / "settings.bundle"
        self.settings.write_bytes(bundle_bytes("1.0.0"))
        self.path.mkdir()

    def stage(self, content: bytes) -> Installed:
        """A candidate."""
        store = ModelStore(self.path)
        model = installed(parse_bundle(content, "bundle"))
        part = store.downloads / "part"
        part.write_bytes(content)
        store.stage(part, model)
        return model

    def install(self, content: bytes, *, confirmed: bool) -> Installed:
        model = self.stage(content)
        store = ModelStore(self.path)
        store.switch()
        if confirmed:
            store.confirm()
        return model

    def start(self, **more: int) -> Boot:
        found = boot(self.path, self.settings, **more)
        # What it says to hear with can be heard with.
        open_bundle(found.path)
        return found

    def crash(self) -> None:
        """A start, which lets a candidate hear along, and an end without a word."""
        child = os.fork()
        if child == 0:
            code = 1
            try:
                found = self.start()
                assert found.store is not None
                if found.store.state.candidate is not None:
                    assert found.record is not None
                    note_start(found.record, found.store.state.candidate)
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0

    def version(self, found: Boot) -> str:
        return open_bundle(found.path)[0].manifest.version

    def started(self) -> str:
        """Version that a start hears with; it ends in order."""
        found = self.start()
        version = self.version(found)
        found.ended()
        return version


@pytest.fixture
def folder(memory_path: Path) -> Folder:
    return Folder(memory_path)


@pytest.fixture
def full_disk() -> Iterator[Callable[[], None]]:
    """Function after which this process cannot write to files any more, until the test ends."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_at_first_it_is_the_model_of_the_settings(folder: Folder) -> None:
    assert folder.started() == "1.0.0"
    found = boot(folder.path / "deeper" / "still", None)
    assert found.path == starter_bundle_path()
    assert found.fault is None
    found.ended()


def test_a_confirmed_model_is_never_counted(folder: Folder) -> None:
    folder.install(NEW, confirmed=True)
    for _ in range(5):
        folder.crash()
    assert folder.started() == "1.2.0"


@pytest.mark.parametrize("previous", [True, False])
def test_a_model_that_ends_the_sensor_is_taken_back_before_it_is_loaded(
    folder: Folder, previous: bool
) -> None:
    if previous:
        folder.install(OLD, confirmed=True)
    new = folder.install(NEW, confirmed=False)
    folder.crash()
    assert folder.started() == "1.2.0"
    folder.crash()
    found = folder.start()
    assert folder.version(found) == ("1.1.0" if previous else "1.0.0")
    assert found.notices == [
        "tiny 1.2.0 was taken back: the sensor ended 2 times without being told to"
    ]
    assert found.store is not None
    assert found.store.state.rejected == (new.sha256,)
    assert found.record is not None
    assert found.record.record.result == "rolled_back"
    assert "ended 2 times" in found.record.record.reason


def test_orderly_ends_are_no_crashes(folder: Folder) -> None:
    folder.install(NEW, confirmed=False)
    for _ in range(10):
        assert folder.started() == "1.2.0"


def test_a_candidate_that_ends_the_sensor_is_rejected_before_it_is_loaded(folder: Folder) -> None:
    folder.install(OLD, confirmed=True)
    new = folder.stage(NEW)
    folder.crash()
    found = folder.start()
    assert found.store is not None
    assert (found.store.state.candidate, found.notices) == (new, [])
    found.ended()
    folder.crash()
    found = folder.start()
    assert folder.version(found) == "1.1.0"
    line = "tiny 1.2.0 was rejected: the sensor ended 2 times without being told to"
    assert found.notices == [line]
    assert found.store is not None
    assert (found.store.state.candidate, found.store.state.rejected) == (None, (new.sha256,))
    assert found.record is not None
    assert (found.record.record.result, found.record.record.reason) == ("rejected", line)
    found.ended()
    # And the present model has nothing to do with it.
    folder.crash()
    assert folder.started() == "1.1.0"


def test_what_ends_before_the_candidate_is_loaded_or_in_order_is_not_counted(
    folder: Folder,
) -> None:
    new = folder.stage(NEW)
    for number in range(6):
        found = folder.start()
        assert found.store is not None
        assert found.record is not None
        assert found.store.state.candidate == new
        if number % 2:
            note_start(found.record, new)
            found.ended()
        found.release()


def test_crashes_beside_the_present_model_and_in_its_place_count_together(folder: Folder) -> None:
    folder.stage(NEW)
    folder.crash()
    found = folder.start()
    assert found.store is not None
    found.store.switch()
    found.ended()
    folder.crash()
    found = folder.start()
    assert found.notices == [
        "tiny 1.2.0 was taken back: the sensor ended 2 times without being told to"
    ]
    found.ended()


CUT_S, CRASH_S = 1_800.0, 43_200.0


def longest_chain(ends: list[float], gap_s: float) -> int:
    """How many ends follow each other with less sound between two of them."""
    chains = np.split(np.array(ends), np.flatnonzero(np.diff(ends) >= gap_s) + 1)
    return max(len(chain) for chain in chains)


@settings(max_examples=60, deadline=None)
@example(ends=[("cut", 14_400.0)] * 12)
@example(ends=[("cut", 0.0)] * 5)
@example(ends=[("cut", CUT_S), *[("cut", CUT_S - 1.0)] * 4])
@example(ends=[("crash", CRASH_S), ("crash", CRASH_S)])
@example(ends=[("crash", 10.0), ("cut", CUT_S), ("crash", 10.0)])
@given(
    ends=st.lists(
        st.tuples(
            st.sampled_from(["crash", "cut", "cut", "cut"]),
            st.sampled_from([0.0, 30.0, CUT_S - 1.0, CUT_S, 14_400.0, CRASH_S]),
        ),
        max_size=12,
    )
)
def test_ends_that_much_sound_lies_between_are_forgotten(ends: list[tuple[str, float]]) -> None:
    """Two crashes with less than half a day of sound between them, or five power cuts each within
    half an hour of the one before it, are too many.

    ends : what ended the sensor, and the sound that was heard until then
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder, heard_s = Folder(Path(name)), 0.0
        folder.install(NEW, confirmed=False)
        at: dict[str, list[float]] = {"crash": [], "cut": []}
        for kind, more_s in ends:
            found = folder.start()
            assert folder.version(found) == "1.2.0"
            heard_s += more_s
            at[kind].append(heard_s)
            assert found.record is not None
            # Another start of the machine gives another mark.
            mark = {"boot_id": "the boot before"} if kind == "cut" else {}
            found.record.change(heard_s=heard_s, **mark)
            found.release()
            if longest_chain(at["crash"], CRASH_S) >= 2 or longest_chain(at["cut"], CUT_S) >= 5:
                assert folder.started() == "1.0.0"
                return
        assert folder.started() == "1.2.0"


def test_a_model_that_cannot_be_loaded_gives_way(folder: Folder) -> None:
    """One after the other, and in the end to the settings' own."""
    folder.install(OLD, confirmed=True)
    folder.install(broken_bytes(), confirmed=True)
    found = folder.start()
    assert folder.version(found) == "1.1.0"
    assert "tiny 1.3.0 was taken back" in found.notices[0]
    found.ended()
    folder.install(broken_bytes(), confirmed=True)
    store = ModelStore(folder.path)
    assert store.state.previous is not None
    store.path(store.state.previous).unlink()
    assert folder.started() == "1.0.0"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["models.json", NAME]), content=st.binary(max_size=60), cut=st.data())
def test_damaged_files_keep_no_sensor_from_starting(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes, cut: st.DataObject
) -> None:
    folder = Folder(tmp_path_factory.mktemp("damaged"))
    folder.install(OLD, confirmed=True)
    folder.install(NEW, confirmed=False)
    folder.crash()
    whole = (folder.path / name).read_bytes()
    place = cut.draw(st.integers(0, len(whole)))
    (folder.path / name).write_bytes(whole[:place] + content)
    found = folder.start()
    assert (found.store is None) == (found.fault is not None)
    # Nobody's models are deleted for a file that cannot be read.
    assert len(list((folder.path / "models").iterdir())) == 2
    found.ended()


def test_a_folder_that_cannot_be_used_is_one_line(folder: Folder) -> None:
    (folder.path / "models").write_bytes(b"a file in its way")
    found = folder.start()
    assert found.store is None
    assert found.fault is not None
    assert "\n" not in found.fault
    assert folder.version(found) == "1.0.0"


def test_a_second_sensor_leaves_the_folder_alone(folder: Folder) -> None:
    folder.install(NEW, confirmed=False)
    first = folder.start()
    second = boot(folder.path, folder.settings)
    assert second.store is None
    assert "another sensor uses it" in str(second.fault)
    second.ended()
    assert RecordFile(folder.path).record.running
    first.ended()
    assert folder.started() == "1.2.0"


@pytest.mark.parametrize("confirmed", [True, False])
def test_with_a_full_disk_only_what_has_proved_itself_is_heard_with(
    folder: Folder, full_disk: Callable[[], None], confirmed: bool
) -> None:
    """Crashes of the other could not be counted."""
    folder.install(OLD, confirmed=True)
    folder.install(NEW, confirmed=confirmed)
    full_disk()
    found = folder.start()
    assert folder.version(found) == ("1.2.0" if confirmed else "1.1.0")
    found.ended()


def test_with_a_full_disk_a_model_that_crashes_is_not_loaded(
    folder: Folder, full_disk: Callable[[], None]
) -> None:
    folder.install(OLD, confirmed=True)
    folder.install(NEW, confirmed=False)
    folder.crash()
    folder.crash()
    full_disk()
    assert folder.started() == "1.1.0"


def test_with_a_full_disk_a_candidate_that_crashes_keeps_no_sensor_from_starting(
    folder: Folder, full_disk: Callable[[], None]
) -> None:
    folder.install(OLD, confirmed=True)
    folder.stage(NEW)
    folder.crash()
    folder.crash()
    full_disk()
    found = folder.start()
    assert folder.version(found) == "1.1.0"
    # What could not be written down is known all the same.
    assert found.record is not None
    assert found.record.record.crashes == 2
    found.ended()


def test_with_a_full_disk_a_model_that_cannot_be_loaded_gives_way(
    folder: Folder, full_disk: Callable[[], None]
) -> None:
    folder.install(OLD, confirmed=True)
    folder.install(broken_bytes(), confirmed=True)
    full_disk()
    assert folder.started() == "1.1.0"


def test_a_bundle_that_somebody_names_since_wins(folder: Folder) -> None:
    folder.install(NEW, confirmed=True)
    RecordFile(folder.path).change(settings_sha256=settings_mark(folder.settings))
    assert folder.started() == "1.2.0"
    # One that is no good does not.
    folder.settings.write_bytes(b"no bundle")
    found = boot(folder.path, folder.settings)
    assert folder.version(found) == "1.2.0"
    assert "cannot be used" in found.notices[0]
    found.ended()
    folder.settings.write_bytes(OLD)
    found = folder.start()
    assert folder.version(found) == "1.1.0"
    assert "in place of the installed one" in found.notices[0]
    found.ended()


def test_another_starter_is_nobodys_choice(folder: Folder) -> None:
    folder.install(NEW, confirmed=True)
    RecordFile(folder.path).change(settings_sha256="another starter's")
    found = boot(folder.path, None)
    assert folder.version(found) == "1.2.0"
    found.ended()


@pytest.mark.parametrize("crashes", [0, 1])
def test_a_start_can_be_cut_off_anywhere(
    memory_path: Path, crashes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of a model with so many crashes; a cut counts as a crash or not, and the next start works."""
    number, whole = 0, False
    while not whole:
        folder = Folder(tmp_path_factory.mktemp("cut"))
        folder.install(OLD, confirmed=True)
        folder.install(NEW, confirmed=False)
        for _ in range(crashes):
            folder.crash()
        whole = not killed_at(number, folder.start)
        version = folder.started()
        assert version == "1.2.0" if crashes == 0 else version in ("1.2.0", "1.1.0")
        number += 1
    assert number > 2
