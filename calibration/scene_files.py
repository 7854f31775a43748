"""A rendered scene on disk: one WAV with all channels and a JSON beside it that says what is heard.

    {
     "schema": "soundpost.scene/1",
     "array": {"name": "vogel-128", "sha256": "...", "positions_m": [...], "channels": [...]},
     "sources": [
      {"label": "dog", "start_s": 1.0, "onset_s": 1.006, "offset_s": 2.3, "path": [[0, 0.5, 0, 2]]}
     ],
     ...
    }

`onset_s` and `offset_s` are when the direct sound first and last reaches a microphone; `start_s` is
the time at the source. A path is a list of [time, x, y, z]; what rests has one point.
"""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from soundpost.calibration.scene import Rendering, Scene
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.audio import FloatArray
from soundpost.device.errors import InputError, UsageError
from soundpost.device.files import write_atomically

SCENE_SCHEMA: Final = "soundpost.scene/1"
# A scene is held in memory twice and a WAV counts its bytes with 32 bits.
MAX_BYTES: Final = 1 << 30


def check_size(n_samples: int, array: ArrayDescription) -> None:
    """Raise UsageError for a scene that is too long for its number of channels."""
    n_channels = max(array.channels) + 1
    most = MAX_BYTES // (4 * n_channels)
    if n_samples > most:
        raise UsageError(
            f"a scene of {n_samples} samples on {n_channels} channels; expected at most {most}: "
            "render it in parts, or at a lower rate"
        )


def json_path(wav: Path) -> Path:
    """The JSON beside a WAV."""
    return wav.with_suffix(".json")


def write_scene(
    wav: Path,
    scene: Scene,
    rendering: Rendering,
    array: ArrayDescription,
    *,
    as_float: bool = False,
) -> dict[str, Any]:
    """Write the WAV, 24-bit or float, and then the JSON beside it; returns what the JSON says.

    Each microphone is on the channel that array.json gives it; other channels are silent.

    Raises InputError where 24 bits cannot hold the loudest sample, or where nothing can be written.
    """
    samples = np.zeros((len(rendering.samples), max(array.channels) + 1), np.float32)
    samples[:, list(array.channels)] = rendering.samples
    peak = float(np.abs(samples).max(initial=0.0))
    if peak >= 1 and not as_float:
        raise InputError(
            f"{wav}: the loudest sample is {peak:.2f} of full scale, which 24 bits cannot hold; "
            f"lower gain_db by {20 * np.log10(peak) + 0.1:.1f}, or write --float"
        )
    note = describe(scene, rendering, array, peak)
    write_atomically(wav, _wav(samples, scene.rate_hz, as_float))
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in note.items())
    write_atomically(json_path(wav), f"{{\n{lines}\n}}\n".encode())
    return note


def describe(
    scene: Scene, rendering: Rendering, array: ArrayDescription, peak: float
) -> dict[str, Any]:
    """What there is to know about a rendered scene, as JSON takes it."""
    microphones = scene.microphones
    return {
        "schema": SCENE_SCHEMA,
        "rate_hz": scene.rate_hz,
        "n_samples": scene.n_samples,
        "temperature_c": scene.temperature_c,
        "speed_of_sound_m_s": scene.sound_m_s,
        "gain_db": scene.gain_db,
        "seed": scene.seed,
        "peak": peak,
        "signal_rms": rendering.signal_rms,
        "array": {
            "name": array.geometry.name,
            "sha256": array.geometry.hash(),
            "positions_m": array.geometry.positions_m.tolist(),
            "channels": list(array.channels),
        },
        "room": None if scene.room is None else dataclasses.asdict(scene.room),
        "sources": [
            {
                "label": source.label,
                "start_s": source.start_s,
                "seconds": len(source.samples) / scene.rate_hz,
                "onset_s": onset_s,
                "offset_s": offset_s,
                "path": source.place.points(),
            }
            for source, (onset_s, offset_s) in zip(scene.sources, rendering.spans_s, strict=True)
        ],
        "noises": [
            dataclasses.asdict(noise) | {"rms": rms}
            for noise, rms in zip(scene.noises, rendering.noise_rms, strict=True)
        ],
        "microphones": None if microphones is None else microphones.to_dict(),
    }


def _wav(samples: FloatArray, rate_hz: int, as_float: bool) -> bytes:
    import soundfile

    file = io.BytesIO()
    if as_float:
        soundfile.write(file, samples, rate_hz, format="WAV", subtype="FLOAT")
    else:
        # As device/audio.py reads it: full scale is 2^23. libsndfile would take 2^23 - 1.
        whole = np.clip(np.round(samples * np.float32(2**23)), -(2**23), 2**23 - 1)
        wide = whole.astype(np.int32) << 8
        soundfile.write(file, wide, rate_hz, format="WAV", subtype="PCM_24")
    return file.getvalue()
