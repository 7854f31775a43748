"""`soundpost dataset`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from soundpost.device.command import Command
from soundpost.device.errors import InputError, UsageError
from soundpost.device.interrupt import interrupts_wait
from soundpost.train.datasets.clips_command import add_clips_arguments, run_clips
from soundpost.train.datasets.pictures_command import add_pictures_arguments, run_pictures
from soundpost.train.datasets.world_command import add_world_arguments, run_world

if TYPE_CHECKING:
    from soundpost.train.datasets.catalogue import Listing, Problem

SCHEMA: Final = "soundpost.dataset/1"
KIND_NAMES: Final = (
    *("audioset", "dcase2017", "dcase2018", "esc50", "scenes", "actions", "desed", "world"),
    "videos",
)
_NEEDS: Final[dict[str | None, tuple[Literal["audio", "video"], ...] | None]] = {
    None: None,
    "audio": ("audio",),
    "video": ("video",),
    "both": ("audio", "video"),
}

_DESCRIPTION = """\
Looks into a data set, in the layout it is published in.

check  lists all that is missing or broken: tables, labels, files, streams, lengths. Each line says
       where, what was found, what was expected and what to do. Ends with 0, or with 3 where there
       is anything to say.
show   prints how many clips and hours there are, by split and label.
clips  writes the sound of clips with one label as a folder of labelled clips, which the sensor's
       clip students learn from (soundpost train finetune), beside soft labels if there are any:
       those of the set (soundpost distil --kind KIND) are the folder's. Each split, or subject,
       becomes a fold.
world  makes a set in the layout of `actions`: sounds of labelled clips at places, heard by 128
       microphones and seen by a camera among them, in three scenarios.
pictures  makes pictures of single things of such a world, by name, in folders train/NAME and
       validation/NAME: what its visual backbone learns from (soundpost train pictures).

KIND is one of
  audioset   balanced_train_segments.csv and so on, class_labels_indices.csv
  dcase2017  task 4: training_set.csv, testing_set.csv, groundtruth_weak_label_*_set.csv
  dcase2018  task 4: metadata/train/weak.csv and so on
  esc50      meta/esc50.csv and audio/, or any folder with clips.csv
  scenes     TUT or TAU Urban Acoustic Scenes: meta.csv, evaluation_setup/, audio/
  actions    acoustic images: Location_01/Subject_01/Action_01/{MFCC_Image, audio, video}
  desed      metadata/train/synthetic.tsv and so on, audio/: DESED, or soundpost soundscapes
  world      actions with all that sounds in each take, as `soundpost dataset world` writes it
  videos     any video files, anywhere below DIR, that nobody labelled, cut into clips of up to 5 s

Sound and video of the first three are files of your own, anywhere below DIR (or --audio, --video),
named as usual: with or without Y in front, the video's id, and start and end in seconds or
milliseconds, such as Y-5QrBL6MzLg_60.000_70.000.wav. A video without a sound file has its own.

A world's SETTINGS is a TOML file, or the name of one of ours (small, full); changes to it stand
right behind. Its subjects hear clips of different authors and folds. Tables of what sounds when and
of the clips' authors lie beside its recordings. The same settings and clips give the same bytes; a
killed run goes on where it stopped when the same command is given again.

examples:
  soundpost dataset check dcase2017 dcase17
  soundpost dataset check dcase2017 dcase17 --need audio
  soundpost dataset check audioset tables --video videos --whole-videos
  soundpost dataset check actions perez2020 --thorough
  soundpost dataset check dcase2018 dcase18 --against audioset audioset
  soundpost dataset show scenes TUT-urban-acoustic-scenes-2018-development
  soundpost dataset show dcase2017 dcase17 --json
  soundpost dataset clips scenes TUT-urban-acoustic-scenes-2018-development --out clips
  soundpost dataset world small --data esc50 --plan
  soundpost dataset world small --data esc50 --out world --workers 2
  soundpost dataset show world world
  soundpost dataset pictures --out pictures
  soundpost dataset world small takes=2 objects.hidden_share=0.2 --data esc50 --out hard
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="check|show|clips|world|pictures"
    )
    check = actions.add_parser("check", help="list all that is missing or broken")
    show = actions.add_parser("show", help="print clips and hours by split and label")
    clips = actions.add_parser("clips", help="write its sound as a folder of labelled clips")
    for each in (check, show, clips):
        each.add_argument("kind", metavar="KIND", choices=KIND_NAMES, help=", ".join(KIND_NAMES))
        each.add_argument("folder", metavar="DIR", type=Path, help="the set's folder")
        each.add_argument("--audio", type=Path, metavar="DIR", help="sound files, if elsewhere")
        each.add_argument("--video", type=Path, metavar="DIR", help="video files, if elsewhere")
        each.add_argument(
            "--whole-videos",
            action="store_true",
            help="files without times in their name are whole videos, not cut to the segment",
        )
        each.add_argument("--json", action="store_true", help="print JSON")
    check.add_argument(
        "--need",
        choices=("audio", "video", "both"),
        help="what every clip must have (default: what it has as published)",
    )
    check.add_argument(
        "--thorough", action="store_true", help="decode every file to its end; takes long"
    )
    check.add_argument(
        "--against",
        nargs=2,
        metavar=("KIND", "DIR"),
        help="list classes that another set names differently too",
    )
    check.add_argument("--quiet", action="store_true", help="no progress bar")
    add_clips_arguments(clips)
    add_world_arguments(actions.add_parser("world", help="make a world that is seen and heard"))
    add_pictures_arguments(actions.add_parser("pictures", help="make pictures of its things"))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.action == "world":
        return run_world(arguments)
    if arguments.action == "pictures":
        return run_pictures(arguments)
    if arguments.action == "clips":
        return run_clips(arguments)
    with interrupts_wait():
        from soundpost.train.datasets.kinds import check_set, compare_sets, read_set
        from soundpost.train.datasets.segments import Folders

    folders = Folders(arguments.folder, arguments.audio, arguments.video, arguments.whole_videos)
    if arguments.action == "show":
        return _show(arguments, read_set(arguments.kind, folders))
    if arguments.against is not None and arguments.against[0] not in KIND_NAMES:
        raise UsageError(
            f"--against {arguments.against[0]}: expected one of {', '.join(KIND_NAMES)}"
        )
    media, problems = check_set(
        arguments.kind,
        folders,
        _NEEDS[arguments.need],
        thorough=arguments.thorough,
        quiet=arguments.quiet or not sys.stderr.isatty(),
    )
    if arguments.against is not None:
        kind, folder = arguments.against
        problems += compare_sets(read_set(kind, Folders(Path(folder))).media, media)
    return _report(arguments, len(media.clips), problems)


def _report(arguments: argparse.Namespace, n_clips: int, problems: Sequence[Problem]) -> int:
    if arguments.json:
        table = {
            "schema": SCHEMA,
            "kind": arguments.kind,
            "folder": str(arguments.folder),
            "clips": n_clips,
            "problems": [asdict(problem) for problem in problems],
        }
        print(json.dumps(table, ensure_ascii=False))
    else:
        for problem in problems:
            print(problem.line())
        print(
            f"problems: {len(problems)}, clips: {n_clips}"
            if problems
            else f"{arguments.folder}: in order, {n_clips} clips"
        )
    return InputError.exit_code if problems else 0


def _show(arguments: argparse.Namespace, listing: Listing) -> int:
    media = listing.media
    counts, seconds = media.counts(), media.seconds()
    splits: dict[str, dict[str, Any]] = {}
    for split in media.splits():
        clips = media.of(split).clips
        splits[split] = {
            "clips": len(clips),
            "seconds": seconds[split],
            "audio": sum(clip.has("audio") for clip in clips),
            "video": sum(clip.has("video") for clip in clips),
            "labels": {label: counts[split][label] for label in media.labels},
        }
    if arguments.json:
        table = {
            "schema": SCHEMA,
            "kind": arguments.kind,
            "folder": str(arguments.folder),
            "splits": splits,
            "problems": len(listing.problems),
        }
        print(json.dumps(table, ensure_ascii=False))
        return 0
    width = max(map(len, ("label", *splits, *media.labels)))
    print(f"{'split':<{width}} {'clips':>8} {'hours':>8} {'sound':>8} {'video':>8}")
    for split, row in splits.items():
        hours = "unknown" if row["seconds"] is None else f"{row['seconds'] / 3600:.2f}"
        print(f"{split:<{width}} {row['clips']:>8} {hours:>8} {row['audio']:>8} {row['video']:>8}")
    columns = {split: max(8, len(split)) for split in splits}
    print(f"\n{'label':<{width}} " + " ".join(f"{split:>{n}}" for split, n in columns.items()))
    for label in media.labels:
        cells = (f"{counts[split][label]:>{n}}" for split, n in columns.items())
        print(f"{label:<{width}} " + " ".join(cells))
    if listing.problems:
        print(
            f"\nproblems in the tables: {len(listing.problems)}; to list them: "
            f"soundpost dataset check {arguments.kind} {arguments.folder}"
        )
    return 0


COMMAND = Command(
    "look into a data set: what is there, missing, broken; or make one",
    _DESCRIPTION,
    _add_arguments,
    _run,
)
