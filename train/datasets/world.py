"""Renders the takes of a generated world: what 128 microphones and a camera among them record.

    renderer = WorldRenderer(settings, cast.clips)
    for image, samples, picture in renderer.frames(plan_take(settings, cast, 1, 1, 1, 0)):
        ...

Twelve frames a second, each with 1,024 samples of every microphone at 12,288 Hz, the acoustic image
made of them and a picture of the middle of that time. Sound and picture follow the same way: an
object is heard where it is seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from soundpost.calibration.pictures.backdrop import draw_backdrop
from soundpost.calibration.pictures.view import SeenObject, View
from soundpost.calibration.propagation import PointSource
from soundpost.calibration.scene import Scene, render
from soundpost.device.array.acoustic_image import AcousticImager, ImageSettings, cut_snapshots
from soundpost.device.array.geometry import vogel_spiral
from soundpost.device.audio import FloatArray, read_clip
from soundpost.train.clips import Clip
from soundpost.train.datasets.action_files import (
    FRAMES_PER_SECOND,
    RATE_HZ,
    SAMPLES_PER_FRAME,
)
from soundpost.train.datasets.media import Frames
from soundpost.train.datasets.world_plan import TEMPERATURE_C, Actor, Cue, TakePlan
from soundpost.train.datasets.world_settings import WorldSettings

# Ramps at both ends of what is cut out of a clip, against clicks.
_FADE_S = 0.005
# Clips of a recording, which its takes share.
_CLIPS_KEPT = 32


class WorldFrame(NamedTuple):
    """One frame.

    image : (36, 48, 12) float32
    samples : (1024, n_mics) float32, full scale ±1.0
    picture : (height, width, 3) uint8 RGB
    """

    image: FloatArray
    samples: FloatArray
    picture: Frames


class WorldRenderer:
    """Renders takes; keeps what all of them share.

    clips : of the cast from which the takes are planned
    """

    def __init__(self, settings: WorldSettings, clips: Sequence[Clip]) -> None:
        self.settings = settings
        self.geometry = vogel_spiral(settings.microphones)
        self.imager = AcousticImager(
            self.geometry,
            settings=ImageSettings(
                sample_rate_hz=RATE_HZ,
                snapshot_length=SAMPLES_PER_FRAME,
                temperature_c=TEMPERATURE_C,
            ),
        )
        self._clips = clips

    def frames(self, plan: TakePlan) -> Iterator[WorldFrame]:
        """Frames of a take, one after the other.

        Raises InputError for a clip that cannot be read any more.
        """
        samples = self.sound(plan)
        images = self.imager.mfcc(cut_snapshots(samples, SAMPLES_PER_FRAME))
        view = self.view(plan)
        for number, image in enumerate(images):
            first = number * SAMPLES_PER_FRAME
            yield WorldFrame(
                image,
                samples[first : first + SAMPLES_PER_FRAME],
                view.frame(frame_time_s(number)),
            )

    def sound(self, plan: TakePlan) -> FloatArray:
        """What the microphones record of a take, (n_samples, n_mics) float32."""
        sources = tuple(self._source(actor) for actor in plan.actors if actor.sounds)
        scene = Scene(
            sources,
            self.settings.n_samples,
            RATE_HZ,
            temperature_c=TEMPERATURE_C,
            room=plan.room,
            noises=plan.noises,
            seed=plan.noise_seed,
        )
        return render(scene, self.geometry.positions_m).samples

    def view(self, plan: TakePlan) -> View:
        """What the camera sees of a take; objects that are seen come first."""
        camera = self.settings.camera
        backdrop = draw_backdrop(plan.backdrop, camera, plan.picture_seed)
        seen = [_seen(actor) for actor in plan.actors if actor.seen]
        return View(camera, backdrop, [*seen, *plan.screens, *plan.clutter], plan.picture_seed)

    def _source(self, actor: Actor) -> PointSource:
        """An actor's sound at 1 m, as loud as its level at the array's middle asks for."""
        start, end = actor.cues[0].start, actor.cues[-1].end
        samples = np.zeros(end - start, np.float32)
        power, count = 0.0, 0
        for cue in actor.cues:
            part = _excerpt(self._clips[cue.clip].path, cue)
            samples[cue.start - start : cue.end - start] = part
            power += float(np.square(part, dtype=np.float64).sum())
            count += len(part)
        middle_s = (start + end) / 2 / RATE_HZ
        distance_m = float(np.linalg.norm(actor.place.at(middle_s)))
        wanted = distance_m * 10 ** (actor.level_dbfs / 20)
        samples *= np.float32(wanted / np.sqrt(power / count)) if power > 0 else np.float32(0)
        return PointSource(samples, actor.place, start / RATE_HZ, actor.label)


def frame_time_s(number: int) -> float:
    """Moment that the picture of a frame shows, seconds of the take; frames count from 0."""
    return (number + 0.5) / FRAMES_PER_SECOND


def _seen(actor: Actor) -> SeenObject:
    assert actor.look is not None
    return SeenObject(
        actor.look,
        actor.place,
        actor.height_m,
        tuple((cue.start / RATE_HZ, cue.end / RATE_HZ) for cue in actor.cues),
        seed=actor.look_seed,
    )


@lru_cache(maxsize=_CLIPS_KEPT)
def _samples(path: Path) -> FloatArray:
    return read_clip(path, RATE_HZ)


def _excerpt(path: Path, cue: Cue) -> FloatArray:
    part = _samples(path)[cue.first : cue.stop].copy()
    n = min(round(_FADE_S * RATE_HZ), len(part) // 2)
    ramp = ((np.arange(n) + 0.5) / n).astype(np.float32) if n else np.zeros(0, np.float32)
    part[:n] *= ramp
    part[len(part) - n :] *= ramp[::-1]
    return part
