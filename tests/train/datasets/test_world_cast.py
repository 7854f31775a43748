"""Who hears which clips: groups stay whole, folds apart, nobody lacks a class."""

import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import InputError
from soundpost.train.clips import Clip, read_clip_set
from soundpost.train.datasets.world_cast import gather, share_groups
from soundpost.train.datasets.world_settings import load_world_settings

DATA = Path(os.environ.get("SOUNDPOST_DATA") or Path(__file__).parents[4] / "shared" / "data")
GROUPS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=30)


def clips_of(groups):
    """One group for each pair (fold, number of clips), labels in turn."""
    return [
        Clip(Path(f"{number}-{n}.wav"), "abc"[(number + n) % 3], fold, f"group {number}")
        for number, (fold, size) in enumerate(groups)
        for n in range(size)
    ]


@given(GROUPS, st.integers(1, 7))
def test_a_group_and_a_fold_are_on_one_side_of_every_split_by_subjects(groups, subjects):
    clips = clips_of(groups)
    shared = share_groups(clips, subjects)
    assert set(shared) == {clip.group for clip in clips}
    assert set(shared.values()) <= set(range(1, subjects + 1))
    folds = defaultdict(set)
    for clip in clips:
        folds[shared[clip.group]].add(clip.fold)
    if subjects >= len({clip.fold for clip in clips}):
        assert all(len(found) == 1 for found in folds.values())
    # The clips of a fold are with as many subjects as there are of it, where it has the groups.
    n_folds = len({clip.fold for clip in clips})
    for fold in {clip.fold for clip in clips}:
        n_groups = len({clip.group for clip in clips if clip.fold == fold})
        whose = {shared[clip.group] for clip in clips if clip.fold == fold}
        assert len(whose) <= max(-(-subjects // n_folds), 1)
        assert len(whose) >= min(n_groups, subjects // n_folds)


def test_two_subjects_of_a_fold_share_each_label_evenly():
    """Six groups of one clip each, all of one label: three and three."""
    clips = [Clip(Path(f"{n}.wav"), "dog", 1, f"g{n}") for n in range(6)]
    whose = [*share_groups(clips, 2).values()]
    assert [whose.count(1), whose.count(2)] == [3, 3]


def test_a_voice_is_where_its_clip_sounds(world):
    """Clips sound from 0.7 to 1.3 s."""
    settings, cast = world()
    for subject in (1, 2):
        for label in settings.classes:
            voices = cast.voices[subject][label]
            assert len(voices) == 2
            for voice in voices:
                assert cast.clips[voice.clip].label == label
                (span,) = voice.spans
                assert np.array(span) / 12_288 == pytest.approx([0.7, 1.3], abs=0.03)
        assert len(cast.distractors[subject]) == 2


def test_labels_without_clips_and_too_many_subjects(world_clips, world_toml):
    def cast(*changes):
        settings = load_world_settings(world_toml, changes)
        return gather(read_clip_set(world_clips), settings, quiet=True)

    with pytest.raises(InputError, match=r"has no clip with the label sheep; take it out"):
        cast("classes=['dog', 'sheep']", "looks={}")
    with pytest.raises(InputError, match=r"subject 1 of 6 gets no clip of .*; set subjects to 2"):
        cast("subjects=6")


@pytest.mark.data
def test_of_the_real_clips_every_subject_has_a_fold_and_three_clips_of_each_class():
    from soundpost.train.ours import path_of_ours

    path = path_of_ours("small", "soundpost.train.datasets.worlds", "settings")
    settings = load_world_settings(path)
    cast = gather(read_clip_set(DATA / "esc50"), settings, quiet=True)
    groups = {}
    for subject, voices in cast.voices.items():
        found = [cast.clips[voice.clip] for some in voices.values() for voice in some]
        assert len({clip.fold for clip in found}) == 1
        assert min(len(some) for some in voices.values()) >= 3
        groups[subject] = {clip.group for clip in found}
        groups[subject] |= {cast.clips[voice.clip].group for voice in cast.distractors[subject]}
    for one in groups:
        for other in range(1, one):
            assert not groups[one] & groups[other]
