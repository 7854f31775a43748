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
from soundpost.train.datasets.command import KIND_NAMES
from soundpost.train.ours import path_of_ours

if TYPE_CHECKING:
    from soundpost.train.evaluate_options import Judge
    from soundpost.train.kinds import Outcome

_TRAIN = """\
Trains a student on a folder of labelled clips.

RECIPE is a TOML file, or the name of one of ours. For starter, starter_second and finetune, DIR
holds clips.csv with the columns filename,label,fold (and, if you have them, group,licence,
attribution), or ESC-50 as published. For those that learn when events begin and end (mean_teacher,
guided, pts and what stands on it, full being all of it), DIR is laid out as DESED is, such as
`soundpost soundscapes` writes; streaming, the sensor's student of that kind, learns from such a run
as well, or from soft labels of the recordings. For yin2021 and its rows (yin2021_plain,
yin2021_fusion and so on) and li2018, which learn from sound and video, DIR holds a data set's
tables as published: set data.kind and the splits (soundpost dataset --help lists the layouts). With
yin2021_mobilenet_v2 and yin2021_streaming the student is the sensor's own network, learns together
with the teacher that sees (or by another method) and is exported as it is. For
perez2020_dualcamnet, perez2020_hearnet and so on, DIR holds acoustic images, sound and pictures in
the layout of `actions`. jia2019_mobilenet_v2 and the like learn from labels by machine (soundpost
distil --seen-by ... --heard-by ...), which data.labels names; jia2019_esc50 and the like put a
classifier on such a run's embeddings (--init RUN), and jia2019_esc50_scratch learns the same
network from the labels of DIR alone. A killed run goes on where it stopped when the same command is
given again.

Clip students learn from teachers too: from what `soundpost distil` wrote (--soft-labels), or from
larger networks, such as a run of esc50_teacher, that hear each window as the student does, mixed
and masked (--live-teacher).

examples:
  soundpost train starter --data clips --out runs/first
  soundpost train starter --data clips --out runs/fold1 --fold 1
  soundpost train finetune --data my_clips --out runs/mine --init starter
  soundpost train my.toml --data clips --out runs/short training.epochs=20 model.width=0.5
  soundpost train full --data scenes --out runs/full training.seed=1
  soundpost train streaming --data scenes --teacher runs/full --out runs/streaming
  soundpost train streaming --data scenes --soft-labels soft --out runs/streaming
  soundpost train yin2021 --data dcase17 --out runs/yin visual.file=vgg16-397923af.pth
  soundpost train yin2021_mobilenet_v2 --data dcase17 --out runs/yin_device --init starter
  soundpost train li2018 --data dcase17 --out runs/li visual.word_vectors=glove.840B.300d.txt
  soundpost train perez2020_hearnet_dualcamnet --data actions --teacher runs/dcn --out runs/hear
  soundpost train finetune --data my_clips --out runs/taught --init starter --soft-labels soft
  soundpost train jia2019_mobilenet_v2 --data videos --out runs/jia data.labels=labels
  soundpost train jia2019_esc50 --data esc50 --init runs/jia --out runs/esc50_1 --fold 1
  soundpost train finetune --data my_clips --init runs/jia --out runs/mine
  soundpost train esc50_taught --data clips --out runs/taught --live-teacher runs/teacher

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

Runs of yin2021 and its rows, and of jia2019's transfers, are judged on the clips that they held out
as test or validation; of several runs (three seeds, as published) the scores are averaged. Of a
run of li2018 sound, pictures and both together are judged, with the thresholds that it chose.

  soundpost evaluate runs/yin0 runs/yin1 runs/yin2 --data dcase17
  soundpost evaluate runs/esc50_1 --data esc50

A bundle is judged in the same way, by mAP of clips with several labels, where --kind tells the
layout of DIR (soundpost dataset --help lists them).

  soundpost evaluate yin.bundle --data dcase17 --kind dcase2017 --split evaluation

Runs of perez2020 are judged on what their recipes hold out, in the scenario of training and in the
others. Of several runs (scenarios, seeds, networks) there is a table beside the published figures;
without --data it has the figures that the runs wrote. --layers judges what each layer of a student
is worth on another labelled set, by k-NN and SVM.

  soundpost evaluate runs/hear --data actions
  soundpost evaluate runs/hear_1 runs/hear_2 runs/taught_1 runs/taught_2 --out table
  soundpost evaluate runs/hear --layers --data dcase18 --kind scenes --out table
"""


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="TOML file, or the name of one of ours")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="changes to the recipe")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled clips")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="run folder")
    parser.add_argument("--fold", type=int, metavar="K", help="hold this fold out and judge on it")
    parser.add_argument(
        "--init",
        metavar="FROM",
        help="what a clip student, a student of yin2021_mobilenet_v2 or a row of jia2019 starts "
        "from: a run folder or model.safetensors, for the former two also 'starter'",
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
        help="for clip students and streaming: learn from what `soundpost distil` wrote, beside "
        "the labels; several are averaged",
    )
    parser.add_argument(
        "--live-teacher",
        type=Path,
        action="append",
        default=[],
        metavar="RUN",
        help="for clip students: learn also from what this run of clips hears in each window that "
        "the student hears; several are averaged",
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
        "models",
        type=Path,
        nargs="+",
        metavar="RUN|BUNDLE",
        help="one, or several runs of yin2021 or of perez2020",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="labelled clips; runs of perez2020 do without"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="also write the table, of runs of perez2020"
    )
    parser.add_argument(
        "--layers", action="store_true", help="judge the layers of a student of perez2020"
    )
    parser.add_argument(
        "--kind",
        choices=KIND_NAMES,
        metavar="KIND",
        help="layout of DIR, for --layers, and to judge a bundle on tags as runs of yin2021 are: "
        f"{', '.join(KIND_NAMES)}",
    )
    parser.add_argument("--audio", default="", metavar="DIR", help="sound of yin2021, if elsewhere")
    parser.add_argument("--video", default="", metavar="DIR", help="video of yin2021, if elsewhere")
    parser.add_argument(
        "--weights",
        default="",
        metavar="FILE",
        help="of a run's visual network, where it looks; of li2018's two, their folder",
    )
    parser.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME",
        help="of DIR, for a bundle and --kind; may be given several times (default: all)",
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
    arguments.quiet = arguments.quiet or not sys.stderr.isatty()
    with interrupts_wait():
        judge = _judge_of(arguments)
    return _tell(judge(arguments), arguments.json)


def _judge_of(arguments: argparse.Namespace) -> Judge:
    from soundpost.train.kinds import kind_of_run
    from soundpost.train.run import schema_of

    first = arguments.models[0]
    kind = kind_of_run(schema_of(first))
    if kind is not None:
        if kind.evaluate is None:
            raise UsageError(
                f"{first}: runs of this kind are not judged on clips; its report.md says what it "
                "reached"
            )
        return kind.evaluate
    if arguments.kind is not None and not first.is_dir():
        from soundpost.train.multimodal.tagging_kind import BUNDLES

        return BUNDLES
    from soundpost.train import clip_kind
    from soundpost.train.sed import scene_kinds
    from soundpost.train.sed.evaluate import is_scene_model

    # A bundle; the data set tells of which kind, or the bundle itself will.
    of_scenes = arguments.data is not None and is_scene_model(first, arguments.data)
    return scene_kinds.JUDGE if of_scenes else clip_kind.JUDGE


TRAIN = Command("train a student on labelled clips", _TRAIN, _add_train, _train, intermixed=True)
EVALUATE = Command("judge a run or a bundle on labelled clips", _EVALUATE, _add_evaluate, _evaluate)
