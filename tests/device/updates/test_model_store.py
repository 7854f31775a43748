"""The models of a device survive whatever interrupts a change of them."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kill_points import killed_at

import soundpost.device
from soundpost.device.errors import InputError, UpdateDeferredError
from soundpost.device.updates.model_store import RESERVE_BYTES, ModelStore, StoreState
from soundpost.device.updates.offers import Installed

# Content stands for a bundle: the store does not look into files, only at their sha256.
CONTENTS = [f"model {number} ".encode() * 100 for number in range(4)]
MODELS = [
    Installed("tiny", f"1.{number}.0", hashlib.sha256(content).hexdigest())
    for number, content in enumerate(CONTENTS)
]


def stage(store: ModelStore, number: int) -> None:
    path = store.downloads / "whole"
    path.write_bytes(CONTENTS[number])
    store.stage(path, MODELS[number])


def test_these_are_the_modules_of_this_checkout() -> None:
    assert Path(soundpost.device.__file__).resolve().parents[1] == Path(__file__).parents[3]


@dataclass(frozen=True)
class Expected:
    """What the store should say, written down from the rules and nothing else."""

    current: int | None = None
    previous: int | None = None
    candidate: int | None = None
    confirmed: bool = True
    rejected: tuple[int, ...] = ()

    def after(self, step: str, number: int) -> Expected:
        if step == "stage":
            return replace(self, candidate=number)
        if step == "switch" and self.candidate is not None:
            good = self.current if self.confirmed else self.previous
            return replace(
                self, current=self.candidate, previous=good, candidate=None, confirmed=False
            )
        if step == "confirm":
            return replace(self, confirmed=True)
        if step == "roll_back" and self.current is not None:
            rejected = (*(n for n in self.rejected if n != self.current), self.current)
            return Expected(self.previous, None, self.candidate, True, rejected)
        if step == "reject" and self.candidate is not None:
            rejected = (*(n for n in self.rejected if n != self.candidate), self.candidate)
            return replace(self, candidate=None, rejected=rejected)
        return self


def told(state: StoreState) -> Expected:
    numbers = {model.sha256: number for number, model in enumerate(MODELS)}

    def number(model: Installed | None) -> int | None:
        return None if model is None else numbers[model.sha256]

    return Expected(
        number(state.current),
        number(state.previous),
        number(state.candidate),
        state.confirmed,
        tuple(numbers[sha256] for sha256 in state.rejected),
    )


def do(folder: Path, step: str, number: int) -> None:
    store = ModelStore(folder)
    if step == "stage":
        stage(store, number)
    elif step == "switch" and store.state.candidate is not None:
        store.switch()
    elif step == "confirm":
        store.confirm()
    elif step == "roll_back":
        store.roll_back()
    elif step == "reject":
        store.discard(rejected=True)


STEPS = st.lists(
    st.tuples(
        # An update is two steps, and most states lie behind several updates.
        st.sampled_from(["stage", "switch"] * 3 + ["confirm", "roll_back", "reject"]),
        st.integers(0, len(MODELS) - 1),
        st.none() | st.integers(0, 12),
    ),
    min_size=4,
    max_size=12,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_a_step_that_is_cut_off_is_done_or_not_begun(
    memory_path: Path, steps: list[tuple[str, int, int | None]]
) -> None:
    """Of any history of steps, some killed before one of their changes of the disk."""
    folder = Path(tempfile.mkdtemp(prefix="store-", dir=memory_path))
    try:
        expected = Expected()
        for step, number, kill in steps:
            after = expected.after(step, number)
            if kill is None:
                do(folder, step, number)
                whole = True
            else:
                whole = not killed_at(
                    kill, lambda step=step, number=number: do(folder, step, number)
                )
            store = ModelStore(folder)
            found = told(store.state)
            assert found == after if whole else found in (expected, after)
            expected = found
            files = {path.name for path in (folder / "models").iterdir()}
            assert files == {f"{sha256}.bundle" for sha256 in store.state.kept}
            for model in (store.state.current, store.state.previous, store.state.candidate):
                if model is not None:
                    content = store.path(model).read_bytes()
                    assert hashlib.sha256(content).hexdigest() == model.sha256
            assert [path for path in folder.iterdir() if path.name.endswith(".part")] == []
    finally:
        shutil.rmtree(folder)


def test_every_step_has_points_at_which_it_can_be_killed(tmp_path: Path) -> None:
    """The property above is about something: the steps change the disk more than once."""
    for step in ("stage", "switch", "confirm", "roll_back"):
        points = 0
        while killed_at(points, lambda step=step: do(tmp_path, step, 0)):
            points += 1
        assert points >= 3, step
    assert told(ModelStore(tmp_path).state) == Expected(rejected=(0,))


def test_the_last_good_model_stays_while_candidates_fail(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    stage(store, 0)
    store.switch()
    store.confirm()
    for number in (1, 2, 3):
        stage(store, number)
        store.switch()
        assert store.path(MODELS[0]).read_bytes() == CONTENTS[0]
    assert store.roll_back() == MODELS[0]
    assert store.state.rejected == (MODELS[3].sha256,)
    store.forgive(MODELS[3].sha256)
    assert ModelStore(tmp_path).state.rejected == ()


def test_the_settings_model_takes_the_place_of_all_others(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    for number in (0, 1):
        stage(store, number)
        store.switch()
        store.confirm()
    stage(store, 2)
    store.discard(rejected=True)
    stage(store, 3)
    store.use_settings()
    # What was no good here is remembered all the same.
    assert told(ModelStore(tmp_path).state) == Expected(rejected=(2,))
    assert list((tmp_path / "models").iterdir()) == []


def test_a_damaged_current_model_gives_way_to_the_one_before(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    for number in (0, 1):
        stage(store, number)
        store.switch()
        store.confirm()
    store.path(MODELS[1]).write_bytes(b"bit rot")
    assert told(ModelStore(tmp_path).state) == Expected(current=0)
    store.path(MODELS[0]).unlink()
    assert told(ModelStore(tmp_path).state) == Expected()


def test_a_file_that_changed_after_it_was_verified_is_refused(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    path = store.downloads / "whole"
    path.write_bytes(CONTENTS[1])
    with pytest.raises(InputError, match="has changed since it was verified"):
        store.stage(path, MODELS[0])
    assert store.state == StoreState()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"schema": "soundpost.models/2"}',
        b'{"schema": "soundpost.models/1", "rejected": [], "confirmed": 1}',
        b'{"schema": "soundpost.models/1", "rejected": ["../x"], "confirmed": true}',
        b'{"schema": "soundpost.models/1", "rejected": [], "confirmed": true,'
        b' "current": {"name": "a", "version": "1.0.0", "sha256": "../../etc/passwd"}}',
    ],
)
def test_a_damaged_state_is_one_line_and_its_models_stay(tmp_path: Path, content: bytes) -> None:
    store = ModelStore(tmp_path)
    stage(store, 0)
    (tmp_path / "models.json").write_bytes(content)
    with pytest.raises(InputError, match=r"models\.json: .*; move .* away") as told_error:
        ModelStore(tmp_path)
    assert "\n" not in str(told_error.value)
    assert store.path(MODELS[0]).exists()


def test_space_is_asked_for_with_a_reserve(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    free = shutil.disk_usage(tmp_path).free
    # The machine's other programs write meanwhile.
    store.require_space(max(0, free - RESERVE_BYTES - 500_000_000))
    with pytest.raises(UpdateDeferredError, match="MB are free: expected"):
        store.require_space(free)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"file/store: cannot keep models here \(Not a directory"):
        ModelStore(tmp_path / "file" / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
