"""Recipes of networks that tell what is in a picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soundpost.train.multimodal.fitting import FitSettings
from soundpost.train.recipe import build_settings, check_all, read_tables

# model.kind of these recipes.
KIND = "pictures"


@dataclass(frozen=True)
class PictureModel:
    """The network is backbones/picture_net.py."""

    kind: str = KIND


@dataclass(frozen=True)
class PictureAugment:
    """Random changes to each picture.

    flip : left and right, of half of them
    brightness : factors from 1 - this to 1 + this
    shift_px : to each side and up and down; what comes in is the edge, repeated
    """

    flip: bool = True
    brightness: float = 0.2
    shift_px: int = 16


@dataclass(frozen=True)
class PictureRecipe:
    """Everything that decides a run, beside its data."""

    name: str = "recipe"
    source: str = ""
    model: PictureModel = field(default_factory=PictureModel)
    augment: PictureAugment = field(default_factory=PictureAugment)
    training: FitSettings = field(default_factory=lambda: FitSettings(epochs=12))


def load_picture_recipe(path: Path, changes: list[str]) -> PictureRecipe:
    """Read a recipe and apply changes; raises ConfigError naming file, key, found and expected."""
    return picture_recipe_from_dict(read_tables(path, changes), str(path))


def picture_recipe_from_dict(values: dict[str, Any], where: str) -> PictureRecipe:
    """Recipe from nested tables; raises ConfigError as load_picture_recipe does."""
    recipe: PictureRecipe = build_settings(PictureRecipe, values, where)
    augment = recipe.augment
    check_all(
        [
            (recipe.model.kind == KIND, "model.kind", recipe.model.kind, KIND),
            (0 <= augment.brightness < 1, "augment.brightness", augment.brightness, "0 to below 1"),
            (0 <= augment.shift_px <= 100, "augment.shift_px", augment.shift_px, "0 to 100"),
        ],
        where,
    )
    recipe.training.check(where)
    return recipe
