"""What a recipe of perez2020 takes from a folder, and how well a network does on it.

One reading serves training and judging: the set's parts, cut into what the network takes at a time,
who is learnt from and who is held out (datasets/action_splits.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from soundpost.device.errors import InputError
from soundpost.train.datasets.acoustic_actions import ActionSet, read_actions
from soundpost.train.datasets.action_splits import Parts, Split, action_parts
from soundpost.train.datasets.media_cache import cache_folder
from soundpost.train.multimodal.action_inputs import (
    ActionClips,
    IntArray,
    action_logits,
    cut_clips,
    open_action_clips,
)
from soundpost.train.multimodal.action_networks import INPUTS
from soundpost.train.multimodal.action_recipe import ALL, ActionRecipe
from soundpost.train.multimodal.action_report import VALIDATION, ActionFigures
from soundpost.train.multimodal.tagging_features import VisualInput
from soundpost.train.multimodal.tagging_inputs import FEATURES


@dataclass(frozen=True)
class OpenedActions:
    """A folder as a recipe wants it.

    recipe : with the subjects that are held out
    features : where rows are cached
    clips : of the whole set
    train : numbers of the clips to learn from
    held : of those that are judged, by name: "validation", and each scenario's
    """

    recipe: ActionRecipe
    actions: ActionSet
    features: Path
    clips: ActionClips
    train: IntArray
    held: Mapping[str, IntArray]

    @property
    def labels(self) -> tuple[str, ...]:
        """Actions of the set."""
        return tuple(self.actions.settings.actions.values())


def read_whole_set(folder: Path) -> ActionSet:
    """The recordings of a folder; InputError where something is wrong with one."""
    actions, problems = read_actions(folder)
    if problems:
        raise InputError(
            problems[0].line()
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
            + "; soundpost dataset check lists all"
        )
    return actions


def open_actions(
    recipe: ActionRecipe, folder: Path, visual: VisualInput | None, *, quiet: bool
) -> OpenedActions:
    """Read a folder, make its rows where they are not there yet, and split its clips.

    visual : how pictures become vectors, where the network takes some

    Raises ConfigError where subjects are to be held out that nobody names, InputError where the set
    cannot be used or is too small for the split.
    """
    recipe = recipe.held_out(folder)
    actions = read_whole_set(folder)
    parts = action_parts(actions, recipe.data.part_s, recipe.data.limit_s)
    features = cache_folder(folder, FEATURES)
    clips = open_action_clips(
        actions,
        parts,
        recipe.clip_s,
        INPUTS[recipe.model.network],
        features,
        visual=visual,
        frame_px=recipe.model.frame_px,
        quiet=quiet,
    )
    split, others = _split(recipe, parts)
    held = {VALIDATION: split.validation, recipe.trained_in: split.test} | others

    def numbers(of: Parts) -> IntArray:
        return clips.numbers(cut_clips(of, recipe.clip_s))

    return OpenedActions(
        recipe,
        actions,
        features,
        clips,
        numbers(split.train),
        {name: numbers(of) for name, of in held.items()},
    )


def _split(recipe: ActionRecipe, parts: Parts) -> tuple[Split[Parts], dict[str, Parts]]:
    """Parts of the scenario of training, and what is judged of each other one, by its number."""
    if recipe.data.location == ALL:
        return recipe.split_rule.split(parts), {}
    split, others = recipe.split_rule.across(parts, recipe.data.location)
    return split, {str(location): of for location, of in others.items()}


@dataclass(frozen=True)
class JudgedActions:
    """Scores of everything that is held out, and what they come to.

    scores : (n_clips, n_labels) by what was judged; truth : (n_clips,)
    """

    figures: ActionFigures
    scores: Mapping[str, NDArray[np.float32]]
    truth: Mapping[str, IntArray]


def scores_of(
    network: nn.Module, of: OpenedActions, numbers: IntArray, device: torch.device, *, quiet: bool
) -> NDArray[np.float32]:
    """(n_clips, n_labels) probabilities of some clips; network : in evaluation mode."""
    kinds = INPUTS[of.recipe.model.network]
    logits = action_logits(network, of.clips, numbers, kinds, device, quiet=quiet)
    scores: NDArray[np.float32] = logits.softmax(1).numpy()
    return scores


def judge_actions(
    network: nn.Module, of: OpenedActions, device: torch.device, *, quiet: bool
) -> JudgedActions:
    """Judge a network on everything that is held out; network : in evaluation mode."""
    judged = {name: numbers for name, numbers in of.held.items() if len(numbers)}
    scores = {
        name: scores_of(network, of, numbers, device, quiet=quiet)
        for name, numbers in judged.items()
    }
    truth = {name: of.clips.targets[numbers] for name, numbers in judged.items()}
    figures = ActionFigures.of(of.recipe.trained_in, of.labels, scores, truth)
    return JudgedActions(figures, scores, truth)
