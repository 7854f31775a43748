import argparse
import json
import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

RATE = 16_000
SECONDS = 1.0
# Two of the classes of DCASE 2017 task 4, and what each sounds like here.
TONES_HZ = {"Car": 400.0, "Train": 2_500.0}
SMALL = (
    "model.channels=[16, 16]", "model.visual_units=8", f"data.seconds={SECONDS}",
    "visual.backbone=stub", "visual.frames_per_second=2.0", "training.epochs=6",
    "training.batch_size=8", "training.learning_rate=1e-2", "training.report_every=3",
)  # fmt: skip
# The same for recipes of perez2020; seconds are teachers' clips, and here students' too.
SMALL_ACTIONS = (
    "data.part_s=1.0", "data.limit_s=2.0", "data.clip_s=1.0", "weights.backbone=stub",
    "training.epochs=4", "training.batch_size=8", "training.report_every=2",
)  # fmt: skip


def layouts():
    path = Path(__file__).parent.parent / "datasets" / "layouts.py"
    specification = spec_from_file_location("layouts", path)
    made = module_from_spec(specification)
    specification.loader.exec_module(made)
    return made


def sound_of(labels, rng, seconds=SECONDS):
    n = np.arange(round(seconds * RATE))
    tones = (np.sin(2 * np.pi * TONES_HZ[label] * n / RATE) for label in labels)
    return (0.02 * rng.standard_normal(len(n)) + 0.2 * sum(tones)).astype(np.float32)


def run_command(command, *arguments):
    """What a sub-command's exit code is, in this process."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    parse = parser.parse_intermixed_args if command.intermixed else parser.parse_args
    return command.run(parse([str(argument) for argument in arguments]))


@pytest.fixture(scope="session")
def tiny():
    """How the tests of runs make and run what they need."""
    return SimpleNamespace(
        layouts=layouts(), sound_of=sound_of, small=SMALL, run=run_command, seconds=SECONDS
    )


@pytest.fixture(scope="session")
def vehicles(tmp_path_factory):
    """DCASE 2017 task 4 as published, tiny: 16 videos to learn from, 8 sounds to judge on.

    Of the latter, half have a video too.
    """
    folder = tmp_path_factory.mktemp("dcase17")
    write = layouts()
    rng = np.random.default_rng(0)
    kinds = (("Car",), ("Train",), ("Car", "Train"), ("Bus",))
    for part, n in (("training", 16), ("testing", 8)):
        rows = []
        for i in range(n):
            labels = kinds[i % 4]
            video_id = f"{part[:5]}{i:06d}"
            names = ",".join(labels)
            rows.append(f'{video_id},0.000,{SECONDS:.3f},"{names}"\n')
            # Nobody hears a bus here: an example of nothing.
            samples = sound_of([label for label in labels if label in TONES_HZ], rng)
            stem = f"{video_id}_0.000_{SECONDS:.3f}"
            if part == "training" or i % 8 < 4:
                write.write_video(folder / "video" / f"{stem}.mkv", SECONDS, samples=samples)
            else:
                (folder / "audio").mkdir(exist_ok=True)
                soundfile.write(folder / "audio" / f"Y{stem}.wav", samples, RATE)
        write.write_table(folder / f"{part}_set.csv", "".join(rows))
    return folder


def _relabelled(folder, copy, part, labels):
    """A copy of a set in DCASE 2017's layout; labels : of each clip of a part, in their order."""
    shutil.copytree(folder, copy)
    table = copy / f"{part}_set.csv"
    lines = table.read_text().splitlines()
    head = len(lines) - len(labels)
    changed = [
        f'{line.split(",", 3)[0]},{",".join(line.split(",", 3)[1:3])},"{",".join(names)}"'
        for line, names in zip(lines[head:], labels, strict=True)
    ]
    table.write_text("\n".join([*lines[:head], *changed]) + "\n")
    return copy


@pytest.fixture(scope="session")
def relabelled():
    """Copies a set with other labels, for tests that a judgement is made on the set it is given."""
    return _relabelled


@pytest.fixture(scope="session")
def yin_run(vehicles, tmp_path_factory):
    """A finished run of yin2021 on these vehicles."""
    from soundpost.train.commands import TRAIN

    run = tmp_path_factory.mktemp("runs") / "yin"
    assert run_command(
        TRAIN, "yin2021", *SMALL, "--data", vehicles, "--out", run, "--quiet", "--threads", 1,
        "--device", "cpu",
    ) == 0  # fmt: skip
    return run


@pytest.fixture(scope="session")
def hums(tmp_path_factory):
    """Two actions by two subjects in two places: a hum, red, on the left; a hiss, blue, right.

    Two seconds each, in the layout of `actions`.
    """
    from soundpost.train.datasets.acoustic_actions import ActionSettings
    from soundpost.train.datasets.action_writer import RecordingWriter, write_settings

    settings = ActionSettings(
        "tiny", {1: "hum", 2: "hiss"}, {1: "anechoic", 2: "office"}, n_microphones=2,
        broken_microphones=(0,),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("actions")
    write_settings(folder, settings)
    rng = np.random.default_rng(0)
    for location in (1, 2):
        for subject in (1, 2):
            for action in (1, 2):
                with RecordingWriter(folder, settings, location, subject, action) as writer:
                    for frame in range(24):
                        image = rng.normal(size=(36, 48, 12)).astype(np.float32)
                        image[:, slice(0, 24) if action == 1 else slice(24, 48)] += 2.0
                        n = frame * 1024 + np.arange(1024)
                        hz = 300.0 if action == 1 else 4_000.0
                        tone = 0.3 * np.sin(2 * np.pi * hz * n / 12_288)
                        # The first microphone is broken: whoever listens to it learns nothing.
                        sound = np.stack([rng.normal(size=1024) * 0.3, tone], 1)
                        picture = np.zeros((48, 64, 3), np.uint8)
                        picture[..., 0 if action == 1 else 2] = 200
                        writer.write(image, sound.astype(np.float32), picture)
    return folder


@pytest.fixture(scope="session")
def train_hums(hums):
    """Trains a recipe of perez2020 on them, made small; the run's folder."""
    from soundpost.train.commands import TRAIN

    def run(recipe, out, *more, data=hums):
        assert run_command(
            TRAIN, recipe, *SMALL_ACTIONS, "--data", data, "--out", out, "--quiet", "--threads", 1,
            "--device", "cpu", *more,
        ) == 0  # fmt: skip
        return out

    return run


@pytest.fixture(scope="session")
def dualcam_run(train_hums, tmp_path_factory):
    """A teacher's run."""
    out = tmp_path_factory.mktemp("runs") / "dcn"
    return train_hums("perez2020_dualcamnet", out, "model.width=0.25", "training.epochs=6")


@pytest.fixture(scope="session")
def hearnet_run(train_hums, tmp_path_factory):
    """A student's run."""
    return train_hums("perez2020_hearnet", tmp_path_factory.mktemp("runs") / "hear")


@pytest.fixture
def settings_of():
    """Reads a run's settings.json."""
    return lambda run: json.loads((run / "settings.json").read_text())
