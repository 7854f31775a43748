"""Soft labels of random windows: for clips that a student draws parts of, on its own device.

A window begins anywhere and is played at a random speed, so that each has a span of its own. For a
whole batch at a time, and without asking the host, what is said up to any moment of any clip is
kept as an integral: the mean over a span is a difference, divided by its length. It is what
`time_spans.resample` gives; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundpost.device.errors import InputError
from soundpost.train.multimodal.soft_labels import SoftLabels, missing_clips
from soundpost.train.multimodal.time_spans import spans_between


@dataclass(frozen=True)
class SoftTimeline:
    """Soft labels of a bank's clips, in its order (an `augment.SpanLabels`).

    edges : (n_clips, most_rows + 1) bounds between rows, in samples; infinite behind the last
    first, n_rows : (n_clips,) where each clip's rows begin, and how many there are
    rows : (n_rows_of_all, n_labels)
    integral : (n_rows_of_all, n_labels) of the clip's rows before each, times samples
    """

    edges: Tensor
    first: Tensor
    n_rows: Tensor
    rows: Tensor
    integral: Tensor

    def to(self, device: torch.device) -> SoftTimeline:
        """The same on another device."""
        parts = (self.edges, self.first, self.n_rows, self.rows, self.integral)
        return SoftTimeline(*(part.to(device) for part in parts))

    def of_spans(self, clips: Tensor, begins: Tensor, ends: Tensor) -> Tensor:
        """Mean over parts of clips, of what there are soft labels of.

        Parameters
        ----------
        clips : (n,) numbers; begins, ends : (n,) samples

        Returns
        -------
        (n, n_labels) float32
        """
        edges = self.edges[clips]
        low = edges[:, 0]
        high = edges.gather(1, self.n_rows[clips][:, None])[:, 0]
        begin, end = begins.double().clamp(low, high), ends.double().clamp(low, high)
        total = self._up_to(clips, edges, end) - self._up_to(clips, edges, begin)
        # The bank's windows have all some time in common with their clip's rows.
        mean = total / (end - begin).clamp(min=1e-6)[:, None]
        return mean.clamp(0.0, 1.0).float()

    def _up_to(self, clips: Tensor, edges: Tensor, moments: Tensor) -> Tensor:
        after = torch.searchsorted(edges, moments[:, None].contiguous(), right=True)[:, 0]
        within = (after - 1).clamp(min=0).minimum(self.n_rows[clips] - 1)
        along = moments - edges.gather(1, within[:, None])[:, 0]
        row = self.first[clips] + within
        return self.integral[row] + along[:, None] * self.rows[row]


def soft_timeline(
    soft_labels: SoftLabels,
    clip_ids: Sequence[str],
    lengths: NDArray[np.int64],
    columns: NDArray[np.int64],
    n_labels: int,
    rate_hz: int,
    window: int,
) -> SoftTimeline:
    """Soft labels of clips, for windows of them.

    Parameters
    ----------
    lengths : (n_clips,) samples of each clip
    columns : (soft_labels.labels,) where each label stands among the student's
    n_labels : of the student; those that the soft labels lack are zero
    window : samples of a window

    Raises
    ------
    InputError
        A clip has no soft labels, or some of its windows have no time in common with them.
    """
    missing = missing_clips(soft_labels, clip_ids)
    if missing:
        raise InputError(
            f"soft labels: {len(missing)} of {len(clip_ids)} clips have none, the first "
            f"{missing[0]}; label them: soundpost distil RUN --data DIR --out STORE"
        )
    all_edges, all_rows, integrals = [], [], []
    for clip_id, length in zip(clip_ids, lengths.tolist(), strict=True):
        seconds = soft_labels.edges(clip_id)
        edges = seconds * rate_hz
        # Stretched and shifted, a window still has its middle within the clip.
        if edges[0] > window / 2 or edges[-1] < length - window / 2:
            raise InputError(
                f"soft labels: clip {clip_id}: cover {seconds[0]:.3f} to {seconds[-1]:.3f} s of "
                f"its {length / rate_hz:.3f} s, so that some windows have no time in common with "
                "them; label the whole clip"
            )
        rows = np.zeros((len(edges) - 1, n_labels), np.float32)
        rows[:, columns] = soft_labels.on_spans(clip_id, spans_between(seconds))
        spoken = rows * np.diff(edges)[:, None]
        all_edges.append(edges)
        all_rows.append(rows)
        integrals.append(np.cumsum(spoken, axis=0) - spoken)
    n_rows = np.array([len(rows) for rows in all_rows], np.int64)
    padded = np.full((len(all_edges), int(n_rows.max()) + 1), np.inf)
    for row, edges in enumerate(all_edges):
        padded[row, : len(edges)] = edges
    return SoftTimeline(
        torch.from_numpy(padded),
        torch.from_numpy(np.cumsum(n_rows) - n_rows),
        torch.from_numpy(n_rows),
        torch.from_numpy(np.concatenate(all_rows)),
        torch.from_numpy(np.concatenate(integrals)),
    )
