"""Soundscapes: events of labelled clips laid onto backgrounds, with labels that are exact.

Everything is drawn from (seed, split, number of the recording), so that a recording does not depend
on which others were made before it: a killed run goes on, and the same settings and clips give the
same bytes.

Why not Scaper (Salamon et al. 2017), with which DESED was made: to it a file is an event, while a
clip of a list is five seconds with an event somewhere in them; its reverberation and its trimming
call SoX, a program that pip does not install; its reverberation is one dial of SoX without a room;
and it measures levels in LUFS, whose shortest window (400 ms) is longer than a knock. What it
does with a label, draw, place and mix, is the fifty lines of `plan_scene` and `render`. Rooms are
simulated by a library (see rooms.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.signal

from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray
from soundpost.train.clips import Clip, ClipSet, Waveforms, load_waveforms
from soundpost.train.dataset import split_clips
from soundpost.train.recipe import DataSettings
from soundpost.train.sed.rooms import impulse_response
from soundpost.train.sed.scenes import Event
from soundpost.train.sed.segments import find_segments
from soundpost.train.sed.soundscape_settings import SoundscapeSettings

SPLITS = ("train", "validation", "test")
# Ramps at both ends of what is cut out, against clicks; of a stationary sound longer, for a sound
# that goes on is switched on, not struck.
_EVENT_FADE_S = 0.003
_STATIONARY_FADE_S = 0.05
# Where a sound that is shorter than wanted is repeated.
_CROSSFADE_S = 0.1
# A stationary sound or a background is repeated from no less than this.
_SHORTEST_LOOP_S = 1.0
# Places that are tried for an event before it is given up: a full recording has no room for it.
_TRIES = 30
_PEAK = 0.98


@dataclass(frozen=True)
class Sound:
    """One span of one clip, in samples of the soundscapes' rate. clip: index into the waveforms."""

    clip: int
    first: int
    stop: int


@dataclass(frozen=True)
class Palette:
    """What one split draws from: by label, the sounds of each clip. No clip is in two palettes."""

    events: dict[str, tuple[tuple[Sound, ...], ...]]
    backgrounds: tuple[tuple[Sound, ...], ...]


@dataclass(frozen=True)
class Material:
    """All clips that are used, decoded, and how they are shared out."""

    clips: tuple[Clip, ...]
    waveforms: Waveforms
    palettes: dict[str, Palette]
    left_out: tuple[Clip, ...]


@dataclass(frozen=True)
class Placement:
    """One event of a recording.

    offset_in_sound : samples of the sound that are skipped
    onset, n_samples : where it stands in the recording
    place : number of its source's place, where the recording has a room
    """

    label: str
    sound: Sound
    offset_in_sound: int
    onset: int
    n_samples: int
    snr_db: float
    place: int


@dataclass(frozen=True)
class Plan:
    """Everything about one recording but its samples. room: None where it is dry."""

    split: str
    index: int
    background: Sound
    background_offset: int
    background_dbfs: float
    room: int | None
    placements: tuple[Placement, ...]

    def events(self, rate_hz: int) -> tuple[Event, ...]:
        """Labels of the recording, by onset."""
        return tuple(
            Event(p.label, p.onset / rate_hz, (p.onset + p.n_samples) / rate_hz)
            for p in self.placements
        )


@dataclass(frozen=True)
class Rendering:
    """Samples of one recording; sound = background + sum of the events, before rounding.

    sound, background : (n_samples,) float32, full scale ±1.0
    events : for each placement, (n_samples,) float32 with the tail of its room
    """

    sound: FloatArray
    background: FloatArray
    events: tuple[FloatArray, ...]


def gather(clip_set: ClipSet, settings: SoundscapeSettings, *, quiet: bool = False) -> Material:
    """Share the clips out to the splits and find the sounds in them.

    Raises InputError where a label has no clip, or none that can be used, in some split.
    """
    absent = sorted(set(settings.roles) - set(clip_set.labels))
    if absent:
        raise InputError(
            f"{clip_set.folder}: has no clip with the label {absent[0]}; take it out of roles"
        )
    clips = tuple(clip for clip in clip_set.clips if clip.label in settings.roles)
    split = split_clips(
        ClipSet(clip_set.folder, clips, tuple(sorted(settings.roles))),
        settings.test_fold if settings.counts.test else None,
        DataSettings(validation_fraction=settings.validation_fraction),
        settings.seed,
    )
    waveforms = load_waveforms(clips, settings.rate_hz, quiet=quiet)
    sounds = [_sounds(i, clip, waveforms, settings) for i, clip in enumerate(clips)]
    number = {clip.path: i for i, clip in enumerate(clips)}
    palettes = {}
    for name in SPLITS:
        of_split: tuple[Clip, ...] = getattr(split, name)
        if not of_split and name == "test":
            continue
        by_label = {
            label: tuple(
                sounds[number[clip.path]]
                for clip in of_split
                if clip.label == label and sounds[number[clip.path]]
            )
            for label in settings.roles
        }
        for label, found in by_label.items():
            role = settings.roles[label]
            if not found and role != "background":
                raise InputError(
                    f"{clip_set.folder}: {name} has no clip of {label} that can be used; add clips "
                    "of other folds or groups, or take the label out of roles"
                )
        backgrounds = tuple(
            spans
            for label, found in by_label.items()
            if settings.roles[label] == "background"
            for spans in found
        )
        if not backgrounds:
            raise InputError(f"{clip_set.folder}: {name} has no background that can be used")
        palettes[name] = Palette({k: by_label[k] for k in settings.labels()}, backgrounds)
    left_out = tuple(clip for clip, found in zip(clips, sounds, strict=True) if not found)
    return Material(clips, waveforms, palettes, left_out)


def _sounds(
    index: int, clip: Clip, waveforms: Waveforms, settings: SoundscapeSettings
) -> tuple[Sound, ...]:
    segments = find_segments(waveforms.clip(index), settings.rate_hz, settings.rule)
    if settings.roles[clip.label] != "event":
        # What goes on is taken from its longest stretch, so that no pause of it is labelled.
        longest = max(segments, key=lambda span: span[1] - span[0], default=(0, 0))
        fits = longest[1] - longest[0] >= _SHORTEST_LOOP_S * settings.rate_hz
        segments = [longest] if fits else []
    return tuple(Sound(index, first, stop) for first, stop in segments)


def plan_scene(settings: SoundscapeSettings, material: Material, split: str, index: int) -> Plan:
    """Draw one recording: its background, its room, its events and where they stand."""
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])
    palette = material.palettes[split]
    total = round(settings.seconds * settings.rate_hz)
    background = _pick(palette.backgrounds, rng)
    background_offset = int(rng.integers(background.stop - background.first))
    background_dbfs = rng.uniform(*settings.background_dbfs)
    in_room = rng.random() < settings.room.share
    room = int(rng.integers(settings.room.rooms))
    empty = rng.random() < settings.empty_share
    n_events = 0 if empty else int(rng.integers(1, settings.most_events + 1))
    labels = settings.labels()
    placements: list[Placement] = []
    for place in range(n_events):
        label = labels[int(rng.integers(len(labels)))]
        sound = _pick(palette.events[label], rng)
        length = sound.stop - sound.first
        skipped, wanted = 0, min(length, total)
        if settings.roles[label] == "stationary":
            wanted = _on_grid(rng.uniform(*settings.stationary_s), settings.rate_hz)
            skipped = int(rng.integers(max(1, length - wanted if length > wanted else length)))
        snr_db = rng.uniform(*settings.snr_db)
        for _ in range(_TRIES):
            latest_s = (total - wanted) / settings.rate_hz
            onset = min(_on_grid(rng.uniform(0, latest_s), settings.rate_hz), total - wanted)
            chosen = Placement(label, sound, skipped, onset, wanted, snr_db, place)
            if _fits(chosen, placements, settings):
                placements.append(chosen)
                break
    return Plan(
        split,
        index,
        background,
        background_offset,
        float(background_dbfs),
        room if in_room else None,
        tuple(sorted(placements, key=lambda p: (p.onset, p.label))),
    )


def _on_grid(seconds: float, rate_hz: int) -> int:
    """Samples of a time in whole milliseconds, as a table with three decimals holds it."""
    return round(round(seconds * 1_000) * rate_hz / 1_000)


def _pick(sounds: Sequence[Sequence[Sound]], rng: np.random.Generator) -> Sound:
    """A sound of any clip: clips first, so that one of many barks weighs no more than one cough."""
    of_clip = sounds[int(rng.integers(len(sounds)))]
    return of_clip[int(rng.integers(len(of_clip)))]


def _fits(new: Placement, others: Sequence[Placement], settings: SoundscapeSettings) -> bool:
    apart = round(settings.apart_s * settings.rate_hz)
    stop = new.onset + new.n_samples
    for other in others:
        near = new.onset < other.onset + other.n_samples + apart and other.onset < stop + apart
        if other.label == new.label and near:
            return False
    # The number that sounds at once is largest where one of them begins.
    everything = [*others, new]
    return all(
        sum(p.onset <= moment < p.onset + p.n_samples for p in everything) <= settings.most_at_once
        for moment in (p.onset for p in everything)
    )


def render(settings: SoundscapeSettings, material: Material, plan: Plan) -> Rendering:
    """Samples of a planned recording.

    Event n is scaled so that 10 log10(P_n / P_b) = snr_db, P_n its mean power (with the room) from
    its onset to its offset, P_b the background's over the recording. A recording that would clip is
    made quieter as a whole.
    """
    rate = settings.rate_hz
    total = round(settings.seconds * rate)
    background = _excerpt(material, plan.background, plan.background_offset, total, rate)
    power = 10 ** (plan.background_dbfs / 10)
    background *= np.float32(math.sqrt(power / _mean_power(background)))
    events = []
    for placement in plan.placements:
        dry = _excerpt(
            material, placement.sound, placement.offset_in_sound, placement.n_samples, rate
        )
        stationary = settings.roles[placement.label] == "stationary"
        _fade(dry, round((_STATIONARY_FADE_S if stationary else _EVENT_FADE_S) * rate))
        wet = dry
        if plan.room is not None:
            response = impulse_response(
                settings.room,
                (settings.seed, SPLITS.index(plan.split)),
                plan.room,
                # A few places per room: its responses are kept from one recording to the next.
                placement.place,
                rate,
            )
            wet = scipy.signal.oaconvolve(dry, response).astype(np.float32)
        gain = math.sqrt(
            power * 10 ** (placement.snr_db / 10) / _mean_power(wet[: placement.n_samples])
        )
        track = np.zeros(total, np.float32)
        heard = min(len(wet), total - placement.onset)
        track[placement.onset : placement.onset + heard] = wet[:heard] * np.float32(gain)
        events.append(track)
    sound = background.copy()
    for track in events:
        sound += track
    peak = float(np.max(np.abs(sound)))
    if peak > _PEAK:
        scale = np.float32(_PEAK / peak)
        sound *= scale
        background *= scale
        events = [track * scale for track in events]
    return Rendering(sound, background, tuple(events))


def _mean_power(samples: FloatArray) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64))) or 1e-20


def _excerpt(material: Material, sound: Sound, skipped: int, n: int, rate_hz: int) -> FloatArray:
    """n samples of a sound, which is repeated with crossfades where it is shorter."""
    samples = material.waveforms.clip(sound.clip)[sound.first : sound.stop]
    if len(samples) >= skipped + n:
        return samples[skipped : skipped + n].copy()
    overlap = min(round(_CROSSFADE_S * rate_hz), len(samples) // 2)
    # Powers add up to one: the repeats of a noise are as good as uncorrelated.
    ramp = np.sin(0.5 * np.pi * (np.arange(overlap) + 0.5) / overlap).astype(np.float32)
    step = len(samples) - overlap
    looped = np.zeros(skipped + n + len(samples), np.float32)
    for start in range(0, skipped + n, step):
        piece = samples.copy()
        if start:
            piece[:overlap] *= ramp
        piece[-overlap:] *= ramp[::-1]
        looped[start : start + len(piece)] += piece
    return looped[skipped : skipped + n]


def _fade(samples: FloatArray, n: int) -> None:
    n = min(n, len(samples) // 2)
    ramp = ((np.arange(n) + 0.5) / n).astype(np.float32) if n else np.zeros(0, np.float32)
    samples[:n] *= ramp
    samples[len(samples) - n :] *= ramp[::-1]
