"""Writes pictures of single objects by name: what a visual network of the generated world learns
from, as others do from ImageNet.

Each picture shows one thing that could sound (calibration/pictures/looks.py) somewhere before a
background, with clutter about and now and then a screen; none of its objects has the colours of one
of a world. In the usual layout, a folder for each split and name:

    train/dog/000.jpeg  validation/dog/000.jpeg  pictures.json

A picture follows from (seed, split, name, number): a killed job goes on with what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from tqdm import tqdm

from soundpost.calibration.pictures.arrange import draw_clutter
from soundpost.calibration.pictures.backdrop import PLACES, Backdrop, draw_backdrop
from soundpost.calibration.pictures.camera import Camera
from soundpost.calibration.pictures.view import SeenObject, View
from soundpost.device.errors import ConfigError
from soundpost.device.files import write_atomically
from soundpost.train.datasets.action_files import picture_bytes
from soundpost.train.datasets.media import Frames
from soundpost.train.datasets.world_bodies import BODIES
from soundpost.train.datasets.world_settings import ObjectSettings
from soundpost.train.datasets.world_stage import Stage
from soundpost.train.generated_sets import begin_set

NOTE_FILE = "pictures.json"
SCHEMA = "soundpost.object_pictures/1"
SPLITS: Final = ("train", "validation")

# What moves does so within this time, at one moment of which it is seen.
_SECONDS = 2.0
_MOST_CLUTTER = 3
_SCREEN_SHARE = 0.2


@dataclass(frozen=True)
class PictureSetSettings:
    """How many pictures there are, and what they show.

    train, validation : pictures of each name
    height_px : they are 4/3 as wide
    """

    seed: int = 0
    train: int = 250
    validation: int = 30
    height_px: int = 480
    names: tuple[str, ...] = tuple(BODIES)

    def __post_init__(self) -> None:
        for name, low in (("seed", 0), ("train", 1), ("validation", 1), ("height_px", 96)):
            if getattr(self, name) < low:
                raise ConfigError(
                    f"pictures: {name} is {getattr(self, name)}; expected {low} or more"
                )

    def count(self, split: str) -> int:
        """Pictures of each name in a split."""
        return self.train if split == "train" else self.validation


def write_object_pictures(
    settings: PictureSetSettings, out: Path, *, quiet: bool = False
) -> dict[str, int]:
    """Fill a folder, or what is missing of it; the number of pictures by split.

    Raises InputError for a folder that holds anything else.
    """
    begin_set(out, NOTE_FILE, {"schema": SCHEMA, "settings": asdict(settings)})
    made = {split: settings.count(split) * len(settings.names) for split in SPLITS}
    with tqdm(total=sum(made.values()), desc="pictures", unit="picture", disable=quiet) as bar:
        for split in SPLITS:
            for name in settings.names:
                (out / split / name).mkdir(parents=True, exist_ok=True)
            # Number by number, so that all names share a background.
            for number in range(settings.count(split)):
                missing = [
                    name for name in settings.names if not _path(out, split, name, number).is_file()
                ]
                for name, picture in _draw(settings, split, number, missing):
                    write_atomically(_path(out, split, name, number), picture_bytes(picture))
                bar.update(len(settings.names))
    return made


def _path(out: Path, split: str, name: str, number: int) -> Path:
    return out / split / name / f"{number:03d}.jpeg"


def _draw(
    settings: PictureSetSettings, split: str, number: int, names: list[str]
) -> Iterator[tuple[str, Frames]]:
    if not names:
        return
    camera = Camera(settings.height_px * 4 // 3, settings.height_px)
    key = [settings.seed, SPLITS.index(split), number]
    of_number = np.random.default_rng(key)
    place = PLACES[int(of_number.integers(len(PLACES)))]
    backdrop = draw_backdrop(place, camera, int(of_number.integers(2**31)))
    for name in names:
        rng = np.random.default_rng([*key, settings.names.index(name)])
        yield name, draw_object(name, camera, backdrop, PLACES.index(place), rng)


def draw_object(
    name: str, camera: Camera, backdrop: Backdrop, place: int, rng: np.random.Generator
) -> Frames:
    """One picture, (height, width, 3) uint8, of one thing.

    place : number of the background's kind in PLACES, which decides what clutter there is
    """
    stage = Stage(ObjectSettings(), _SECONDS, rng)
    placed = stage.place(name)
    # The stage is empty, and has room for anything.
    assert placed is not None
    at_s = float(rng.uniform(0, _SECONDS))
    active = ((0.0, _SECONDS),) if rng.random() < 0.5 else ()
    shown = SeenObject(name, placed.place, placed.height_m, active, seed=int(rng.integers(2**31)))
    objects = [shown]
    if rng.random() < _SCREEN_SHARE:
        behind = stage.place(str(rng.choice([*BODIES])), hidden=True)
        objects += [] if behind is None or behind.screen is None else [behind.screen]
    clutter = draw_clutter(
        PLACES[place], int(rng.integers(2**31)), int(rng.integers(_MOST_CLUTTER + 1))
    )
    objects += [thing for thing in clutter if stage.fits(thing)]
    return View(camera, backdrop, objects, int(rng.integers(2**31))).frame(at_s)
