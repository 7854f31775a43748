"""`soundpost distil`: what a trained run says of the clips of a set, for students to learn from.

torch is imported when the command runs, not when `soundpost --help` lists it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from soundpost.device.command import Command
from soundpost.device.interrupt import interrupts_wait
from soundpost.train.datasets.command import KIND_NAMES
from soundpost.train.multimodal.machine_label_command import (
    add_machine_arguments,
    run_machine_labels,
    wants_machine_labels,
)

_DESCRIPTION = """\
Writes soft labels: what a trained run says of the clips of a data set, by clip id and seconds. A
student then learns from them beside its labels, and from several teachers' average.

RUN is a run of a clip student (starter, finetune ...), of yin2021 and its rows, perez2020, li2018
or jia2019. Of yin2021 and li2018, --network teacher takes what also sees, where there is one. KIND
is the layout of DIR (soundpost dataset --help lists them): esc50 for a folder with clips.csv, desed
for recordings that streaming learns from. A job that was stopped goes on when the same command is
given again.

Without RUN, labels by machine are made, as jia2019 has them: up to ten of what --seen-by sees, and
up to five of what --heard-by hears, with a threshold that leaves three on average.
Networks learn sound from them (soundpost train jia2019_mobilenet_v2); nobody need have labelled the
clips.

examples:
  soundpost distil runs/first --data clips --kind esc50 --out soft
  soundpost train finetune --data clips --out runs/taught --init starter --soft-labels soft
  soundpost distil runs/first --data scenes --kind desed --split train --out soft_scenes
  soundpost train streaming --data scenes --out runs/streaming --soft-labels soft_scenes
  soundpost distil runs/yin --data dcase17 --kind dcase2017 --network teacher --split training \\
      --out soft17 --weights vgg16-397923af.pth
  soundpost distil --seen-by resnet101 --seen-labels imagenet.txt --heard-by runs/first \\
      --data videos --kind videos --out labels
  soundpost distil --seen-by runs/eye --heard-by runs/yin --data world --kind world --split train \\
      --top-seen 3 --out labels --folds 0-2047
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="a finished run")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data set")
    parser.add_argument(
        "--kind", required=True, choices=KIND_NAMES, metavar="KIND", help=", ".join(KIND_NAMES)
    )
    parser.add_argument("--out", type=Path, required=True, metavar="STORE", help="of the labels")
    parser.add_argument(
        "--network",
        default="student",
        choices=("student", "teacher"),
        help="of a run of yin2021 and its rows, or of li2018 (default: student)",
    )
    parser.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME",
        help="of the data set; may be given several times (default: all)",
    )
    parser.add_argument("--audio", type=Path, metavar="DIR", help="sound files, if elsewhere")
    parser.add_argument("--video", type=Path, metavar="DIR", help="video files, if elsewhere")
    parser.add_argument(
        "--whole-videos",
        action="store_true",
        help="files without times in their name are whole videos, not cut to the segment",
    )
    parser.add_argument(
        "--weights", default="", metavar="FILE", help="of the visual network, where it looks"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_machine_arguments(parser)


def _run(arguments: argparse.Namespace) -> int:
    with interrupts_wait():
        from soundpost.train.datasets.segments import Folders
        from soundpost.train.multimodal.clip_media import read_media_set
        from soundpost.train.multimodal.soft_labelling import label_set, open_labeller
        from soundpost.train.run import choose_device

    by_machine = wants_machine_labels(arguments)
    quiet = arguments.quiet or not sys.stderr.isatty()
    device = choose_device(arguments.device)
    folders = Folders(arguments.data, arguments.audio, arguments.video, arguments.whole_videos)
    if by_machine:
        read = read_media_set(arguments.kind, folders, refuse=False)
        return run_machine_labels(arguments, read, device, quiet)
    labeller = open_labeller(
        arguments.run, arguments.network, device, weights=arguments.weights, quiet=quiet
    )
    # Labels of the set are not looked at, so that what is wrong with them does not matter here.
    read = read_media_set(arguments.kind, folders, refuse=False)
    done = label_set(labeller, read, arguments.out, arguments.split, quiet=quiet)
    if arguments.json:
        table = {
            "store": str(arguments.out),
            "teacher": labeller.teacher.name,
            "sha256": labeller.teacher.sha256,
            "labels": list(labeller.labels),
            "clips": done.n_clips,
            "new": done.n_new,
            "left_out": list(done.left_out),
        }
        print(json.dumps(table))
        return 0
    print(f"{arguments.out}: soft labels of {done.n_clips} clips, {done.n_new} of them new")
    if done.left_out:
        print(
            f"{len(done.left_out)} clips left out, the first {done.left_out[0]}: they lack "
            f"{' or '.join(labeller.needs)}"
        )
    print(
        f"next: soundpost train finetune --data DIR --out RUN --init starter --soft-labels "
        f"{arguments.out}"
    )
    return 0


COMMAND = Command(
    "let a trained run say what it hears, for students", _DESCRIPTION, _add_arguments, _run
)
