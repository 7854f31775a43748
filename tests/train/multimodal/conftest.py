import argparse
import json
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


@pytest.fixture
def settings_of():
    """Reads a run's settings.json."""
    return lambda run: json.loads((run / "settings.json").read_text())
