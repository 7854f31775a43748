"""Where in a recording its event sounds: an energy rule, for clips whose labels have no times.

A list of clips says what a recording holds, not when; and the active span that such a list may
carry is from the first sound to the last, with the pauses between two barks in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from soundpost.device.features import FloatArray

# Power of digital silence and of what 16-bit rounding leaves of it, -80 dB of full scale: a clip
# padded with zeros would otherwise have them as its noise floor.
_SILENCE_POWER = 1e-8


@dataclass(frozen=True)
class EnergyRule:
    """A frame belongs to the event where its level is above a threshold of the clip's own.

    The threshold stands depth_db below the loudest frame, or margin_db above the clip's noise (the
    tenth of its frames that is quietest) where that is higher, but never less than headroom_db
    below the loudest frame: a cry that lasts the whole clip is its own floor.

    window_s, hop_s : of the frames whose mean power is the level
    merge_gap_s : a pause up to this long does not end an event
    shortest_s : a shorter event is a click or a crackle, and is left out
    weakest_db : so is one whose loudest frame is this far below that of the clip
    """

    depth_db: float = 30.0
    margin_db: float = 10.0
    headroom_db: float = 12.0
    window_s: float = 0.02
    hop_s: float = 0.01
    merge_gap_s: float = 0.3
    shortest_s: float = 0.05
    weakest_db: float = 15.0


def find_segments(samples: FloatArray, rate_hz: int, rule: EnergyRule) -> list[tuple[int, int]]:
    """Events of one clip by the rule.

    Parameters
    ----------
    samples : (n_samples,) float32, full scale ±1.0

    Returns
    -------
    list of (first, stop) in samples, ascending, apart by more than merge_gap_s; empty for silence
    """
    hop = round(rule.hop_s * rate_hz)
    window = round(rule.window_s * rate_hz)
    if len(samples) < window:
        return []
    total = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    starts = np.arange(0, len(samples) - window + 1, hop)
    power = (total[starts + window] - total[starts]) / window
    audible = power[power > _SILENCE_POWER]
    if not len(audible):
        return []
    level_db = 10 * np.log10(np.maximum(power, _SILENCE_POWER))
    loudest = float(level_db.max())
    noise = float(10 * np.log10(np.quantile(audible, 0.1)))
    threshold = min(
        max(loudest - rule.depth_db, noise + rule.margin_db), loudest - rule.headroom_db
    )
    active = np.flatnonzero((level_db > threshold) & (power > _SILENCE_POWER))
    longest_step = math.floor(rule.merge_gap_s / rule.hop_s) + 1
    runs = np.split(active, np.flatnonzero(np.diff(active) > longest_step) + 1)
    segments = []
    for run in runs:
        # A frame's level is that of its whole window: what crossed the threshold may lie in its
        # last hop before a rise, and in its first before a fall.
        first, stop = int(starts[run[0]]), int(starts[run[-1]]) + window
        strong = level_db[run].max() >= loudest - rule.weakest_db
        if strong and stop - first >= rule.shortest_s * rate_hz:
            segments.append((first, stop))
    return segments
