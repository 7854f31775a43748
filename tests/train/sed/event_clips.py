"""Clips of beeps, taps, hums and hisses, and settings that make soundscapes of them."""

import csv

import numpy as np
import soundfile

RATE = 16_000

SETTINGS = """\
name = "test"
test_fold = 2
validation_fraction = 0.5

[counts]
train = 12
validation = 3
test = 4

[shares]
strong = 0.25
weak = 0.25
unlabelled = 0.5

[room]
share = 0.5
rooms = 1
rt60_s = [0.1, 0.15]

[roles]
beep = "event"
tap = "event"
hum = "stationary"
hiss = "background"
"""


def clip(label, rng):
    """A beep or a tap in the middle of silence with a little noise; a hum and a hiss throughout."""
    n = np.arange(2 * RATE)
    noise = rng.standard_normal(len(n))
    quiet = 1e-4 * noise
    if label == "hiss":
        return 0.05 * noise
    if label == "hum":
        return quiet + 0.2 * np.sin(2 * np.pi * rng.uniform(150, 300) * n / RATE)
    inside = (n >= 0.5 * RATE) & (n < (1.2 if label == "beep" else 0.6) * RATE)
    tone = np.sin(2 * np.pi * rng.uniform(1_500, 3_000) * n / RATE)
    return quiet + inside * (0.5 * tone if label == "beep" else 0.3 * noise)


def write_event_clips(folder):
    """A clips.csv folder of four labels, four clips per label and fold."""
    rng = np.random.default_rng(7)
    rows = []
    for fold in (1, 2):
        for label in ("beep", "tap", "hum", "hiss"):
            for take in range(4):
                name = f"{label}_{fold}_{take}.wav"
                soundfile.write(folder / name, clip(label, rng), RATE)
                rows.append(
                    {
                        "filename": name,
                        "label": label,
                        "fold": fold,
                        "licence": "CC0-1.0",
                        "attribution": f"author {take}",
                    }
                )
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
