"""The file that is replayed on two machines, and whether both heard the same.

python tests/arm/replay.py write FOLDER        FOLDER/sound.wav
python tests/arm/replay.py compare HERE THERE  HERE.jsonl, HERE.csv with THERE.jsonl, THERE.csv
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import soundfile

from soundpost.device.soundscape import soundscape

RATE_HZ = 48_000
# An int8 output has steps of about 0.03 in the score's steepest part; kernels round half-way
# values differently, through 50 layers.
LARGEST_DIFFERENCE = 0.15
MEAN_DIFFERENCE = 0.005
# Onsets may move by a hop where a score lies on its threshold.
ONSET_S = 0.26


def read_scores(path: Path) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """(n_windows, n_labels) scores of `soundpost replay --scores`."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    return np.array(rows, dtype=float)[:, 1:]


def read_events(path: Path) -> list[tuple[str, float]]:
    """Label and onset of each event, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return sorted((event["label"], event["onset_s"]) for event in map(json.loads, lines))


def compare(here: str, there: str) -> str | None:
    """What differs too much, or None."""
    mine, theirs = read_events(Path(f"{here}.jsonl")), read_events(Path(f"{there}.jsonl"))
    if [label for label, _ in mine] != [label for label, _ in theirs]:
        return f"other events: here {mine}, there {theirs}"
    if not mine:
        return "no event was heard, so that nothing was compared"
    moved = max(abs(a - b) for (_, a), (_, b) in zip(mine, theirs, strict=True))
    one, other = read_scores(Path(f"{here}.csv")), read_scores(Path(f"{there}.csv"))
    difference = np.abs(one - other)
    print(
        f"{Path(there).name}: {len(mine)} events, onsets within {moved:.3f} s; {len(one)} windows, "
        f"scores differ by {difference.mean():.5f} on average, {difference.max():.3f} at most"
    )
    if moved > ONSET_S:
        return f"onsets differ by {moved} s: here {mine}, there {theirs}"
    if difference.max() > LARGEST_DIFFERENCE or difference.mean() > MEAN_DIFFERENCE:
        return f"scores differ by more than {LARGEST_DIFFERENCE} or {MEAN_DIFFERENCE} on average"
    return None


def main() -> None:
    """Write or compare."""
    match sys.argv[1:]:
        case ["write", folder]:
            samples, _ = soundscape(0, RATE_HZ)
            soundfile.write(Path(folder, "sound.wav"), samples, RATE_HZ)
        case ["compare", here, there]:
            sys.exit(compare(here, there))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
