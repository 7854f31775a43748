"""A look into the files of an acoustic-image action set: shapes, keys, pictures, damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from soundpost.train.datasets.acoustic_actions import ActionRecording, ActionSet
from soundpost.train.datasets.action_files import (
    block_name,
    image_name,
    picture_name,
    read_block,
    read_image,
    read_picture,
)
from soundpost.train.datasets.catalogue import Problem, ProblemError


def check_action_files(
    actions: ActionSet, *, thorough: bool = False, quiet: bool = False
) -> list[Problem]:
    """Files that cannot be used, and pictures of another size than the recording's first.

    thorough : look at every frame; else at the first and the last of each recording

    What is missing is found by read_actions.
    """
    problems: list[Problem] = []
    bar = tqdm(actions.recordings, "checking", unit="recording", disable=quiet, leave=False)
    for recording in bar:
        n = recording.n_frames
        numbers = range(1, n + 1) if thorough else sorted({1, n} - {0})
        size: tuple[int, ...] | None = None
        for number in numbers:
            for path, read in _files(recording, number, actions.settings.n_microphones):
                try:
                    shape = read(path)
                except ProblemError as error:
                    problems.append(error.problem)
                    continue
                if path.name == picture_name(number):
                    size = size or shape
                    if shape != size:
                        problems.append(_other_size(path, shape, size))
    return problems


def _files(
    recording: ActionRecording, number: int, n_microphones: int
) -> Iterator[tuple[Path, Callable[[Path], tuple[int, ...]]]]:
    if recording.images is not None:
        yield recording.images / image_name(number), lambda path: read_image(path).shape
    if recording.audio is not None:
        yield (
            recording.audio / block_name(number),
            lambda path: read_block(path, n_microphones).shape,
        )
    if recording.video is not None:
        yield recording.video / picture_name(number), lambda path: read_picture(path).shape[:2]


def _other_size(path: Path, found: tuple[int, ...], expected: tuple[int, ...]) -> Problem:
    return Problem(
        str(path),
        f"is {found[0]} x {found[1]} pixels",
        f"{expected[0]} x {expected[1]}, as the recording's first",
        "copy it again",
    )
