"""The file of an example, and the record that tells of it."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import soxr

from soundpost.device.clip_ring import FULL_SCALE
from soundpost.device.clips import encode_flac
from soundpost.device.features import log_mel
from soundpost.device.feedback.example import Example
from soundpost.device.feedback.feedback_settings import What
from soundpost.device.feedback.stream_ear import HeardSpan
from soundpost.device.identifiers import uuid7


def example_content(span: HeardSpan, what: What) -> bytes:
    """A FLAC file of the span, or an npz of what its model hears in it.

    The npz holds log_mel (n_frames, n_mels) float32 and front_end, its parameters as JSON.
    """
    sound = span.sound[span.first : span.first + span.n_samples]
    if what == "clips":
        return encode_flac(sound[:, None], span.rate_hz, span.rate_hz)
    front_end = span.front_end
    mono = sound / np.float32(FULL_SCALE)
    if span.rate_hz != front_end.sample_rate_hz:
        mono = soxr.resample(mono, span.rate_hz, front_end.sample_rate_hz)
    content = io.BytesIO()
    np.savez_compressed(
        content,
        log_mel=log_mel(mono, front_end),
        front_end=np.array(json.dumps(front_end.to_dict())),
    )
    return content.getvalue()


def example_of(span: HeardSpan, device_id: str, what: What, content: bytes, seen: int) -> Example:
    """The record of a span; content : as `example_content` gives it; seen : see Example."""
    candidate = span.candidate
    return Example(
        id=uuid7(),
        device=device_id,
        source=span.source,
        time=span.time,
        time_synced=span.time_synced,
        stream=span.stream,
        sample=span.sample,
        rate_hz=span.rate_hz,
        length_s=round(span.n_samples / span.rate_hz, 6),
        label=candidate.label,
        reason=candidate.reason,
        score=round(candidate.score, 6),
        threshold=candidate.threshold,
        new_score=None if candidate.new_score is None else round(candidate.new_score, 6),
        top=candidate.top,
        model=span.model,
        what=what,
        n_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        seen=seen,
    )
