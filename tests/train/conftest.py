import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

RATE = 16_000
TONES = {"low": 400.0, "middle": 1_200.0, "high": 4_000.0}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Sums are added in one order, and processes that share the cores do not wait for threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tone_clips(tmp_path_factory):
    """Clips that a student learns in seconds: three tones, four folds, noise under them."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(3)
    rows = []
    for fold in (1, 2, 3, 4):
        for label, hz in TONES.items():
            for take in range(6):
                n = np.arange(int(rng.uniform(1.2, 2.0) * RATE))
                pitch = hz * rng.uniform(0.9, 1.1)
                sound = 0.3 * np.sin(2 * np.pi * pitch * n / RATE)
                sound = sound + 0.01 * rng.standard_normal(len(n))
                name = f"{label}_{fold}_{take}.wav"
                soundfile.write(folder / name, sound, RATE)
                rows.append({"filename": name, "label": label, "fold": fold})
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["filename", "label", "fold"])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="session")
def synthetic():
    """tests/train/sed/synthetic.py: scenes that a network learns in seconds."""
    path = Path(__file__).parent / "sed" / "synthetic.py"
    spec = importlib.util.spec_from_file_location("synthetic", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
