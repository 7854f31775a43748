"""The last seconds of a stream in memory, by sample number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from soundpost.device.features import FloatArray

Int16Array = NDArray[np.int16]

FULL_SCALE = 32_767


class ClipRing:
    """Preallocated ring of 16-bit samples that knows which samples it holds.

    It holds one unbroken run: after a jump in the samples' numbers nothing older can be read, so
    that what is read never hides a gap.

    Parameters
    ----------
    capacity : samples held at most
    n_channels : of the blocks

    Attributes
    ----------
    begin : first sample of the unbroken run that is being heard; 0 before the first block
    end : the sample after the last one
    """

    def __init__(self, capacity: int, n_channels: int) -> None:
        self._held = np.zeros((capacity, n_channels), np.int16)
        self.begin = self.end = 0

    @property
    def first(self) -> int:
        """Oldest sample that can still be read."""
        return max(self.begin, self.end - len(self._held))

    def push(self, first_sample: int, samples: FloatArray) -> None:
        """Add a block.

        samples : (n_samples, n_channels) float32, full scale ±1.0; what lies beyond is clipped
        """
        if first_sample != self.end:
            self.begin = self.end = first_sample
        capacity = len(self._held)
        self.end += len(samples)
        kept = samples[-capacity:]
        at = (self.end - len(kept)) % capacity
        # Not a number would become an arbitrary one: silence.
        scaled = np.nan_to_num(kept * np.float32(FULL_SCALE), nan=0.0)
        rounded = np.clip(np.rint(scaled), -FULL_SCALE, FULL_SCALE).astype(np.int16)
        before_the_seam = min(len(kept), capacity - at)
        self._held[at : at + before_the_seam] = rounded[:before_the_seam]
        self._held[: len(kept) - before_the_seam] = rounded[before_the_seam:]

    def read(self, first: int, end: int) -> Int16Array:
        """Copy of samples first to end, (end - first, n_channels) int16.

        Raises ValueError where one of them is not held.
        """
        if not self.first <= first <= end <= self.end:
            raise ValueError(f"samples {first} to {end}: {self.first} to {self.end} are held")
        capacity = len(self._held)
        at = first % capacity
        before_the_seam = min(end - first, capacity - at)
        return np.concatenate(
            [
                self._held[at : at + before_the_seam],
                self._held[: end - first - before_the_seam],
            ]
        )
