"""What happens in a take of a generated world, drawn before anything is rendered.

In each take one main object sounds throughout: it is the recording's action. Up to two others sound
for a while, not louder. Some of what is heard is hidden behind a screen; some of what is seen moves
as if it sounded and does not; classes may look alike; sounds that are no class come from places
where nothing is seen; screens that hide nothing and things that never sound stand about. A screen
lets all sound pass. Motion goes with the sound, and with the sound that a silent object might make.

Everything is drawn from (seed, location, subject, action, take), beside what a subject has in all
its takes: its clips, the colours of its objects, its room at a location.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from soundpost.calibration.noise import Wind
from soundpost.calibration.pictures.arrange import draw_clutter
from soundpost.calibration.pictures.backdrop import PLACES, Place
from soundpost.calibration.pictures.view import SeenObject
from soundpost.calibration.rooms import Room
from soundpost.calibration.scene import Noise
from soundpost.calibration.trajectory import Trajectory
from soundpost.device.array.beamforming import speed_of_sound_m_s
from soundpost.train.datasets.action_files import RATE_HZ
from soundpost.train.datasets.world_bodies import BODIES
from soundpost.train.datasets.world_cast import Cast, Voice
from soundpost.train.datasets.world_settings import LocationSettings, WorldSettings
from soundpost.train.datasets.world_stage import Placed, Stage

Role = Literal["main", "other", "silent", "distractor"]

TEMPERATURE_C: Final = 20.0
# Begin the seeds of what a subject has in all its takes, where those of takes have a location.
_LOOK, _ROOM = (0, 1), (0, 2)
# Before its end nothing begins that would be shorter than this.
_SHORTEST_S = 0.1
# Sound takes 12 ms from the farthest object: what is planned arrives within the take.
_TRAVEL_S = 0.02
_LATEST_START_S = 0.3
# Width, height and depth. What is heard stays within 3 m to each side and 4 m deep.
_ROOM_M = ((6.6, 8.0), (2.7, 3.2), (4.8, 6.0))
# Of the camera, from the wall behind it and from the middle, and over the floor.
_CAMERA_M = ((-0.2, 0.2), (1.2, 1.2), (0.3, 0.6))


@dataclass(frozen=True)
class Cue:
    """A part of a clip, and when it leaves its object.

    clip : index into the cast's clips
    first, stop : samples of the clip at RATE_HZ
    start : sample of the take
    """

    clip: int
    first: int
    stop: int
    start: int

    @property
    def end(self) -> int:
        """First sample of the take after it."""
        return self.start + self.stop - self.first


@dataclass(frozen=True, eq=False)
class Actor:
    """Something that sounds, or is seen as if it did.

    label : its class; of a distractor, its clip's label
    look : None for a distractor, which nobody sees
    height_m, look_seed : of what is seen
    cues : by time; of a silent object those that it moves to
    level_dbfs : root mean square of its cues at the array, before any echo
    """

    role: Role
    label: str
    look: str | None
    hidden: bool
    place: Trajectory
    height_m: float
    look_seed: int
    cues: tuple[Cue, ...]
    level_dbfs: float

    @property
    def sounds(self) -> bool:
        """Whether it is heard."""
        return self.role != "silent"

    @property
    def seen(self) -> bool:
        """Whether it is in the picture."""
        return self.look is not None and not self.hidden


@dataclass(frozen=True)
class WorldEvent:
    """What a table says: a class is heard from onset to offset, seconds of the take.

    Sound is as late as its way to the array takes. role : main or other
    """

    label: str
    onset_s: float
    offset_s: float
    seen: bool
    role: str


@dataclass(frozen=True, eq=False)
class TakePlan:
    """Everything about one take but its samples and pixels.

    screens, clutter : seen and never heard
    picture_seed, noise_seed : of what is drawn while rendering
    """

    location: int
    subject: int
    action: int
    take: int
    actors: tuple[Actor, ...]
    screens: tuple[SeenObject, ...]
    clutter: tuple[SeenObject, ...]
    backdrop: Place
    room: Room | None
    noises: tuple[Noise, ...]
    picture_seed: int
    noise_seed: int

    def events(self) -> tuple[WorldEvent, ...]:
        """Classes that are heard, by onset."""
        found = [
            WorldEvent(
                actor.label,
                _heard_s(actor.place, cue.start),
                _heard_s(actor.place, cue.end),
                actor.seen,
                actor.role,
            )
            for actor in self.actors
            if actor.role in ("main", "other")
            for cue in actor.cues
        ]
        return tuple(sorted(found, key=lambda event: (event.onset_s, event.label)))

    def labels(self) -> tuple[str, ...]:
        """Classes that are heard, each once, the action first."""
        return tuple(actor.label for actor in self.actors if actor.role in ("main", "other"))


def _heard_s(place: Trajectory, sample: int) -> float:
    emitted_s = sample / RATE_HZ
    way_m = float(np.linalg.norm(place.at(emitted_s)))
    return round(emitted_s + way_m / speed_of_sound_m_s(TEMPERATURE_C), 3)


def plan_take(
    settings: WorldSettings, cast: Cast, location: int, subject: int, action: int, take: int
) -> TakePlan:
    """Draw a take. location, subject and action count from 1, take from 0."""
    rng = np.random.default_rng([settings.seed, location, subject, action, take])
    picture_seed, noise_seed, clutter_seed = (int(seed) for seed in rng.integers(2**31, size=3))
    of_location = settings.location(location)
    stage = Stage(settings.objects, settings.seconds, rng)
    actors, screens = _draw_actors(settings, cast, subject, action, stage, rng)
    screens += _draw_empty_screen(settings, stage, rng)
    backdrop = next(place for place in PLACES if place == of_location.place)
    clutter = draw_clutter(
        backdrop, clutter_seed, int(rng.integers(settings.objects.most_clutter + 1))
    )
    if rng.random() < settings.objects.distractor_share:
        actors.append(_draw_distractor(settings, cast, subject, actors[0], stage, rng))
    return TakePlan(
        location,
        subject,
        action,
        take,
        tuple(actors),
        tuple(screens),
        tuple(thing for thing in clutter if stage.fits(thing)),
        backdrop,
        draw_room(settings, location, subject),
        _draw_noises(of_location, rng),
        picture_seed,
        noise_seed,
    )


def _draw_actors(
    settings: WorldSettings,
    cast: Cast,
    subject: int,
    action: int,
    stage: Stage,
    rng: np.random.Generator,
) -> tuple[list[Actor], list[SeenObject]]:
    """What sounds, the main object first, and what moves as if it did; screens before some."""
    objects, sounds = settings.objects, settings.sounds
    main = settings.classes[action - 1]
    order = [str(label) for label in rng.permutation(settings.classes) if label != main]
    n_sounding = int(rng.integers(1, objects.most_sounding + 1))
    roles: list[tuple[Role, str]] = [("main", main)]
    roles += [("other", label) for label in order[: n_sounding - 1]]
    if rng.random() < objects.silent_share:
        heard = {settings.look_of(label) for _, label in roles}
        others = [label for label in order if settings.look_of(label) not in heard]
        roles += [("silent", label) for label in others[:1]]
    main_dbfs = float(rng.uniform(*sounds.main_dbfs))
    actors: list[Actor] = []
    screens: list[SeenObject] = []
    for role, label in roles:
        hidden = role != "silent" and rng.random() < objects.hidden_share
        # A silent object looks busy for as long as a main one does, or another.
        throughout = role == "main" or (role == "silent" and rng.random() < 0.5)
        below_db = float(rng.uniform(*sounds.other_db))
        look = settings.look_of(label)
        placed = stage.place(look, hidden=hidden)
        cues = _draw_cues(settings, cast.voices[subject][label], throughout, rng)
        individual = int(rng.integers(objects.individuals))
        if placed is None:
            continue
        actors.append(
            Actor(
                role,
                label,
                look,
                hidden,
                placed.place,
                placed.height_m,
                _look_seed(settings, subject, label, individual),
                cues,
                main_dbfs if role == "main" else main_dbfs + below_db,
            )
        )
        screens += [] if placed.screen is None else [placed.screen]
    return actors, screens


def _draw_cues(
    settings: WorldSettings, voices: Sequence[Voice], throughout: bool, rng: np.random.Generator
) -> tuple[Cue, ...]:
    """One voice over all of the take, or for a while of it."""
    end_s = settings.seconds - _TRAVEL_S
    if throughout:
        begin_s = float(rng.uniform(0, _LATEST_START_S))
    else:
        length_s = min(float(rng.uniform(*settings.sounds.other_s)), end_s)
        begin_s = float(rng.uniform(0, end_s - length_s))
        end_s = begin_s + length_s
    voice = voices[int(rng.integers(len(voices)))]
    at, end = round(begin_s * RATE_HZ), round(end_s * RATE_HZ)
    cues: list[Cue] = []
    while end - at >= _SHORTEST_S * RATE_HZ:
        first, stop = voice.spans[int(rng.integers(len(voice.spans)))]
        length = min(stop - first, end - at)
        first += int(rng.integers(stop - first - length + 1))
        cues.append(Cue(voice.clip, first, first + length, at))
        at += length + round(float(rng.uniform(*settings.sounds.gap_s)) * RATE_HZ)
    return tuple(cues)


def _draw_distractor(
    settings: WorldSettings,
    cast: Cast,
    subject: int,
    main: Actor,
    stage: Stage,
    rng: np.random.Generator,
) -> Actor:
    cues = _draw_cues(settings, cast.distractors[subject], bool(rng.random() < 0.5), rng)
    level_dbfs = main.level_dbfs + float(rng.uniform(*settings.sounds.distractor_db))
    label = cast.clips[cues[0].clip].label
    return Actor("distractor", label, None, True, stage.anywhere(), 0.0, 0, cues, level_dbfs)


def _draw_empty_screen(
    settings: WorldSettings, stage: Stage, rng: np.random.Generator
) -> list[SeenObject]:
    if rng.random() >= settings.objects.empty_screen_share:
        return []
    looks = [*BODIES]
    placed: Placed | None = stage.place(looks[int(rng.integers(len(looks)))], hidden=True)
    return [] if placed is None or placed.screen is None else [placed.screen]


def _look_seed(settings: WorldSettings, subject: int, label: str, individual: int) -> int:
    number = settings.classes.index(label)
    key = [settings.seed, *_LOOK, subject, number, individual]
    return int(np.random.default_rng(key).integers(2**31))


def draw_room(settings: WorldSettings, location: int, subject: int) -> Room | None:
    """A subject's room at a location, the same in all its takes; None for the free field."""
    of_location = settings.location(location)
    if of_location.rt60_s[1] == 0:
        return None
    rng = np.random.default_rng([settings.seed, *_ROOM, location, subject])
    width, height, depth = (float(rng.uniform(*span)) for span in _ROOM_M)
    aside, above, before = (float(rng.uniform(*span)) for span in _CAMERA_M)
    return Room(
        (width, height, depth),
        (width / 2 + aside, above, before),
        float(rng.uniform(*of_location.rt60_s)),
        most_waypoints=settings.sounds.most_waypoints,
        max_order=settings.sounds.max_order,
    )


def _draw_noises(of: LocationSettings, rng: np.random.Generator) -> tuple[Noise, ...]:
    noises = [
        # Hum of machines and of roads falls with frequency.
        Noise("diffuse", snr_db=float(rng.uniform(*of.diffuse_snr_db)), slope_db_per_octave=-3.0),
        Noise("self", snr_db=float(rng.uniform(*of.self_snr_db))),
    ]
    if of.wind:
        speed_m_s = float(rng.uniform(2.0, 6.0))
        wind = Wind(speed_m_s=speed_m_s)
        noises.append(Noise("wind", snr_db=float(rng.uniform(*of.wind_snr_db)), wind=wind))
    return tuple(noises)
