"""Training in one scenario and testing in the others (perez2020, tables 1 to 3).

"When the model is trained on certain scenario, it is tested on the other two scenarios using all
the available data. In all cases the data was split by assigning 80% of them for training, 10% for
validation and 10% for test." What the text leaves open:

- Whole recordings are split, not the seconds cut from them, and within each action, so that every
  part has all of them; with all scenarios together, within each action and scenario.
- The mean that a network is judged by is over the six cells with another scenario than the trained
  one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError

IntArray = NDArray[np.int64]
# Trains on (training, validation) clips, numbered as in the set; returns what predicts actions.
Fit = Callable[[IntArray, IntArray], Callable[[IntArray], IntArray]]
ALL = "all"


@dataclass(frozen=True)
class Parts:
    """Numbers of clips by role; no recording stands in two of them."""

    train: IntArray
    validation: IntArray
    test: IntArray


@dataclass(frozen=True)
class ActionClips:
    """What the protocol must know of each clip of a set.

    actions : (n_clips,) int64
    scenarios, recordings : names; a recording has one action and one scenario
    """

    actions: IntArray
    scenarios: tuple[str, ...]
    recordings: tuple[str, ...]


def split_recordings(
    clips: ActionClips,
    chosen: IntArray,
    seed: int,
    shares: tuple[float, float] = (0.1, 0.1),
) -> Parts:
    """Split clips by recording, within each action and scenario.

    Parameters
    ----------
    chosen : numbers of the clips to be split
    shares : of validation and test; each gets a recording at least

    Raises InputError where an action has fewer than three recordings in a scenario.
    """
    rng = np.random.default_rng(seed)
    of_stratum: dict[tuple[str, int], dict[str, list[int]]] = {}
    for clip in chosen.tolist():
        stratum = clips.scenarios[clip], int(clips.actions[clip])
        of_stratum.setdefault(stratum, {}).setdefault(clips.recordings[clip], []).append(clip)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for (scenario, action), recordings in sorted(of_stratum.items()):
        n = len(recordings)
        if n < 3:
            raise InputError(
                f"scenario {scenario}: action {action} has {n} recordings: expected 3 or more, "
                "for training, validation and test; add some or leave the action out"
            )
        n_validation, n_test = (max(1, round(share * n)) for share in shares)
        names = sorted(recordings)
        for place, index in enumerate(rng.permutation(n).tolist()):
            part = 1 if place < n_validation else 2 if place < n_validation + n_test else 0
            parts[part].extend(recordings[names[index]])
    return Parts(*(np.array(sorted(part), np.int64) for part in parts))


@dataclass(frozen=True)
class CrossScenario:
    """Accuracies of one network.

    accuracy : by (training scenario, test scenario), 0 to 1; (ALL, ALL) for all of them together
    """

    accuracy: Mapping[tuple[str, str], float] = field(default_factory=dict)

    def mean(self, *, crossed: bool) -> float:
        """Over the cells with another test scenario than the trained one, or over the others."""
        cells = [
            value
            for (trained, tested), value in self.accuracy.items()
            if trained != ALL and (trained != tested) == crossed
        ]
        return float(np.mean(cells)) if cells else float("nan")


def cross_scenario(
    clips: ActionClips, fit: Fit, seed: int, *, together: bool = True
) -> CrossScenario:
    """Train in each scenario, and test in it (on what was held out) and in the others (on all).

    together : also train and test on all scenarios at once

    Raises InputError as split_recordings does.
    """
    scenarios = np.array(clips.scenarios)
    names = sorted(set(clips.scenarios))
    accuracy: dict[tuple[str, str], float] = {}
    for trained in [*names, *([ALL] if together else [])]:
        within = np.flatnonzero((scenarios == trained) | (trained == ALL))
        parts = split_recordings(clips, within, seed)
        predict = fit(parts.train, parts.validation)
        for tested in [ALL] if trained == ALL else names:
            judged = parts.test if tested == trained else np.flatnonzero(scenarios == tested)
            hits = predict(judged) == clips.actions[judged]
            accuracy[trained, tested] = float(hits.mean())
    return CrossScenario(accuracy)


def scenario_table(columns: Mapping[str, CrossScenario]) -> str:
    """Markdown in the form of tables 1 to 3, a column for each network or teacher; means below.

    columns : of the same scenarios
    """
    names: Sequence[str] = list(columns)
    lines = [
        f"| train set | test set | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    results = list(columns.values())
    for cell in results[0].accuracy:
        values = " | ".join(f"{result.accuracy[cell]:.4f}" for result in results)
        lines.append(f"| {cell[0]} | {cell[1]} | {values} |")
    for words, crossed in (("own scenario", False), ("other scenarios", True)):
        values = " | ".join(f"{result.mean(crossed=crossed):.4f}" for result in results)
        lines.append(f"| mean | {words} | {values} |")
    return "\n".join(lines) + "\n"
