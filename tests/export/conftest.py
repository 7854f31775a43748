"""One student, trained for seconds on tones, that the tests of this folder export."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch

from soundpost.train.recipe import (
    AugmentSettings,
    DataSettings,
    ModelSettings,
    Recipe,
    TrainingSettings,
)
from soundpost.train.run import TrainedRun, load_run, train_run

RATE_HZ = 16_000
TONES_HZ = {"high": 4_000.0, "low": 400.0, "middle": 1_200.0}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Sums are added in one order, and processes that share the cores do not wait for threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled clips: three tones over noise, five folds, two licences, one credit."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(5)
    with (folder / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "label", "fold", "licence", "attribution"])
        for fold in (1, 2, 3, 4, 5):
            for label, hz in TONES_HZ.items():
                for take in range(4):
                    time_s = np.arange(int(rng.uniform(1.3, 1.9) * RATE_HZ)) / RATE_HZ
                    sound = np.sin(2 * np.pi * hz * rng.uniform(0.92, 1.08) * time_s)
                    sound = 10 ** rng.uniform(-1.5, -0.3) * sound
                    sound += 0.003 * rng.standard_normal(len(sound))
                    name = f"{label}_{fold}_{take}.wav"
                    soundfile.write(folder / name, sound, RATE_HZ)
                    credit = "A tone | by Zoë" if take else ""
                    licence = "CC-BY-4.0" if take else "CC0-1.0"
                    writer.writerow([name, label, fold, licence, credit])
    return folder


def tone_recipe(**data: float) -> Recipe:
    return Recipe(
        name="Three tones",
        model=ModelSettings(width=0.35, dropout=0.0),
        data=DataSettings(validation_fraction=0.25, **data),  # type: ignore[arg-type]
        augment=AugmentSettings(mix_probability=0.2, speed=1.02),
        training=TrainingSettings(
            epochs=20,
            batch_size=8,
            learning_rate=3e-3,
            warmup_epochs=1.0,
            average_decay=0.9,
            label_smoothing=0.0,
        ),
    )


@pytest.fixture(scope="session")
def tone_run(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        folder = tmp_path_factory.mktemp("runs") / "tones"
        train_run(tone_recipe(), tones, folder, 5, device="cpu", quiet=True)
    finally:
        torch.set_num_threads(threads)
    return load_run(folder)


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The hand-made student of the device's tests."""
    path = Path(__file__).parents[1] / "device" / "tiny_student.py"
    specification = spec_from_file_location("tiny_student", path)
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    sys.modules["tiny_student"] = module
    specification.loader.exec_module(module)
    return module
