"""The features that an audio side takes of a clip: log-mel frames, vectors of pretrained networks.

Each is made of the clip's first seconds, cut or padded with silence, at a rate of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from soundpost.device.features import FloatArray, FrontEnd, log_mel
from soundpost.train.backbones.frozen_audio import FrozenHearing
from soundpost.train.multimodal.mutual_networks import AcousticFeature
from soundpost.train.multimodal.tagging_features import hash_of

LOG_MEL = "log_mel"


class Heard(Protocol):
    """One feature of a clip's sound."""

    @property
    def name(self) -> str:
        """As recipes call it."""
        ...

    @property
    def feature(self) -> AcousticFeature:
        """Its sub-network's input."""
        ...

    @property
    def rate_hz(self) -> int:
        """Of the sound that it is made of."""
        ...

    def key(self, seconds: float) -> str:
        """Changes whenever `of` does: for the names of stored features."""
        ...

    def note(self) -> dict[str, Any]:
        """What a run notes of it: what made it, wherever that lies."""
        ...

    def of(self, samples: FloatArray, seconds: float) -> FloatArray:
        """(n_samples,) float32 at rate_hz to (n_frames, size) float32 of the first seconds."""
        ...


def cut_or_pad(samples: FloatArray, n: int) -> FloatArray:
    """(n,): the first n samples; what lacks is silent."""
    return np.pad(samples[:n], (0, max(0, n - len(samples))))


def heard(samples: FloatArray, front_end: FrontEnd, seconds: float) -> FloatArray:
    """Log-mel of a clip's first seconds, (n_frames, n_mels) float32; what lacks is silent."""
    return log_mel(cut_or_pad(samples, round(seconds * front_end.sample_rate_hz)), front_end)


@dataclass(frozen=True)
class LogMelInput:
    """The device's log-mel."""

    front_end: FrontEnd
    name: str = LOG_MEL

    @property
    def feature(self) -> AcousticFeature:
        """A spectrogram, for the convolutions."""
        return AcousticFeature(size=self.front_end.n_mels)

    @property
    def rate_hz(self) -> int:
        """Of the front end."""
        return self.front_end.sample_rate_hz

    def key(self, seconds: float) -> str:
        """See Heard."""
        return hash_of("log_mel", self.front_end.hash(), seconds)

    def note(self) -> dict[str, Any]:
        """See Heard; the recipe has the front end."""
        return {"name": self.name, "kind": self.feature.kind, "size": self.feature.size}

    def of(self, samples: FloatArray, seconds: float) -> FloatArray:
        """See Heard."""
        return heard(samples, self.front_end, seconds)


@dataclass(frozen=True)
class EmbeddingInput:
    """Vectors of a pretrained network, such as VGGish's 128 of every second."""

    name: str
    hearing: FrozenHearing

    @property
    def feature(self) -> AcousticFeature:
        """Vectors, each through a layer of its own."""
        return AcousticFeature("vectors", self.hearing.size)

    @property
    def rate_hz(self) -> int:
        """Of the network."""
        return self.hearing.rate_hz

    def key(self, seconds: float) -> str:
        """See Heard."""
        return hash_of("sound", self.hearing.fingerprint(), seconds)

    def note(self) -> dict[str, Any]:
        """See Heard."""
        return {
            "name": self.name,
            "kind": self.feature.kind,
            "size": self.feature.size,
            "origin": self.hearing.origin,
            "fingerprint": self.hearing.fingerprint(),
        }

    def of(self, samples: FloatArray, seconds: float) -> FloatArray:
        """See Heard."""
        return self.hearing.vectors(cut_or_pad(samples, round(seconds * self.rate_hz)))


def noted_feature(note: dict[str, Any]) -> AcousticFeature:
    """The feature that a run noted."""
    return AcousticFeature(str(note["kind"]), int(note["size"]))
