"""A look at every file of a set: is it there, can it be read, does it hold what the tables say."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from tqdm import tqdm

from soundpost.train.datasets.catalogue import MediaClip, MediaSet, Medium, Problem, ProblemError
from soundpost.train.datasets.media import SLACK_S, MediaInfo, count_decoded, probe

# Cut files are up to this much longer or shorter than their segment, by the program that cut them.
_LENGTH_SLACK_S = 1.0
# Containers count pictures to within the first and the last; past this share some are missing.
_FRAME_SHARE = 0.02
_NAMES = {"audio": "sound", "video": "video"}


def check_media(
    media: MediaSet,
    needs: Collection[Medium] = ("audio", "video"),
    *,
    thorough: bool = False,
    quiet: bool = False,
) -> list[Problem]:
    """All that is wrong with the files of a set's clips.

    Parameters
    ----------
    needs : what every clip must have; what else it has is looked at too
    thorough : decode every file to its end, which finds damage in the middle and pictures that are
        missing; else only what the containers say of themselves is looked at
    """
    looked: dict[Path, MediaInfo | None] = {}
    problems: list[Problem] = []
    for clip in tqdm(media.clips, "checking", unit="clip", disable=quiet, leave=False):
        for medium in ("audio", "video"):
            if medium in needs and not clip.has(medium):
                problems.append(_absent(clip, media, medium))
        for path in dict.fromkeys(path for path in (clip.audio, clip.video) if path is not None):
            first = path not in looked
            if first:
                looked[path] = _info(path, problems)
            info = looked[path]
            if info is None:
                continue
            if first and thorough:
                problems += _decode(path, info)
            problems += _streams(clip, path, info)
            problems += _length(clip, path, info)
    return problems


def _absent(clip: MediaClip, media: MediaSet, medium: Medium) -> Problem:
    name = _NAMES[medium]
    return Problem(
        clip.source or str(media.folder),
        f"{clip.id} has no {name}",
        f"a {name} file of it in {media.folder}"
        + (", or sound in its video" if medium == "audio" and not clip.has("video") else ""),
        "add the file, or train on the clips that have all they need",
    )


def _info(path: Path, problems: list[Problem]) -> MediaInfo | None:
    try:
        return probe(path)
    except ProblemError as error:
        problems.append(error.problem)
        return None


def _streams(clip: MediaClip, path: Path, info: MediaInfo) -> Iterator[Problem]:
    for medium, wanted, there in (
        ("sound", clip.audio, info.rate_hz is not None),
        ("video", clip.video, info.size is not None),
    ):
        if wanted == path and not there:
            yield Problem(
                str(path),
                f"has no {medium} stream",
                f"{medium} for {clip.id}",
                "download it again, or take the clip out",
            )


def _length(clip: MediaClip, path: Path, info: MediaInfo) -> Iterator[Problem]:
    if info.seconds is None:
        return
    if clip.end_s is not None:
        if clip.end_s > info.seconds + SLACK_S:
            yield Problem(
                str(path),
                f"is {info.seconds:.2f} s long",
                f"at least {clip.end_s:g} s, where {clip.id} ends",
                "download the whole video",
            )
    elif clip.seconds is not None and abs(info.seconds - clip.seconds) > _LENGTH_SLACK_S:
        longer = info.seconds > clip.seconds
        yield Problem(
            str(path),
            f"is {info.seconds:.2f} s long",
            f"{clip.seconds:g} s, the length of {clip.id}",
            "cut it, or say that the files are whole videos (--whole-videos)"
            if longer
            else "download it again, or take the clip out",
        )


def _decode(path: Path, info: MediaInfo) -> Iterator[Problem]:
    try:
        n_frames, seconds = count_decoded(path)
    except ProblemError as error:
        yield error.problem
        return
    if info.size is not None:
        expected = info.n_frames or round((info.seconds or 0.0) * (info.frame_rate or 0.0))
        if abs(n_frames - expected) > max(2, _FRAME_SHARE * expected):
            yield Problem(
                str(path),
                f"holds {n_frames} pictures",
                f"the {expected} that its container promises",
                "copy or download it again",
            )
    promised_s = info.seconds
    if info.rate_hz is not None and promised_s is not None and seconds < promised_s - SLACK_S:
        yield Problem(
            str(path),
            f"holds {seconds:.2f} s of sound",
            f"the {promised_s:.2f} s that its container promises",
            "copy or download it again",
        )
