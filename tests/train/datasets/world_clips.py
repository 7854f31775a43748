"""Clips of four classes and a distractor, and settings that make tiny worlds of them."""

import csv

import numpy as np
import soundfile
from scipy import signal

RATE = 16_000

SETTINGS = """\
name = "tiny"
classes = ["car_horn", "cat", "dog", "engine"]
distractors = ["hiss"]
locations = ["anechoic"]
subjects = 2
validation_subjects = []
test_subjects = [2]
takes = 2
seconds = 1.0
microphones = 16

[looks]
car_horn = "car"
engine = "car"

[objects]
most_sounding = 2

[sounds]
other_s = [0.3, 0.8]
max_order = 4

[store]
frame_height_px = 96
"""

BANDS_HZ = {
    "car_horn": (500, 2_000),
    "cat": (800, 3_000),
    "dog": (1_000, 4_000),
    "engine": (300, 1_500),
    "hiss": (2_000, 5_000),
}


def clip(label, rng):
    """Noise of the label's band for 0.6 s, in the middle of 2 s of near silence."""
    band = signal.firwin(201, BANDS_HZ[label], fs=RATE, pass_zero=False)
    noise = np.convolve(rng.standard_normal(2 * RATE), band, "same")
    n = np.arange(2 * RATE) / RATE
    return 0.3 * noise * ((n >= 0.7) & (n < 1.3)) + 1e-4 * rng.standard_normal(2 * RATE)


def write_world_clips(folder, folds=2, per_fold=2):
    """A clips.csv folder, each clip of an author of its own."""
    rng = np.random.default_rng(11)
    rows = []
    for fold in range(1, folds + 1):
        for label in BANDS_HZ:
            for take in range(per_fold):
                name = f"{label}_{fold}_{take}.wav"
                soundfile.write(folder / name, clip(label, rng), RATE)
                author = f"{label} {fold} {take}"
                rows.append(
                    {
                        "filename": name,
                        "label": label,
                        "fold": fold,
                        "group": author,
                        "licence": "CC0-1.0",
                        "attribution": f"by {author}",
                    }
                )
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
