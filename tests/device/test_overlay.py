"""Thresholds set by commands: what was saved is there after a restart, or was refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from soundpost.device.errors import InputError
from soundpost.device.overlay import Overlay, load_overlay, save_overlay


def of_labels(n_labels: int) -> Overlay:
    labels = {f"label number {n}": {"onset": 0.8, "release": 0.5} for n in range(n_labels)}
    return Overlay({"porch": labels, "yard": labels})


@pytest.mark.parametrize("n_labels", [0, 1, 521, 4_000])
def test_what_was_saved_is_there_after_a_restart(n_labels: int, tmp_path: Path) -> None:
    """Also those of all labels of a large bundle at several sources."""
    path = tmp_path / "thresholds.json"
    save_overlay(path, of_labels(n_labels))
    assert load_overlay(path) == of_labels(n_labels)


def test_what_could_not_be_read_again_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    save_overlay(path, of_labels(1))
    with pytest.raises(InputError, match=r"thresholds\.json: .* at most 1000000: reset some"):
        save_overlay(path, of_labels(10_000))
    assert load_overlay(path) == of_labels(1)
