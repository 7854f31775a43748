"""yin2021 and its rows in `soundpost train`, `evaluate` and `distil`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soundpost.train.datasets.segments import Folders
from soundpost.train.evaluate_options import Judge, one_model
from soundpost.train.kinds import Outcome, RunKind
from soundpost.train.multimodal.bundle_tags import evaluate_bundle_tags
from soundpost.train.multimodal.clip_media import read_media_set
from soundpost.train.multimodal.soft_labelling import tagging_labeller
from soundpost.train.multimodal.tagging_evaluate import Places, evaluate_tagging, to_dict
from soundpost.train.multimodal.tagging_judging import figures_to_dict
from soundpost.train.multimodal.tagging_recipe import load_tagging_recipe
from soundpost.train.multimodal.tagging_report import figure_lines
from soundpost.train.multimodal.tagging_run import train_tagging
from soundpost.train.run import choose_device


def train(arguments: argparse.Namespace, path: Path) -> Outcome:
    """`soundpost train yin2021` and the like."""
    out = arguments.out
    recipe = load_tagging_recipe(path, arguments.changes)
    device = choose_device(arguments.device)
    judged = train_tagging(
        recipe,
        arguments.data,
        out,
        device,
        teacher=arguments.teacher,
        init=arguments.init,
        quiet=arguments.quiet,
    )
    on = "distil {out} --data DIR --kind KIND --out soft_labels"
    if recipe.device is not None:
        on = "export {out} --out {out.name}.bundle"
    return Outcome(
        figures_to_dict(judged),
        (
            *(
                f"{split}, {who}: {one.figures.line()}"
                for split, of in judged.items()
                for who, one in of.items()
            ),
            f"report: {out / 'report.md'}",
            f"next: soundpost {on.format(out=out)}",
        ),
    )


def evaluate(arguments: argparse.Namespace) -> Outcome:
    """`soundpost evaluate` of one run, or of the mean of several."""
    runs, part = arguments.models, arguments.part or "test"
    judged = evaluate_tagging(
        runs,
        arguments.data,
        choose_device(arguments.device),
        part=part,
        places=Places(arguments.audio, arguments.video, arguments.weights),
        quiet=arguments.quiet,
    )
    return Outcome(
        to_dict(runs, part, judged),
        (
            f"{'mean of ' if len(runs) > 1 else ''}{', '.join(map(str, runs))}; {part}",
            judged.figures.line(),
            *figure_lines(judged),
        ),
    )


def _evaluate_bundle(arguments: argparse.Namespace) -> Outcome:
    """`soundpost evaluate BUNDLE --kind KIND`: of a bundle, on the clips of a set."""
    model = one_model(arguments)
    audio, video = (Path(path) if path else None for path in (arguments.audio, arguments.video))
    folders = Folders(arguments.data, audio, video)
    read = read_media_set(arguments.kind, folders, refuse=False)
    judged = evaluate_bundle_tags(
        model, read, arguments.split, runtime=arguments.runtime, quiet=arguments.quiet
    )
    lines = [f"{judged.model}, {judged.runtime}", judged.figures.line()]
    if judged.unknown:
        lines.append(f"labels that the bundle does not know: {', '.join(judged.unknown)}")
    if judged.without_sound:
        lines.append(f"{len(judged.without_sound)} clips left out: they have no sound")
    return Outcome(judged.to_dict(), tuple(lines))


BUNDLES = Judge(_evaluate_bundle, frozenset({"kind", "split", "audio", "video"}))
TAGGING = RunKind(
    takes=frozenset({"teacher", "init"}),
    train=train,
    evaluate=Judge(evaluate, frozenset({"part", "audio", "video", "weights"})),
    labeller=tagging_labeller,
    instead={"fold": "it is for clip students; here the recipe says what is held out"},
)
