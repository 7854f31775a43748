"""From sensors and folders of theirs into a CollectedSet: what is new, whole, and once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from soundpost.device.errors import InputError, RefusedError
from soundpost.device.feedback.collected_set import CollectedSet, check_content
from soundpost.device.feedback.example import (
    MAX_EXAMPLE_BYTES,
    MAX_EXAMPLE_RECORD_BYTES,
    Example,
)
from soundpost.device.feedback.sensor_link import SensorLink

logger = logging.getLogger(__name__)

# Rows are written after so many examples: a table of thousands is not written for each.
_SAVE_EVERY = 50


@dataclass
class Collected:
    """What came of one sensor or folder.

    new, known : examples that were taken, that were there before
    left_out : that did not match their hash, or were gone
    problems : one line for each of those
    """

    new: int = 0
    known: int = 0
    left_out: int = 0
    problems: tuple[str, ...] = ()

    def leave_out(self, why: str) -> None:
        """Count an example that could not be taken."""
        self.left_out += 1
        self.problems = (*self.problems, why)
        logger.warning("%s", why)


def examples_in(folder: Path) -> Iterable[tuple[Path, Example]]:
    """Records in a folder and those below, with their examples.

    Raises InputError where there are none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a sensor's folder of feedback")
    found = False
    for path in sorted(folder.rglob("*.json")):
        try:
            with path.open("rb") as file:
                example = Example.from_json(file.read(MAX_EXAMPLE_RECORD_BYTES + 1), str(path))
        except (OSError, InputError) as error:
            logger.info("%s is no example: %s", path, error)
            continue
        found = True
        yield path, example
    if not found:
        raise InputError(
            f"{folder}: holds no examples; give the folder feedback of a sensor's state, such as "
            "/var/lib/soundpost/feedback"
        )


def labels_in(folder: Path) -> list[str]:
    """Labels that the sensors of a folder know."""
    labels: list[str] = []
    for path in folder.rglob("labels.json"):
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        named = content.get("labels") if isinstance(content, dict) else None
        labels += [one for one in named or [] if isinstance(one, str)]
    return labels


def collect_folder(folder: Path, into: CollectedSet) -> Collected:
    """Take the examples of a folder that was copied or is mounted; nothing changes in it."""
    done = Collected()
    for path, example in examples_in(folder):
        if example.id in into:
            done.known += 1
            continue
        content_path = path.with_name(path.stem + Path(example.file).suffix)
        try:
            with content_path.open("rb") as file:
                into.add(example, file.read(MAX_EXAMPLE_BYTES + 1))
        except OSError as error:
            done.leave_out(f"{content_path}: cannot be read ({error.strerror}): it is left out")
        except InputError as error:
            # Of this file: what cannot be written is told when the rows are.
            done.leave_out(str(error))
        else:
            done.new += 1
    into.save(labels_in(folder))
    return done


def collect_sensor(
    sensor: SensorLink,
    into: CollectedSet,
    *,
    delete: bool = False,
    expect: Callable[[int], object] = lambda _: None,
    told: Callable[[int], object] = lambda _: None,
) -> Collected:
    """Take the examples of a sensor over MQTT; one that was broken off goes on where it stopped.

    delete : tell the sensor to delete what is safe here
    expect, told : called with the bytes that will come, and with those of each part

    Raises as SensorLink does; what came before is kept.
    """
    done = Collected()
    examples, labels = sensor.listing()
    wanted = [example for example in examples if example.id not in into]
    expect(sum(example.n_bytes for example in wanted))
    try:
        for example in examples:
            if example in wanted:
                try:
                    into.add(example, _whole(sensor, example, into, told))
                except (InputError, RefusedError) as error:
                    into.part(example).unlink(missing_ok=True)
                    done.leave_out(str(error))
                    continue
                done.new += 1
                if done.new % _SAVE_EVERY == 0:
                    into.save()
            else:
                done.known += 1
            if delete or not example.collected:
                sensor.done(example, delete=delete)
    finally:
        into.save(labels)
    return done


def _whole(
    sensor: SensorLink, example: Example, into: CollectedSet, told: Callable[[int], object]
) -> bytes:
    """All bytes of an example, those that an earlier attempt has left included."""
    path = into.part(example)
    try:
        offset = path.stat().st_size
    except OSError:
        offset = 0
    if offset > example.n_bytes:
        path.unlink()
        offset = 0
    told(offset)
    try:
        with path.open("ab") as file:
            for part in sensor.fetch(example, offset, told=told):
                file.write(part)
                file.flush()
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    check_content(example, content, f"example {example.id} of {example.device}")
    return content
