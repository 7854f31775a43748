"""`soundpost distil --seen-by NETWORK --heard-by NETWORK`: labels by machine, as jia2019 has them.

torch is imported when the command runs, not when `soundpost --help` lists it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soundpost.device.errors import UsageError
from soundpost.device.interrupt import interrupts_wait

if TYPE_CHECKING:
    import torch

    from soundpost.train.multimodal.clip_media import ReadSet
    from soundpost.train.multimodal.machine_labels import LabellingRules
    from soundpost.train.multimodal.soft_labelling import Labeller

# Problems that are told of; all of them are in the tables.
_SHOWN_PROBLEMS = 3


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of labels by machine."""
    group = parser.add_argument_group(
        "labels by machine (jia2019), without RUN",
        "NETWORK is a run, or the name of a published one: vgg16, resnet50, resnet101, alexnet and "
        "inception_v4 see, vggish hears; stub sees without weights, and knows nothing.",
    )
    group.add_argument("--seen-by", metavar="NETWORK", default="", help="labels the pictures")
    group.add_argument("--heard-by", metavar="NETWORK", default="", help="labels the sound")
    for source in ("seen", "heard"):
        group.add_argument(
            f"--{source}-labels",
            type=Path,
            metavar="FILE",
            help="names of a published network's classes, one a line, in their order",
        )
        group.add_argument(
            f"--{source}-weights", default="", metavar="FILE", help="its weights, if elsewhere"
        )
    group.add_argument(
        "--seen-scores",
        choices=("softmax", "sigmoid"),
        help="what makes scores of a published network's outputs: softmax where a picture has one "
        "class (default for the published weights), sigmoid where it has several (for others)",
    )
    group.add_argument("--top-seen", type=int, metavar="N", help="most seen labels (default: 10)")
    group.add_argument("--top-heard", type=int, metavar="N", help="most heard labels (default: 5)")
    group.add_argument(
        "--seen-threshold", type=float, metavar="P", help="least score of a seen label (default: 0)"
    )
    group.add_argument(
        "--heard-threshold",
        type=float,
        metavar="P",
        help="least score of a heard label (default: what leaves --heard-per-clip)",
    )
    group.add_argument(
        "--heard-per-clip",
        type=float,
        metavar="N",
        help="heard labels of a clip on average, by which the threshold is chosen (default: 3)",
    )
    group.add_argument(
        "--pictures-per-second", type=float, metavar="N", help="shown to a network (default: 3)"
    )
    group.add_argument("--n-folds", type=int, metavar="N", help="tables in all (default: 4096)")
    group.add_argument(
        "--folds", metavar="A-B", help="label these only: several processes may share the work"
    )


def wants_machine_labels(arguments: argparse.Namespace) -> bool:
    """Whether labels by machine are asked for; UsageError where it is not clear."""
    asked = bool(arguments.seen_by or arguments.heard_by)
    if asked and arguments.run is not None:
        raise UsageError(
            f"{arguments.run}: soft labels of a run and labels by machine (--seen-by, --heard-by) "
            "are two jobs; leave one of them out"
        )
    if asked and arguments.heard_per_clip is not None and arguments.heard_threshold is not None:
        raise UsageError("--heard-per-clip chooses the --heard-threshold; give one of them")
    if asked and not (arguments.heard_per_clip is None or arguments.heard_per_clip > 0):
        raise UsageError(f"--heard-per-clip {arguments.heard_per_clip:g}: expected more than 0")
    if asked and arguments.weights:
        raise UsageError("--weights is for RUN; give --seen-weights or --heard-weights")
    if not asked:
        if arguments.run is None:
            raise UsageError("give a RUN for soft labels, or --seen-by and --heard-by")
        for option in (
            *("seen_labels", "seen_weights", "seen_scores", "seen_threshold", "top_seen"),
            *("heard_labels", "heard_weights", "heard_threshold", "heard_per_clip"),
            *("top_heard", "pictures_per_second", "n_folds", "folds"),
        ):
            if getattr(arguments, option) not in (None, ""):
                raise UsageError(
                    f"--{option.replace('_', '-')} is for labels by machine; give --seen-by or "
                    "--heard-by too"
                )
    return asked


def run_machine_labels(
    arguments: argparse.Namespace, read: ReadSet, device: torch.device, quiet: bool
) -> int:
    """Label the clips of a set, going on where an earlier call was stopped."""
    with interrupts_wait():
        from soundpost.train.multimodal.label_networks import open_audio, open_visual
        from soundpost.train.multimodal.labelling import label_clips
        from soundpost.train.multimodal.machine_labels import AUDIO_LABELS_PER_CLIP

    rules = _rules(arguments)
    folds = parse_folds(arguments.folds) if arguments.folds else None
    visual = audio = None
    if arguments.seen_by:
        visual = open_visual(
            arguments.seen_by, arguments.seen_labels, arguments.seen_weights, device,
            activation=arguments.seen_scores, per_second=rules.frames_per_s,
            network=arguments.network, quiet=quiet,
        )  # fmt: skip
    if arguments.heard_by:
        audio = open_audio(
            arguments.heard_by, arguments.heard_labels, arguments.heard_weights, device, quiet=quiet
        )
    chosen = read.clips.of(*arguments.split) if arguments.split else read.clips
    if audio is not None and arguments.heard_threshold is None:
        wanted = arguments.heard_per_clip or AUDIO_LABELS_PER_CLIP
        rules = _with_threshold(rules, arguments.out, chosen.clips, audio, read, wanted, quiet)
    done = label_clips(
        chosen.clips, visual, audio, arguments.out, rules, media=read.media, folds=folds,
        quiet=quiet,
    )  # fmt: skip
    networks: dict[str, Labeller] = {
        name: one for name, one in (("seen_by", visual), ("heard_by", audio)) if one is not None
    }
    if arguments.json:
        table: dict[str, Any] = {
            "labels": str(arguments.out),
            **{name: asdict(one.teacher) for name, one in networks.items()},
            "rules": asdict(rules),
            "clips": done.n_clips,
            "new": done.n_new,
            "problems": list(done.problems),
        }
        print(json.dumps(table))
        return 0
    print(f"{arguments.out}: labels by machine of {done.n_clips} clips, {done.n_new} of them new")
    if audio is not None:
        print(f"heard labels have a score of {rules.audio_threshold:.4f} or more")
    for problem in done.problems[:_SHOWN_PROBLEMS]:
        print(problem)
    if len(done.problems) > _SHOWN_PROBLEMS:
        print(f"and {len(done.problems) - _SHOWN_PROBLEMS} more problems, in *.problems.csv")
    print(
        f"next: soundpost train jia2019_mobilenet_v2 --data {arguments.data} --out RUN "
        f"data.kind={arguments.kind} data.labels={arguments.out}"
    )
    return 0


def parse_folds(text: str) -> range:
    """Folds written as A or A-B, the last included; raises UsageError."""
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not (first.isdecimal() and last.isdecimal()) or int(first) > int(last):
        raise UsageError(f"--folds {text}: expected a fold, or the first and the last, as 0-1023")
    return range(int(first), int(last) + 1)


def _rules(arguments: argparse.Namespace) -> LabellingRules:
    from soundpost.train.multimodal.machine_labels import LabellingRules

    given = {
        "frames_per_s": arguments.pictures_per_second,
        "top_visual": arguments.top_seen,
        "top_audio": arguments.top_heard,
        "visual_threshold": arguments.seen_threshold,
        "audio_threshold": arguments.heard_threshold,
        "n_folds": arguments.n_folds,
    }
    return LabellingRules(**{name: value for name, value in given.items() if value is not None})


def _with_threshold(
    rules: LabellingRules,
    labels: Path,
    clips: Any,
    audio: Labeller,
    read: ReadSet,
    wanted: float,
    quiet: bool,
) -> LabellingRules:
    """The rules with the threshold of labels that were begun, or one found from some clips."""
    from dataclasses import replace

    from soundpost.train.multimodal.labelling import find_audio_threshold, threshold_of

    threshold = threshold_of(labels)
    if threshold is None:
        threshold = find_audio_threshold(
            clips, audio, read.media, rules, wanted=wanted, quiet=quiet
        )
    return replace(rules, audio_threshold=threshold)
