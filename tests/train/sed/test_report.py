import json
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from soundpost.device.detection import ClassSettings
from soundpost.device.errors import ConfigError
from soundpost.device.features import FrontEnd, log_mel, mel_filters
from soundpost.train.sed.confusion import segment_confusion
from soundpost.train.sed.decisions import FrameGrid, decide
from soundpost.train.sed.metrics import sed_figures
from soundpost.train.sed.pictures import (
    BLUE,
    ORANGE,
    PicturedRecording,
    band_centres_hz,
    draw_recording,
)
from soundpost.train.sed.report import LadderStep, SedReport, ladder_table, write_report
from soundpost.train.sed.scenes import Event, Scene
from soundpost.train.sed.thresholds import trade_off

FRONT_END = FrontEnd()
GRID = FrameGrid.of(FRONT_END)
LABELS = ("car_horn", "dog", "door_wood_knock")
CLASSES = tuple(
    ClassSettings(label, onset=0.5, release=0.3, smoothing="none", min_gap_s=0.1)
    for label in LABELS
)


def recording(name, *events):
    """Three seconds with a tone for each event, and scores that follow half a frame late."""
    rng = np.random.default_rng(len(events))
    seconds = 3.0
    time_s = np.arange(int(seconds * 16_000)) / 16_000
    samples = 0.01 * rng.standard_normal(len(time_s))
    scores = rng.uniform(0.0, 0.1, (FRONT_END.frames_of(len(time_s)), 3)).astype(np.float32)
    middles_s = (GRID.edges_s(len(scores))[:-1] + GRID.edges_s(len(scores))[1:]) / 2
    for event in events:
        inside = (time_s >= event.onset_s) & (time_s < event.offset_s)
        samples += inside * 0.3 * np.sin(2 * np.pi * 1000 * time_s)
        heard = (middles_s >= event.onset_s) & (middles_s < event.offset_s)
        scores[heard, LABELS.index(event.label)] = 0.9
    scene = Scene(Path(name), "strong", seconds, events, frozenset(event.label for event in events))
    return scene, scores, log_mel(samples.astype(np.float32), FRONT_END)


RECORDINGS = (
    recording("a.wav", Event("dog", 0.5, 1.0), Event("car_horn", 1.2, 2.4)),
    recording("b.wav", Event("dog", 1.0, 1.5)),
    recording("c.wav"),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    scenes = [scene for scene, _, _ in RECORDINGS]
    scores = {scene.path: frames for scene, frames, _ in RECORDINGS}
    found = {scene.path: decide(scores[scene.path], CLASSES, GRID) for scene in scenes}
    figures = sed_figures(scenes, scores, GRID, CLASSES)
    report = SedReport(
        title="Run 7: recipe pts",
        source="Liang et al. 2021, table 1, row 3",
        made=("Trained on folds 1 to 4.",),
        published={"event_f1": 0.409, "clip_f1": 0.734},
        published_on="DCASE 2019 task 4",
        figures=figures,
        classes=CLASSES,
        confusion=segment_confusion(scenes, found, LABELS),
        trade=trade_off(scenes, scores, GRID, CLASSES, (0.2, 0.5, 0.95)),
        recordings=tuple(
            PicturedRecording(scene, mel, FRONT_END, frames, CLASSES, tuple(found[scene.path]))
            for scene, frames, mel in RECORDINGS
        ),
    )
    write_report(folder, report)
    return folder, report


def rows_of(text):
    """Cells of every table row, by the first one."""
    rows = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in rows}


def test_ours_stand_beside_the_published(written):
    folder, _ = written
    rows = rows_of((folder / "report.md").read_text())
    assert rows["figure"] == ["here", "published (DCASE 2019 task 4)"]
    assert rows["event F1 (200 ms, 20 %)"] == ["100.0 %", "40.9 %"]
    assert rows["clip F1 (macro)"] == ["100.0 %", "73.4 %"]
    assert rows["PSDS 1"] == ["1.000", "–"]
    # What never sounds has no F1, and stands last.
    assert list(rows)[-1] == "door_wood_knock"
    assert rows["door_wood_knock"][:5] == ["0", "0", "–", "–", "–"]
    assert rows["dog"][:5] == ["2", "2", "100.0 %", "100.0 %", "100.0 %"]


def test_figures_are_kept_as_json(written):
    folder, report = written
    kept = json.loads((folder / "figures.json").read_text())
    assert kept["n_recordings"] == 3
    assert kept["all"]["event_f1"] == 1.0
    assert kept["labels"]["door_wood_knock"]["event_f1"] is None
    assert kept["labels"]["dog"]["n_reference"] == 2
    assert report.figures.to_dict() == kept


def test_every_picture_that_the_report_names_is_there(written):
    folder, _ = written
    text = (folder / "report.md").read_text()
    named = {part.split(")")[0] for part in text.split("](")[1:]}
    assert named == {path.name for path in folder.glob("*.png")}
    assert len(named) == 6
    for name in named:
        picture = matplotlib.image.imread(folder / name)
        assert picture.shape[0] >= 300
        assert picture.shape[1] >= 600


def test_the_same_run_writes_the_same_bytes(written, tmp_path):
    folder, report = written
    write_report(tmp_path, replace(report, trade=(), recordings=report.recordings[:1]))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "report.md",
        "figures.json",
        "psd_roc.png",
        "confusion.png",
        "recording_01.png",
    }
    # Fewer pictures are another page; all else is as it was.
    for name in names - {"report.md"}:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name


def longest_run(picture, colour):
    """First and last column of the widest unbroken stretch of a colour below the legend."""
    wanted = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    same = (np.rint(255 * picture[80:, :, :3]) == wanted).all(axis=2)
    best = (0, 0)
    for line in same:
        columns = np.flatnonzero(line)
        for run in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1):
            if len(run) and run[-1] - run[0] > best[1] - best[0]:
                best = (int(run[0]), int(run[-1]))
    return best


def test_bars_lie_where_the_events_do(tmp_path):
    scene, scores, mel = RECORDINGS[0]
    horn = [event for event in decide(scores, CLASSES, GRID) if event.label == "car_horn"]
    for shift_s in (0.0, 0.3):
        found = tuple(
            Event(event.label, event.onset_s + shift_s, event.offset_s + shift_s) for event in horn
        )
        shown = PicturedRecording(scene, mel, FRONT_END, scores, CLASSES, found)
        draw_recording(shown, tmp_path / "r.png")
        picture = matplotlib.image.imread(tmp_path / "r.png")
        reference, detected = longest_run(picture, BLUE), longest_run(picture, ORANGE)
        # The horn sounds for 1.2 s: that gives the scale.
        pixels_per_s = (reference[1] - reference[0] + 1) / 1.2
        assert detected[0] - reference[0] == pytest.approx(shift_s * pixels_per_s, abs=4)
        assert detected[1] - reference[1] == pytest.approx(shift_s * pixels_per_s, abs=4)


def test_frequency_axis_is_that_of_the_front_end():
    # Each filter of the device peaks at the FFT bin next to its middle (31.25 Hz apart).
    peaks_hz = mel_filters(FRONT_END).argmax(axis=0) * 16_000 / FRONT_END.fft_length
    centres = band_centres_hz(FRONT_END)
    assert np.abs(peaks_hz - centres).max() <= 31.25
    assert len(centres) == FRONT_END.n_mels


def test_a_published_figure_of_an_unknown_name(written, tmp_path):
    _, report = written
    changed = replace(report, published={"event_f": 0.4})
    with pytest.raises(ConfigError, match=r"unknown figure event_f in .*did you mean event_f1\?"):
        write_report(tmp_path, changed)


def test_a_ladder_has_mean_and_spread():
    steps = [
        LadderStep(
            "guided learning",
            ({"event_f1": 0.30}, {"event_f1": 0.36}, {"event_f1": 0.33}),
            {"event_f1": 0.405},
        ),
        LadderStep("PTS", ({"event_f1": None},), {}),
    ]
    # (30, 36, 33): mean 33, squares 9 + 9 + 0 over 2, root 3.
    assert rows_of("\n".join(ladder_table(steps, ("event_f1",)))) == {
        "system": ["seeds", "event F1 (200 ms, 20 %)", "published"],
        "---": ["---", "---", "---"],
        "guided learning": ["3", "33.0 % ± 3.0 %", "40.5 %"],
        "PTS": ["1", "–", "–"],
    }
