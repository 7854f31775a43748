"""`soundpost train` and `soundpost evaluate`.

torch is imported when a command runs, not when `soundpost --help` lists it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from soundpost.device.command import Command
from soundpost.device.errors import UsageError
from soundpost.device.interpreter import RUNTIME_CHOICES
from soundpost.device.interrupt import interrupts_wait
from soundpost.train.ours import path_of_ours

_TRAIN = """\
Trains a student on a folder of labelled clips.

RECIPE is a TOML file, or the name of one of ours. For starter, starter_second and finetune, DIR
holds clips.csv with the columns filename,label,fold (and, if you have them, group,licence,
attribution), or ESC-50 as published. For those that learn when events begin and end (mean_teacher,
guided, pts and what stands on it, full being all of it), DIR is laid out as DESED is, such as
`soundpost soundscapes` writes; streaming, the sensor's student of that kind, learns from such a run
as well. For yin2021 and its rows (yin2021_plain, yin2021_fusion and so on), which learn from sound
and video, DIR holds a data set's tables as published: set data.kind and the splits (soundpost
dataset --help lists the layouts). For perez2020_dualcamnet, perez2020_hearnet and so on, DIR holds
acoustic images, sound and pictures in the layout of `actions`. A killed run goes on where it
stopped when the same command is given again.

examples:
  soundpost train starter --data clips --out runs/first
  soundpost train starter --data clips --out runs/fold1 --fold 1
  soundpost train finetune --data my_clips --out runs/mine --init starter
  soundpost train my.toml --data clips --out runs/short training.epochs=20 model.width=0.5
  soundpost train full --data scenes --out runs/full training.seed=1
  soundpost train streaming --data scenes --teacher runs/full --out runs/streaming
  soundpost train yin2021 --data dcase17 --out runs/yin visual.file=vgg16-397923af.pth
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
several runs (three seeds, as published) the scores are averaged.

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

        from soundpost.train.multimodal.action_recipe import KIND as ACTIONS
        from soundpost.train.multimodal.tagging_recipe import KIND as TAGGING
        from soundpost.train.recipe import ModelSettings, kind_of, load_recipe, read_tables
        from soundpost.train.run import train_run
        from soundpost.train.sed.recipe import KIND
        from soundpost.train.sed.streaming_recipe import KIND as STREAMING

    threads = arguments.threads or len(os.sched_getaffinity(0))
    if threads < 1:
        raise UsageError(f"--threads {threads}: expected 1 or more")
    torch.set_num_threads(threads)
    path = path_of_ours(arguments.recipe, "soundpost.train.recipes", "recipe")
    kind = kind_of(read_tables(path, arguments.changes))
    if kind == STREAMING and arguments.teacher is None:
        raise UsageError(
            f"{path.stem}: --teacher RUN is missing: give a run of a recipe such as full"
        )
    if kind not in (STREAMING, TAGGING, ACTIONS) and arguments.teacher is not None:
        raise UsageError(f"{path.stem}: --teacher RUN is not used")
    if kind != ModelSettings.kind and arguments.soft_labels:
        raise UsageError(f"{path.stem}: --soft-labels is for clip students, such as finetune")
    if kind in (TAGGING, ACTIONS):
        if arguments.fold is not None or arguments.init is not None:
            raise UsageError(
                f"{path.stem}: --fold and --init are for clip students; here the recipe says what "
                "is held out, and networks start at random"
            )
        train = _train_tagging if kind == TAGGING else _train_actions
        return train(arguments, path)
    if kind in (KIND, STREAMING):
        return _train_on_scenes(arguments, path, kind == STREAMING)
    recipe = load_recipe(path, arguments.changes)
    figures = train_run(
        recipe,
        arguments.data,
        arguments.out,
        arguments.fold,
        init=arguments.init,
        soft_labels=arguments.soft_labels,
        device=arguments.device,
        quiet=arguments.quiet,
    )
    if arguments.json:
        print(json.dumps({name: f.to_dict() for name, f in figures.items()}))
    else:
        for name, f in figures.items():
            print(f"{name}: {f.line()}")
        print(f"report: {arguments.out / 'report.md'}")
        print(f"next: soundpost export {arguments.out} --out {arguments.out.name}.bundle")
    return 0


def _train_on_scenes(arguments: argparse.Namespace, path: Path, streaming: bool) -> int:
    with interrupts_wait():
        from soundpost.train.run import choose_device
        from soundpost.train.sed.recipe import load_detection_recipe
        from soundpost.train.sed.streaming_recipe import load_streaming_recipe
        from soundpost.train.sed.streaming_run import train_streaming
        from soundpost.train.sed.train_folder import train_folder

    if arguments.fold is not None or arguments.init is not None:
        raise UsageError(
            f"{path.stem}: --fold and --init are for clip students; the folder of a detection "
            "recipe says itself what is trained on (metadata/train), and it starts at random"
        )
    data, out = arguments.data, arguments.out
    device, quiet = choose_device(arguments.device), arguments.quiet
    if streaming:
        recipe = load_streaming_recipe(path, arguments.changes)
        judged = train_streaming(recipe, data, arguments.teacher, out, device, quiet=quiet)
    else:
        judged = train_folder(
            load_detection_recipe(path, arguments.changes), data, out, device, quiet=quiet
        )
    if arguments.json:
        print(json.dumps({name: of.figures.to_dict() for name, of in judged.items()}))
        return 0
    for name, of in judged.items():
        print(f"{name}: {of.figures.line()}")
    print(f"report: {out / 'report.md'}")
    if streaming:
        print(f"next: soundpost export {out} --out {out.name}.bundle")
    else:
        print(
            f"next: soundpost train streaming --data {data} --teacher {out} --out "
            f"{out.parent / 'streaming'}"
        )
    return 0


def _train_tagging(arguments: argparse.Namespace, path: Path) -> int:
    with interrupts_wait():
        from soundpost.train.multimodal.tagging_judging import figures_to_dict
        from soundpost.train.multimodal.tagging_recipe import load_tagging_recipe
        from soundpost.train.multimodal.tagging_run import train_tagging
        from soundpost.train.run import choose_device

    recipe = load_tagging_recipe(path, arguments.changes)
    out = arguments.out
    judged = train_tagging(
        recipe,
        arguments.data,
        out,
        choose_device(arguments.device),
        teacher=arguments.teacher,
        quiet=arguments.quiet,
    )
    if arguments.json:
        print(json.dumps(figures_to_dict(judged)))
        return 0
    for split, of in judged.items():
        for who, one in of.items():
            print(f"{split}, {who}: {one.figures.line()}")
    print(f"report: {out / 'report.md'}")
    print(f"next: soundpost distil {out} --data DIR --kind KIND --out soft_labels")
    return 0


def _train_actions(arguments: argparse.Namespace, path: Path) -> int:
    with interrupts_wait():
        from soundpost.train.multimodal.action_recipe import load_action_recipe
        from soundpost.train.multimodal.action_run import train_actions
        from soundpost.train.run import choose_device

    recipe = load_action_recipe(path, arguments.changes)
    figures = train_actions(
        recipe,
        arguments.data,
        arguments.out,
        choose_device(arguments.device),
        teacher=arguments.teacher,
        quiet=arguments.quiet,
    )
    if arguments.json:
        print(json.dumps(figures.to_dict()))
        return 0
    print(figures.line())
    print(f"report: {arguments.out / 'report.md'}")
    return 0


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", type=Path, nargs="+", metavar="RUN|BUNDLE", help="one, or several runs of yin2021"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled clips")
    parser.add_argument("--audio", default="", metavar="DIR", help="sound of yin2021, if elsewhere")
    parser.add_argument("--video", default="", metavar="DIR", help="video of yin2021, if elsewhere")
    parser.add_argument(
        "--weights", default="", metavar="FILE", help="of yin2021's visual network, where it looks"
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
        from soundpost.train.evaluate import evaluate
        from soundpost.train.multimodal.tagging_run import SCHEMA as TAGGING
        from soundpost.train.run import schema_of
        from soundpost.train.sed.evaluate import is_scene_model

    model, *others = arguments.models
    if schema_of(model) == TAGGING:
        return _evaluate_tagging(arguments)
    if others:
        raise UsageError(
            f"{others[0]}: runs are averaged that were trained with yin2021 or one of its rows; "
            "give one RUN or BUNDLE of the others"
        )
    if arguments.audio or arguments.video or arguments.weights:
        raise UsageError("--audio, --video and --weights are for runs of yin2021 and its rows")
    if is_scene_model(model, arguments.data):
        return _evaluate_scenes(arguments)
    for name in ("part", "lengths", "overlaps", "missing", "chosen"):
        if getattr(arguments, name):
            raise UsageError(f"--{name} is for recordings with times; labelled clips have --fold")
    result = evaluate(
        model,
        arguments.data,
        arguments.fold,
        runtime=arguments.runtime,
        device=arguments.device,
        quiet=arguments.quiet or not sys.stderr.isatty(),
    )
    if arguments.json:
        table = {"model": result.model, "runtime": result.runtime, "skipped": result.skipped}
        print(json.dumps(table | result.figures.to_dict()))
        return 0
    print(f"{result.model}, {result.runtime}")
    print(result.figures.line())
    if result.skipped:
        print(f"{result.skipped} clips left out: their labels are not the model's")
    print(f"{'label':<20} {'recall':>7} {'AP':>6}")
    for label, recall in sorted(result.figures.recall.items(), key=lambda item: item[1]):
        print(f"{label:<20} {recall:>7.1%} {result.figures.average_precision[label]:>6.3f}")
    return 0


def _evaluate_tagging(arguments: argparse.Namespace) -> int:
    with interrupts_wait():
        from soundpost.train.multimodal.tagging_evaluate import Places, evaluate_tagging, to_dict
        from soundpost.train.multimodal.tagging_report import figure_lines
        from soundpost.train.run import choose_device

    if arguments.fold is not None:
        raise UsageError("--fold is for labelled clips; runs of yin2021 have --part")
    runs, part = arguments.models, arguments.part or "test"
    judged = evaluate_tagging(
        runs,
        arguments.data,
        choose_device(arguments.device),
        part=part,
        places=Places(arguments.audio, arguments.video, arguments.weights),
        quiet=arguments.quiet or not sys.stderr.isatty(),
    )
    if arguments.json:
        print(json.dumps(to_dict(runs, part, judged)))
        return 0
    print(f"{'mean of ' if len(runs) > 1 else ''}{', '.join(map(str, runs))}; {part}")
    print(judged.figures.line())
    print("\n".join(figure_lines(judged)))
    return 0


def _evaluate_scenes(arguments: argparse.Namespace) -> int:
    with interrupts_wait():
        from soundpost.train.sed.evaluate import evaluate_scenes
        from soundpost.train.sed.recipe import ReadingSettings
        from soundpost.train.sed.report import figure_lines

    if arguments.fold is not None:
        raise UsageError("--fold is for labelled clips; recordings with times have --part")
    given = {
        name: value
        for name in ("lengths", "overlaps", "missing")
        if (value := getattr(arguments, name)) is not None
    }
    result = evaluate_scenes(
        arguments.models[0],
        arguments.data,
        part=arguments.part or "test",
        seconds=arguments.seconds,
        reading=ReadingSettings(**given) if given else None,
        chosen=arguments.chosen,
        runtime=arguments.runtime,
        device=arguments.device,
        quiet=arguments.quiet or not sys.stderr.isatty(),
    )
    if arguments.json:
        table = {"model": result.model, "runtime": result.runtime, "part": result.part}
        print(json.dumps(table | result.figures.to_dict()))
        return 0
    print(f"{result.model}, {result.runtime}, {result.part}")
    print(result.figures.line())
    print("\n".join(figure_lines(result.figures)))
    return 0


TRAIN = Command("train a student on labelled clips", _TRAIN, _add_train, _train, intermixed=True)
EVALUATE = Command("judge a run or a bundle on labelled clips", _EVALUATE, _add_evaluate, _evaluate)
