"""Validation clips drawn from those to learn from, where a data set has none of its own.

Li et al. 2018, section 3.1: 1,142 of 51,172 training clips, "a balanced validation set". Ours is
drawn group by group (a video, a place), always for the label that has the fewest clips in it so
far; at least half of a label's clips stay to be learnt from.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError
from soundpost.train.datasets.catalogue import MediaClip

IntArray = NDArray[np.int64]

# What clips without any label are balanced as.
_NOTHING = ""


def hold_out(clips: Sequence[MediaClip], share: float, seed: int) -> IntArray:
    """Numbers of the clips that are held out, ascending.

    Parameters
    ----------
    share : of the clips, above 0; a last group may make it a little more, and labels of which half
        is held out a little less

    Raises
    ------
    InputError
        There are too few clips to hold one out.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for number, clip in enumerate(clips):
        members[clip.group or clip.id].append(number)
    labels_of = [clip.labels or (_NOTHING,) for clip in clips]
    total = Counter(label for labels in labels_of for label in labels)
    waiting: dict[str, list[str]] = defaultdict(list)
    names = list(members)
    # Taken from the end.
    for place in np.random.default_rng(seed).permutation(len(names)):
        group = names[place]
        for label in dict.fromkeys(one for number in members[group] for one in labels_of[number]):
            waiting[label].append(group)
    held: set[str] = set()
    n_held, n_wanted = 0, max(1, round(share * len(clips)))
    has: Counter[str] = Counter()
    while n_held < n_wanted and waiting:
        label = min(waiting, key=lambda one: (has[one], one))
        group = waiting[label].pop()
        if not waiting[label]:
            del waiting[label]
        if group in held:
            continue
        more = Counter(one for number in members[group] for one in labels_of[number])
        if any(2 * (has[one] + n) > total[one] for one, n in more.items()):
            continue
        held.add(group)
        has += more
        n_held += len(members[group])
    if not held:
        raise InputError(
            f"validation: none of the {len(clips)} training clips can be held out, as half of each "
            "label's are to stay; name a split with data.validation"
        )
    return np.array(sorted(n for group in held for n in members[group]), np.int64)
