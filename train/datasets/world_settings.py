"""Settings of a generated audio-visual-acoustic world: one TOML file, `key=value` changes.

Ours are in train/datasets/worlds/. What the keys do is in the docstrings below; what a world is, in
world_plan.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from soundpost.calibration.pictures.backdrop import PLACES
from soundpost.calibration.pictures.camera import Camera
from soundpost.device.array.geometry import MAX_MICROPHONES
from soundpost.device.errors import ConfigError
from soundpost.train.datasets.action_files import (
    FRAMES_PER_SECOND,
    N_MICROPHONES,
    RATE_HZ,
    SAMPLES_PER_FRAME,
)
from soundpost.train.datasets.world_bodies import BODIES
from soundpost.train.recipe import build_settings, check_all, read_tables
from soundpost.train.sed.segments import EnergyRule

SPLITS: Final = ("train", "validation", "test")
STORED: Final = ("all", "first")
# What is seen of an object 4 m away is a few pixels in a smaller frame.
_SMALLEST_FRAME_PX, _LARGEST_FRAME_PX = 96, 1_080
# Walls stand from 4.8 m on (world_plan.py), and nothing is seen nearer than half a metre.
_NEAREST_M, _FARTHEST_M = 1.0, 4.0


@dataclass(frozen=True)
class LocationSettings:
    """One scenario.

    place : what is seen behind the objects: studio, room or garden
    rt60_s : range of the reverberation time, a room for each subject; [0, 0] is the free field
    diffuse_snr_db : range of the sources' level over noise from everywhere
    self_snr_db : and over the microphones' own
    wind, wind_snr_db : whether there is wind, and the sources' level over it
    """

    place: str = "studio"
    rt60_s: tuple[float, float] = (0.0, 0.0)
    diffuse_snr_db: tuple[float, float] = (35.0, 45.0)
    self_snr_db: tuple[float, float] = (35.0, 45.0)
    wind: bool = False
    wind_snr_db: tuple[float, float] = (0.0, 15.0)


@dataclass(frozen=True)
class Anechoic(LocationSettings):
    """An anechoic chamber."""


@dataclass(frozen=True)
class Reverberant(LocationSettings):
    """A furnished room, with a computer's fan somewhere."""

    place: str = "room"
    rt60_s: tuple[float, float] = (0.25, 0.5)
    diffuse_snr_db: tuple[float, float] = (15.0, 30.0)


@dataclass(frozen=True)
class Outdoors(LocationSettings):
    """A garden beside a road, with wind in the microphones."""

    place: str = "garden"
    diffuse_snr_db: tuple[float, float] = (3.0, 15.0)
    wind: bool = True


@dataclass(frozen=True)
class ObjectSettings:
    """What there is to see and to hear in a take.

    most_sounding : the main object and others, from 1 to this many, all numbers as likely
    hidden_share : of the sounding objects, heard from behind a screen
    silent_share : of the takes, with an object that moves as if it sounded, and does not
    distractor_share : of the takes, with a sound of no class, from a place where nothing is seen
    empty_screen_share : of the takes, with a screen that hides nothing
    most_clutter : things that never sound, from none to this many
    moving_share : of the objects that can move about
    speed_m_s : range of their speed
    depth_m : range of the distance of what sounds from the camera's plane
    individuals : differently coloured objects of a class that each subject has
    """

    most_sounding: int = 3
    hidden_share: float = 0.08
    silent_share: float = 0.15
    distractor_share: float = 0.35
    empty_screen_share: float = 0.1
    most_clutter: int = 3
    moving_share: float = 0.6
    speed_m_s: tuple[float, float] = (0.1, 0.5)
    depth_m: tuple[float, float] = (2.0, 3.6)
    individuals: int = 4


@dataclass(frozen=True)
class SoundSettings:
    """Levels and times of the sounds; levels are root mean squares while something sounds.

    main_dbfs : range of the main object's level at the array, dB of full scale
    other_db : range of the other objects' levels, over the main one's
    distractor_db : and of a distractor's
    gap_s : range of the pause before a sound is heard again
    other_s : range of the time within which another object sounds; the main one sounds throughout
    most_waypoints : places that a moving object is heard from in a room; each costs as much again
    max_order : reflections that are followed in a room; the time grows with the third power
    """

    main_dbfs: tuple[float, float] = (-38.0, -28.0)
    other_db: tuple[float, float] = (-9.0, 0.0)
    distractor_db: tuple[float, float] = (-24.0, -12.0)
    gap_s: tuple[float, float] = (0.2, 0.7)
    other_s: tuple[float, float] = (1.0, 2.5)
    most_waypoints: int = 3
    max_order: int = 20


@dataclass(frozen=True)
class StoreSettings:
    """What is written of what is rendered.

    microphones : "all", or "first": that of one, 6.3 MB a second less
    frame_height_px : pictures are rendered 4/3 as wide as high
    """

    microphones: str = "all"
    frame_height_px: int = 480


@dataclass(frozen=True)
class WorldSettings:
    """Everything that decides a world, beside the clips.

    classes : labels of clips; their order is that of the actions' numbers
    looks : of the classes that are not called like one; classes with one look are look-alikes
    distractors : labels of clips that are heard without being asked for
    locations : scenarios, in the order of their numbers: anechoic, reverberant, outdoors
    subjects : each hears clips of its own groups, all of one fold, and has objects of its own
    validation_subjects, test_subjects : to choose by and to judge on; the others are to learn from
    takes : in each recording, one after the other; each is another scene
    seconds : of each take
    microphones : on a disc of 0.45 m around the camera
    rule : where in its clip a sound is
    """

    name: str = "world"
    seed: int = 0
    classes: tuple[str, ...] = ()
    looks: dict[str, str] = field(default_factory=dict)
    distractors: tuple[str, ...] = ()
    locations: tuple[str, ...] = ("anechoic", "reverberant", "outdoors")
    subjects: int = 5
    validation_subjects: tuple[int, ...] = (4,)
    test_subjects: tuple[int, ...] = (5,)
    takes: int = 6
    seconds: float = 5.0
    microphones: int = N_MICROPHONES
    objects: ObjectSettings = field(default_factory=ObjectSettings)
    sounds: SoundSettings = field(default_factory=SoundSettings)
    anechoic: Anechoic = field(default_factory=Anechoic)
    reverberant: Reverberant = field(default_factory=Reverberant)
    outdoors: Outdoors = field(default_factory=Outdoors)
    store: StoreSettings = field(default_factory=StoreSettings)
    rule: EnergyRule = field(default_factory=EnergyRule)

    @property
    def n_frames(self) -> int:
        """Of a take."""
        return round(self.seconds * FRAMES_PER_SECOND)

    @property
    def n_samples(self) -> int:
        """Of a take, of each microphone."""
        return self.n_frames * SAMPLES_PER_FRAME

    @property
    def n_stored(self) -> int:
        """Microphones whose sound is written."""
        return self.microphones if self.store.microphones == "all" else 1

    @property
    def camera(self) -> Camera:
        """Sees 90 degrees from side to side."""
        height = self.store.frame_height_px
        return Camera(height * 4 // 3, height)

    def look_of(self, label: str) -> str:
        """Name of the look of a class."""
        return self.looks.get(label, label)

    def location(self, number: int) -> LocationSettings:
        """Settings of a scenario by its number, from 1."""
        found: LocationSettings = getattr(self, self.locations[number - 1])
        return found

    def split_of(self, subject: int) -> str:
        """Of SPLITS, the one that a subject belongs to."""
        if subject in self.test_subjects:
            return "test"
        return "validation" if subject in self.validation_subjects else "train"


def load_world_settings(path: Path, changes: Iterable[str] = ()) -> WorldSettings:
    """Read settings and apply changes such as "takes=2" or "objects.hidden_share=0.2".

    Raises ConfigError naming the file, the key, what was found and what is expected.
    """
    where = str(path)
    settings: WorldSettings = build_settings(WorldSettings, read_tables(path, list(changes)), where)
    _check_classes(settings, where)
    check_all(_world_checks(settings), where)
    check_all(_object_checks(settings), where)
    for name in settings.locations:
        check_all(_location_checks(name, getattr(settings, name)), where)
    return settings


def _check_classes(settings: WorldSettings, where: str) -> None:
    classes = settings.classes
    if len(set(classes)) < 2 or len(set(classes)) < len(classes):
        raise ConfigError(f"{where}: classes is {list(classes)}; expected two or more, each once")
    for label in settings.looks:
        if label not in classes:
            raise ConfigError(f"{where}: looks.{label}: no such class; expected one of classes")
    for label in classes:
        look = settings.look_of(label)
        if look not in BODIES:
            raise ConfigError(
                f"{where}: class {label} has the look {look!r}; expected looks.{label} to be one "
                f"of {', '.join(BODIES)}"
            )
    both = [label for label in settings.distractors if label in classes]
    if both:
        raise ConfigError(f"{where}: distractors: {both[0]} is a class; expected other labels")


_Checks = tuple[tuple[bool, str, object, str], ...]


def _world_checks(settings: WorldSettings) -> _Checks:
    known = ("anechoic", "reverberant", "outdoors")
    names, subjects = settings.locations, range(1, settings.subjects + 1)
    held = (*settings.validation_subjects, *settings.test_subjects)
    frames = settings.seconds * FRAMES_PER_SECOND
    height = settings.store.frame_height_px
    return (
        (settings.seed >= 0, "seed", settings.seed, "at least 0"),
        (
            bool(names) and set(names) <= set(known) and len(set(names)) == len(names),
            "locations",
            list(names),
            f"some of {', '.join(known)}, each once",
        ),
        (1 <= settings.subjects <= 99, "subjects", settings.subjects, "1 to 99"),
        (
            set(held) <= set(subjects) and len(set(held)) == len(held) < settings.subjects,
            "validation_subjects, test_subjects",
            [list(settings.validation_subjects), list(settings.test_subjects)],
            f"different ones of 1 to {settings.subjects}, and not all of them",
        ),
        (1 <= settings.takes <= 1_000, "takes", settings.takes, "1 to 1000"),
        (
            1 <= settings.seconds <= 60 and abs(frames - round(frames)) < 1e-6,
            "seconds",
            settings.seconds,
            f"1 to 60, in whole frames of 1/{FRAMES_PER_SECOND} s",
        ),
        (
            8 <= settings.microphones <= MAX_MICROPHONES,
            "microphones",
            settings.microphones,
            f"8 to {MAX_MICROPHONES}",
        ),
        (
            settings.store.microphones in STORED,
            "store.microphones",
            settings.store.microphones,
            " or ".join(STORED),
        ),
        (
            _SMALLEST_FRAME_PX <= height <= _LARGEST_FRAME_PX and height % 6 == 0,
            "store.frame_height_px",
            height,
            f"{_SMALLEST_FRAME_PX} to {_LARGEST_FRAME_PX}, a multiple of 6",
        ),
        (
            0.005 <= settings.rule.hop_s <= settings.rule.window_s <= 0.2,
            "rule.window_s, rule.hop_s",
            f"{settings.rule.window_s:g}, {settings.rule.hop_s:g}",
            "0.005 <= hop_s <= window_s <= 0.2",
        ),
    )


def _object_checks(settings: WorldSettings) -> _Checks:
    objects, sounds = settings.objects, settings.sounds
    shares = {
        f"objects.{name}_share": getattr(objects, f"{name}_share")
        for name in ("hidden", "silent", "distractor", "empty_screen", "moving")
    }
    return (
        *((0 <= share <= 1, name, share, "0 to 1") for name, share in shares.items()),
        (
            1 <= objects.most_sounding <= min(4, len(settings.classes)),
            "objects.most_sounding",
            objects.most_sounding,
            "1 to 4, and no more than there are classes",
        ),
        (0 <= objects.most_clutter <= 10, "objects.most_clutter", objects.most_clutter, "0 to 10"),
        (
            objects.speed_m_s[0] >= 0 and objects.speed_m_s[1] <= 2,
            "objects.speed_m_s",
            list(objects.speed_m_s),
            "within 0 and 2",
        ),
        (
            objects.depth_m[0] >= _NEAREST_M and objects.depth_m[1] <= _FARTHEST_M,
            "objects.depth_m",
            list(objects.depth_m),
            f"within {_NEAREST_M:g} and {_FARTHEST_M:g}, before the walls",
        ),
        (objects.individuals >= 1, "objects.individuals", objects.individuals, "at least 1"),
        (
            not objects.distractor_share or bool(settings.distractors),
            "objects.distractor_share",
            objects.distractor_share,
            "0 where distractors names no labels",
        ),
        (
            sounds.main_dbfs[0] >= -80 and sounds.main_dbfs[1] <= -15,
            "sounds.main_dbfs",
            list(sounds.main_dbfs),
            "within -80 and -15, which leaves room for peaks",
        ),
        (sounds.other_db[1] <= 0, "sounds.other_db", list(sounds.other_db), "none above 0"),
        (
            sounds.distractor_db[1] <= 0,
            "sounds.distractor_db",
            list(sounds.distractor_db),
            "none above 0",
        ),
        (sounds.gap_s[0] >= 0.05, "sounds.gap_s", list(sounds.gap_s), "at least 0.05"),
        (
            sounds.other_s[0] >= 0.2 and sounds.other_s[1] <= settings.seconds,
            "sounds.other_s",
            list(sounds.other_s),
            f"within 0.2 and seconds ({settings.seconds:g})",
        ),
        (1 <= sounds.most_waypoints <= 50, "sounds.most_waypoints", sounds.most_waypoints, "1-50"),
        (0 <= sounds.max_order <= 100, "sounds.max_order", sounds.max_order, "0 to 100"),
    )


def _location_checks(name: str, location: LocationSettings) -> _Checks:
    low_s, high_s = location.rt60_s
    return (
        (location.place in PLACES, f"{name}.place", location.place, ", ".join(PLACES)),
        (
            high_s == 0 or (low_s >= 0.2 and high_s <= 1.5),
            f"{name}.rt60_s",
            list(location.rt60_s),
            "within 0.2 and 1.5, or [0, 0] for the free field",
        ),
    )


def seconds_of(samples: int) -> float:
    """Time of so many samples at the world's rate."""
    return samples / RATE_HZ
