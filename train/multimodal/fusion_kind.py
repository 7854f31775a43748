"""li2018 in `soundpost train`, `evaluate` and `distil`."""

from __future__ import annotations

import argparse
from pathlib import Path

from soundpost.train.evaluate_options import Judge, one_model
from soundpost.train.kinds import Outcome, RunKind
from soundpost.train.multimodal.fusion_evaluate import evaluate_fusion
from soundpost.train.multimodal.fusion_judging import JudgedParts, figures_to_dict
from soundpost.train.multimodal.fusion_labelling import fusion_labeller
from soundpost.train.multimodal.fusion_recipe import load_fusion_recipe
from soundpost.train.multimodal.fusion_run import train_fusion
from soundpost.train.run import choose_device


def train(arguments: argparse.Namespace, path: Path) -> Outcome:
    """`soundpost train li2018`."""
    out = arguments.out
    recipe = load_fusion_recipe(path, arguments.changes)
    device = choose_device(arguments.device)
    judged = train_fusion(recipe, arguments.data, out, device, quiet=arguments.quiet)
    return Outcome(
        figures_to_dict(judged),
        (
            *_lines(judged),
            f"report: {out / 'report.md'}",
            f"next: soundpost distil {out} --network teacher --data DIR --kind {recipe.data.kind} "
            "--out soft_labels",
        ),
    )


def evaluate(arguments: argparse.Namespace) -> Outcome:
    """`soundpost evaluate` of one run: all branches on each split."""
    model = one_model(arguments)
    part = arguments.part or "test"
    judged = evaluate_fusion(
        model,
        arguments.data,
        choose_device(arguments.device),
        part=part,
        audio=arguments.audio,
        video=arguments.video,
        weights=arguments.weights,
        quiet=arguments.quiet,
    )
    table = {"model": str(model), "part": part, "splits": figures_to_dict(judged)}
    lines = [f"{model}; {part}", *_lines(judged)]
    for split, of in judged.items():
        lines += ["", f"{split:<32} {'clips':>6} {'F1 audio':>9} {'video':>6} {'fused':>6}"]
        counts = dict(zip(of.labels, of.truth.sum(0).astype(int).tolist(), strict=True))
        fused = of.figures["fused"].label_f1
        for label, f1 in sorted(fused.items(), key=lambda item: item[1]):
            audio, video = (of.figures[branch].label_f1[label] for branch in ("audio", "video"))
            lines.append(f"{label:<32} {counts[label]:>6} {audio:>9.3f} {video:>6.3f} {f1:>6.3f}")
    return Outcome(table, tuple(lines))


def _lines(judged: JudgedParts) -> list[str]:
    return [
        f"{split}, {branch}: {figures.line()}"
        for split, of in judged.items()
        for branch, figures in of.figures.items()
    ]


_RECIPE_SAYS = (
    "it is for clip students; here the recipe says what is held out, and networks start at random"
)

FUSION = RunKind(
    takes=frozenset(),
    train=train,
    evaluate=Judge(evaluate, frozenset({"part", "audio", "video", "weights"})),
    labeller=fusion_labeller,
    instead={
        "fold": _RECIPE_SAYS,
        "init": _RECIPE_SAYS,
        "teacher": "its networks that see are pretrained: visual.features and visual.objects",
    },
)
