"""`soundpost collect`: hard examples of sensors into a folder that a person labels."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from soundpost.device.broker_options import BROKER_OPTIONS, add_broker_options, broker_settings
from soundpost.device.command import Command
from soundpost.device.errors import InputError, RefusedError, UsageError
from soundpost.device.feedback.collected_set import CollectedSet
from soundpost.device.feedback.collecting import Collected, collect_folder, collect_sensor
from soundpost.device.feedback.review_page import PAGE, write_review_page
from soundpost.device.feedback.sensor_link import NoAnswerError, SensorLink, find_sensors
from soundpost.device.topics import DEFAULT_BASE_TOPIC, Topics

EXIT_TIMEOUT = 124  # as timeout(1) has it

_DESCRIPTION = f"""\
Gathers what sensors were unsure of into a folder of clips, in which a person labels them and from
which `soundpost train` learns. The sensors' settings must say so:

  [feedback]
  enabled = true                     # seconds of sound are kept: ask those who may be heard
  [commands]
  enabled = true                     # for collecting over MQTT
  allow = ["feedback"]               # without: all

DATASET then holds clips.csv with a row for each clip: why it was chosen, and what the model thought
(`suggested`). Open {PAGE} in it to listen and label, and put the file that it saves in the place of
clips.csv; or fill the column `label` in any editor. Rows without a label are not trained with. What
you wrote is never changed, and what is there is not fetched again. Features, where a sensor keeps
those, go into features.csv; training does not read them.

Whoever may read the topics cmd/feedback/result of the broker sees what is collected over it: let
only yourself (access lists), and encrypt (--tls). Or copy the folder `feedback` of the sensor's
state, /var/lib/soundpost/feedback of the service.

examples:
  soundpost collect --host broker.local --device porch-pi --out examples
  soundpost collect --host broker.local --device 'porch-*' --device yard --out examples --delete
  soundpost collect copied/porch-pi copied/yard --out examples
  soundpost train finetune --data examples --out runs/mine --init starter

exit codes:
  0    done, or nothing is new
  2    an option is wrong
  3    a file or folder cannot be used, or an example does not match its hash
  4    the broker is absent or refused us
  8    a sensor does not obey, and says why
  {EXIT_TIMEOUT}  a sensor does not answer: it is away, or its commands are off
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="sensors' folders of feedback"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DATASET", help="folder of clips"
    )
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="ID",
        help="ask this sensor over MQTT, or those online that match a pattern with * or ?; may be "
        "repeated",
    )
    parser.add_argument(
        "--delete", action="store_true", help="let sensors delete what has arrived here"
    )
    parser.add_argument("--timeout", type=float, default=15.0, metavar="S", help="for an answer")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "--base",
        default=DEFAULT_BASE_TOPIC,
        metavar="TOPIC",
        help="levels of the topics before the device (default: %(default)s)",
    )
    add_broker_options(parser)


def _run(arguments: argparse.Namespace) -> int:
    folders, devices = arguments.folders, arguments.device
    if bool(folders) == bool(devices):
        raise UsageError("give either folders of feedback, or --device for sensors of a broker")
    if folders:
        given = [name for name in BROKER_OPTIONS if getattr(arguments, name) not in (None, False)]
        if given or arguments.delete:
            name = given[0].replace("_", "-") if given else "delete"
            raise UsageError(f"--{name}: is for sensors of a broker, not for folders")
    if not 0 < arguments.timeout < float("inf"):
        raise UsageError(f"--timeout {arguments.timeout:g}: expected more than 0 s")
    into = CollectedSet(arguments.out)
    try:
        code = _from_folders(folders, into) if folders else _from_sensors(arguments, into)
    finally:
        # Also of what came before a fault.
        into.save()
        write_review_page(into)
    rows = into.rows()
    open_rows = sum(not row["label"].strip() and not row.get("review") for row in rows)
    print(f"{into.folder}: {len(rows)} clips, {open_rows} to label; open {into.folder / PAGE}")
    return code


def _from_folders(folders: list[Path], into: CollectedSet) -> int:
    code = 0
    for folder in folders:
        done = collect_folder(folder, into)
        print(f"{folder}: {_summary(done)}")
        code = code or (InputError.exit_code if done.left_out else 0)
    return code


def _from_sensors(arguments: argparse.Namespace, into: CollectedSet) -> int:
    broker = broker_settings(arguments)
    devices = find_sensors(broker, arguments.base, arguments.device)
    if not devices:
        print(f"no sensor is online that matches {', '.join(arguments.device)}", file=sys.stderr)
        return EXIT_TIMEOUT
    code = 0
    for device in devices:
        topics = Topics(arguments.base, device)
        with tqdm(
            desc=device, unit="B", unit_scale=True, disable=arguments.quiet or None, leave=False
        ) as bar:

            def expect(n_bytes: int, bar: tqdm = bar) -> None:
                bar.reset(total=n_bytes)

            try:
                with SensorLink(broker, topics, arguments.timeout) as sensor:
                    done = collect_sensor(
                        sensor, into, delete=arguments.delete, expect=expect, told=bar.update
                    )
            except NoAnswerError as error:
                failed, line = EXIT_TIMEOUT, str(error)
            except (RefusedError, InputError) as error:
                failed, line = error.exit_code, str(error)
            else:
                failed, line = InputError.exit_code if done.left_out else 0, ""
        if line:
            # The others are asked nevertheless.
            print(line, file=sys.stderr)
        else:
            print(f"{device}: {_summary(done)}")
        code = code or failed
    return code


def _summary(done: Collected) -> str:
    left_out = f", {done.left_out} left out" if done.left_out else ""
    return f"{done.new} new, {done.known} known{left_out}"


COMMAND = Command(
    summary="gather what sensors were unsure of, to be labelled",
    description=_DESCRIPTION,
    add_arguments=_add_arguments,
    run=_run,
    intermixed=True,
)
