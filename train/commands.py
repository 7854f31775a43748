"""`soundpost train` and `soundpost evaluate`.

torch is imported when a command runs, not when `soundpost --help` lists it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from soundpost.device.command import Command
from soundpost.device.errors import UsageError
from soundpost.device.interpreter import RUNTIME_CHOICES
from soundpost.device.interrupt import interrupts_wait
from soundpost.train.ours import path_of_ours

if TYPE_CHECKING:
    from soundpost.train.kinds import Outcome

_TRAIN = """\
Trains a student on a folder of labelled clips.

RECIPE is a TOML file, or the name of one of ours. For starter, starter_second and finetune, DIR
holds clips.csv with the columns filename,label,fold (and, if you have them, group,licence,
attribution), or ESC-50 as published. For those that learn when events begin and end (mean_teacher,
guided, pts and what stands on it, full being all of it), DIR is laid out as DESED is, such as
`soundpost soundscapes` writes; streaming, the sensor's student of that kind, learns from such a run
as well. For yin2021 and its rows (yin2021_plain, yin2021_fusion and so on) and li2018, which learn
from sound and video, DIR holds a data set's tables as published: set data.kind and the splits
(soundpost dataset --help lists the layouts). For perez2020_dualcamnet, perez2020_hearnet and so on,
DIR holds acoustic images, sound and pictures in the layout of `actions`. A killed run goes on where
it stopped when the same command is given again.

examples:
  soundpost train starter --data clips --out runs/first
  soundpost train starter --data clips --out runs/fold1 --fold 1
  soundpost train finetune --data my_clips --out runs/mine --init starter
  soundpost train my.toml --data clips --out runs/short training.epochs=20 model.width=0.5
  soundpost train full --data scenes --out runs/full training.seed=1
  soundpost train streaming --data scenes --teacher runs/full --out runs/streaming
  soundpost train yin2021 --data dcase17 --out runs/yin visual.file=vgg16-397923af.pth
  soundpost train li2018 --data dcase17 --out runs/li visual.word_vectors=glove.840B.300d.txt
  soundpost train perez2020_hearnet_dualcamnet --data actions --teacher runs/dcn --out runs/hear
  soundpost train finetune --data my_clips --out runs/taught --init starter --soft-labels soft

RUN then holds settings.json, metrics.jsonl (one line per epoch), model.safetensors, pictures and
report.md. Next: soundpost export RUN --out my.bundle
"""

_EVALUATE = """\
Judges a run folder (float) or a bundle (as the sensor runs it) on labelled clips, or on recordings
with the times of their events. A clip's score is the mean over its windows, 250 ms apart.

With DIR in DESED's layout the model is one that tells when sounds begin and end: a run of a
detection recipe, decided as published, or of streaming, or a bundle of kind frames, decided as the
sensor does. An event counts where its onset lies within 200 ms, its offset within 200 ms or 20 %.

examples:
  soundpost evaluate runs/first --data clips --fold 5
  soundpost evaluate my.bundle --data clips --fold 5 --json
  soundpost evaluate my.bundle --data clips --runtime tflite-runtime
  soundpost evaluate runs/full --data scenes
  soundpost evaluate runs/full --data scenes --chosen
  soundpost evaluate streaming.bundle --data scenes --part validation
  soundpost evaluate streaming.bundle --data dcase2019 --lengths fit --overlaps merge

Runs of yin2021 and its rows are judged on the clips that their recipes call test or validation; of
several runs (three seeds, as published) the scores are averaged. Of a run of li2018 sound, pictures
and both together are judged, with the thresholds that it chose.

  soundpost evaluate runs/yin0 runs/yin1 runs/yin2 --data dcase17
"""


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="TOML file, or the name of one of ours")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="changes to the recipe")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled clips")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="run folder")
    parser.add_argument("--fold", type=int, metavar="K", help="hold this fold out and judge on it")
    parser.add_argument(
        "--init", metavar="FROM", help="'starter', a run folder or model.safetensors"
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="RUN",
        help="for streaming, and for students of perez2020: the run that they learn from; for rows "
        "of yin2021 whose teacher learns first: a run of yin2021_fusion, which then need not be "
        "trained again",
    )
    parser.add_argument(
        "--soft-labels",
        type=Path,
        action="append",
        default=[],
        metavar="STORE",
        help="for clip students: learn also from what `soundpost distil` wrote; several are "
        "averaged",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads (default: one per core)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _train(arguments: argparse.Namespace) -> int:
    with interrupts_wait():
        import torch

        from soundpost.train.kinds import kind_named
        from soundpost.train.recipe import kind_of, read_tables

    threads = arguments.threads or len(os.sched_getaffinity(0))
    if threads < 1:
        raise UsageError(f"--threads {threads}: expected 1 or more")
    torch.set_num_threads(threads)
    path = path_of_ours(arguments.recipe, "soundpost.train.recipes", "recipe")
    name = kind_of(read_tables(path, arguments.changes))
    with interrupts_wait():
        kind = kind_named(name, path.stem)
    kind.check_options(arguments, path.stem)
    return _tell(kind.train(arguments, path), arguments.json)


def _tell(outcome: Outcome, as_json: bool) -> int:
    print(json.dumps(outcome.table) if as_json else "\n".join(outcome.lines))
    return 0


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", type=Path, nargs="+", metavar="RUN|BUNDLE", help="one, or several runs of yin2021"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled clips")
    parser.add_argument("--audio", default="", metavar="DIR", help="sound of yin2021, if elsewhere")
    parser.add_argument("--video", default="", metavar="DIR", help="video of yin2021, if elsewhere")
    parser.add_argument(
        "--weights",
        default="",
        metavar="FILE",
        help="of the visual network of a run of yin2021 that looks; of li2018's two, their folder",
    )
    parser.add_argument("--fold", type=int, metavar="K", help="clips of this fold only")
    parser.add_argument(
        "--part",
        choices=("test", "validation"),
        help="of recordings with times, or of yin2021's clips (default: test)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        metavar="S",
        help="length of recordings with times, for a bundle (default: 10)",
    )
    for name, others in (("lengths", "fit"), ("overlaps", "merge"), ("missing", "skip")):
        parser.add_argument(
            f"--{name}",
            choices=("refuse", others),
            help=f"as reading.{name} of a recipe, for recordings with times (default: the run's)",
        )
    parser.add_argument(
        "--chosen",
        action="store_true",
        help="decide a run of guided, full and the like with the thresholds that it chose on "
        "validation",
    )
    parser.add_argument(
        "--runtime",
        default="auto",
        help=f"for a bundle: {', '.join(RUNTIME_CHOICES)}",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _evaluate(arguments: argparse.Namespace) -> int:
    with interrupts_wait():
        from soundpost.train.kinds import kind_of_run
        from soundpost.train.run import schema_of

        first = arguments.models[0]
        kind = kind_of_run(schema_of(first))
    arguments.quiet = arguments.quiet or not sys.stderr.isatty()
    if kind is not None and kind.evaluate is not None:
        return _tell(kind.evaluate(arguments), arguments.json)
    with interrupts_wait():
        from soundpost.train.clip_kind import evaluate_clips
        from soundpost.train.sed.evaluate import is_scene_model
        from soundpost.train.sed.scene_kinds import evaluate_scene_model

    # A bundle; the data set tells of which kind, or the bundle itself will.
    judge = evaluate_scene_model if is_scene_model(first, arguments.data) else evaluate_clips
    return _tell(judge(arguments), arguments.json)


TRAIN = Command("train a student on labelled clips", _TRAIN, _add_train, _train, intermixed=True)
EVALUATE = Command("judge a run or a bundle on labelled clips", _EVALUATE, _add_evaluate, _evaluate)
