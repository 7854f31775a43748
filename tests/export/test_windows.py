"""Windows by role: no clip on two sides, alarms over clips of the same role."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundpost.device.alarms import synthesise_beeper
from soundpost.device.errors import InputError
from soundpost.device.features import log_mel
from soundpost.export import windows as windows_module
from soundpost.export.windows import NO_LABEL, load_windows, split_of
from soundpost.train.run import TrainedRun, load_run


def test_no_clip_stands_on_two_sides(tone_run: TrainedRun, tones: Path) -> None:
    split = split_of(tone_run, tones)
    sides = [{clip.path for clip in part} for part in (split.train, split.validation, split.test)]
    assert sum(map(len, sides)) == len(set().union(*sides)) == 60
    assert {clip.fold for clip in split.test} == {5}
    names = {str(path.relative_to(tones)) for path in sides[1]}
    assert names == set(tone_run.settings["data"]["validation"])


def test_windows_are_the_sensors(tone_run: TrainedRun, tones: Path) -> None:
    windows = load_windows(tone_run, tones, quiet=True)
    assert windows.test is not None
    split = split_of(tone_run, tones)
    for part, clips in ((windows.validation, split.validation), (windows.test, split.test)):
        assert len(part.clip_labels) == len(clips)
        for index, clip in enumerate(clips):
            samples, _ = soundfile.read(clip.path, dtype="float32")
            features = log_mel(samples, tone_run.front_end)
            expected = [features[i : i + 100] for i in range(0, len(features) - 99, 25)]
            np.testing.assert_allclose(part.patches[part.clips == index], expected, atol=2e-2)
            assert tone_run.labels[part.clip_labels[index]] == clip.label
    assert not windows.validation.synthesised.any()
    joined = windows.validation.joined(windows.test)
    labels = [*windows.validation.window_labels, *windows.test.window_labels]
    np.testing.assert_array_equal(joined.window_labels, labels)


@pytest.fixture
def alarm_run(tone_run: TrainedRun, tmp_path: Path) -> TrainedRun:
    """The same run, had it learnt alarms too."""
    run = tmp_path / "run"
    shutil.copytree(tone_run.folder, run)
    settings = json.loads((run / "settings.json").read_text())
    settings["recipe"]["data"]["alarms"] = 3
    (run / "settings.json").write_text(json.dumps(settings))
    loaded = load_run(run)
    object.__setattr__(loaded, "labels", ("co_alarm", "high", "low", "middle", "smoke_alarm"))
    return loaded


def test_alarms_are_laid_over_clips_of_the_same_role(
    alarm_run: TrainedRun, tones: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows_module, "N_ALARMS", 5)
    windows = load_windows(alarm_run, tones, quiet=True)
    again = load_windows(alarm_run, tones, quiet=True)
    assert windows.test is not None
    assert again.test is not None
    np.testing.assert_array_equal(windows.test.patches, again.test.patches)
    labels = windows.test.clip_labels[windows.test.synthesised]
    assert sorted(labels) == [NO_LABEL] * 5 + [0] * 5 + [4] * 5
    real = windows.test.clip_labels[~windows.test.synthesised]
    assert len(real) == 12
    assert set(real) == {1, 2, 3}
    # Validation and test alarms are different ones.
    one, other = (
        part.patches[part.synthesised[part.clips]] for part in (windows.validation, windows.test)
    )
    assert one.shape == other.shape
    assert (one != other).any(axis=(1, 2)).all()


def test_the_ratio_of_levels_is_kept() -> None:
    rng = np.random.default_rng(0)
    beeps = synthesise_beeper(rng, 2.0, 16_000) * np.float32(0.1)
    under = (0.01 * rng.standard_normal(7_000)).astype(np.float32)
    mixed = windows_module._over(beeps, under, 6.0)
    ground = mixed - beeps
    ratio_db = 10 * np.log10(np.mean(beeps.astype(float) ** 2) / np.mean(ground.astype(float) ** 2))
    assert ratio_db == pytest.approx(6.0, abs=0.05)
    assert np.abs(windows_module._over(beeps * 50, under, 0.0)).max() <= 1.0
    # Silence around the sound changes nothing where its own span is told.
    padded = np.pad(beeps, 10_000)
    sounding = np.pad(np.ones(len(beeps), bool), 10_000)
    again = windows_module._over(padded, under, 6.0, sounding) - padded
    assert np.std(again) == pytest.approx(np.std(ground), rel=0.02)


def test_labels_without_clips_are_named(tone_run: TrainedRun, tones: Path, tmp_path: Path) -> None:
    del tmp_path
    run = load_run(tone_run.folder)
    object.__setattr__(run, "labels", (*tone_run.labels, "siren"))
    with pytest.raises(InputError, match="has no clips of siren"):
        load_windows(run, tones, quiet=True)
