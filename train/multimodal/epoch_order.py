"""The order of an epoch: the same of an epoch and a seed, in any process."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError

IntArray = NDArray[np.int64]


class EpochOrder:
    """An epoch is a permutation of what is learnt from, cut into whole batches.

    numbers : of what is learnt from; what is left over of an epoch is another's in the next
    batch_size : in a batch, or all where there are fewer; n_batches : of an epoch

    Raises InputError where there are fewer than two.
    """

    def __init__(self, numbers: IntArray, batch_size: int, seed: int) -> None:
        if len(numbers) < 2:
            raise InputError(f"training: {len(numbers)} clips; expected two or more to learn from")
        self.numbers, self.seed = numbers, seed
        self.batch_size = min(batch_size, len(numbers))
        self.n_batches = len(numbers) // self.batch_size
        self._drawn: tuple[int, IntArray] = (-1, numbers)

    def batch(self, epoch: int, number: int) -> IntArray:
        """Numbers of batch `number` of epoch `epoch`, both from 0."""
        if self._drawn[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self._drawn = epoch, rng.permutation(self.numbers)
        first = number * self.batch_size
        return self._drawn[1][first : first + self.batch_size]

    def rng(self, epoch: int, number: int) -> np.random.Generator:
        """For what else is drawn of this batch."""
        return np.random.default_rng([self.seed, epoch, number])
