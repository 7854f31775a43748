"""report.md, figures.json and pictures of a run of li2018."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from soundpost.device.features import FloatArray
from soundpost.device.files import write_atomically
from soundpost.train.loop import METRICS
from soundpost.train.multimodal.clip_media import ClipMedia
from soundpost.train.multimodal.fusion_inputs import Part
from soundpost.train.multimodal.fusion_judging import (
    BranchFigures,
    Decision,
    JudgedPart,
    JudgedParts,
    figures_to_dict,
)
from soundpost.train.multimodal.fusion_recipe import BRANCHES, VALIDATION, FusionRecipe
from soundpost.train.multimodal.objects import clip_objects
from soundpost.train.multimodal.tagging_report import FIGURES_FILE
from soundpost.train.multimodal.video_branch import frame_numbers, frame_objects
from soundpost.train.multimodal.word_vectors import ObjectEventMap
from soundpost.train.sed.pictures import BLACK, BLUE, GREY, ORANGE, save

_COLOURS = {"audio": BLUE, "video": GREY, "fused": ORANGE}
# Clips in the picture of key frames, and objects named under each of their frames and in the table.
_SHOWN_CLIPS, _SHOWN_OBJECTS, _LISTED_OBJECTS = 4, 2, 25


def published_f1(
    published: Mapping[str, float], kind: str, split: str, branch: str
) -> float | None:
    """A recipe's published micro-F1 on one split; None where there is none."""
    return published.get(f"{kind}_{split}_{branch}")


def branch_table(
    figures: Mapping[str, Mapping[str, BranchFigures]], published: Mapping[str, float], kind: str
) -> list[str]:
    """Markdown lines: splits and branches in rows, the published F1 in the last column.

    figures : by split, by branch

    Of another kind of data set than the published one's, published rows follow at the end.
    """
    lines = [
        "| split | branch | clips | F1 | P | R | mAP | published F1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    told = set()
    for split, of in figures.items():
        for branch, one in of.items():
            theirs = published_f1(published, kind, split, branch)
            told.add(f"{kind}_{split}_{branch}")
            lines.append(
                f"| {split} | {branch} | {one.n_clips} | {one.f1:.1%} | {one.precision:.1%} | "
                f"{one.recall:.1%} | {one.mean_average_precision:.4f} | "
                f"{'–' if theirs is None else f'{theirs:.1%}'} |"
            )
    for name, theirs in published.items():
        if name not in told:
            where, _, branch = name.rpartition("_")
            lines.append(
                f"| {where.replace('_', ' ')} | {branch} | – | – | – | – | – | {theirs:.1%} |"
            )
    return lines


def label_lines(part: JudgedPart, decision: Decision) -> list[str]:
    """Markdown lines: F1 and AP of each label by branch, the worst fused F1 first."""
    counts = dict(zip(part.labels, part.truth.sum(0).astype(int).tolist(), strict=True))
    weights = dict(zip(part.labels, decision.weights.tolist(), strict=True))
    lines = [
        f"| label | clips | weight of video | {' | '.join(f'F1 {b} | AP {b}' for b in BRANCHES)} |",
        "|---|---|---" + "|---|---" * len(BRANCHES) + "|",
    ]
    fused = part.figures["fused"].label_f1
    for label in sorted(counts, key=lambda label: (fused.get(label, 2.0), label)):
        cells = []
        for branch in BRANCHES:
            of = part.figures[branch]
            for table in (of.label_f1, of.average_precision):
                cells.append(f"{table[label]:.3f}" if label in table else "–")
        lines.append(f"| {label} | {counts[label]} | {weights[label]:.1f} | {' | '.join(cells)} |")
    return lines


def object_lines(mapping: ObjectEventMap, rows: Sequence[FloatArray], top: int) -> list[str]:
    """Markdown lines: the objects that were seen most, the event that each speaks for, the cosine.

    rows : of clips, as of VideoBranch.look
    """
    seen = np.mean([clip_objects(frame_objects(row), top) for row in rows], axis=0)
    lines = ["| object | share of what is seen | speaks for | cosine |", "|---|---|---|---|"]
    for number in np.argsort(-seen, kind="stable")[:_LISTED_OBJECTS]:
        if seen[number] == 0:
            break
        event = int(mapping.event[number])
        speaks_for = mapping.events[event] if event >= 0 else "nothing"
        cosine = float(mapping.cosines[number].max())
        lines.append(
            f"| {mapping.objects[number]} | {seen[number]:.1%} | {speaks_for} | "
            f"{f'{cosine:.2f}' if np.isfinite(cosine) else '–'} |"
        )
    return lines


def draw_fusion_curves(metrics: Path, path: Path) -> None:
    """Losses, and F1 and mAP of validation clips, over the epochs, from metrics.jsonl."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    epochs = [line["epoch"] + 1 for line in lines]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(epochs, [line["loss"] for line in lines], ".-", color=BLUE, label="training")
    left.plot(
        epochs, [line["validation_loss"] for line in lines], ".-", color=ORANGE, label="validation"
    )
    left.set(xlabel="epoch", ylabel="cross entropy", title="Loss of the audio branch")
    rate = left.twinx()
    rate.plot(epochs, [line["learning_rate"] for line in lines], ":", color=GREY)
    rate.set(ylabel="learning rate (dotted)", ylim=(0, None))
    left.legend(loc="center right")
    f1 = [line["validation_f1"] for line in lines]
    right.plot(epochs, f1, "o-", ms=3, color=BLUE, label="micro-F1")
    right.plot(
        epochs, [line["validation_map"] for line in lines], "s--", ms=3, color=BLACK, label="mAP"
    )
    best = f1.index(max(f1))
    right.plot([epochs[best]], [f1[best]], "o", ms=9, mfc="none", color=ORANGE, label="kept")
    right.set(xlabel="epoch", title="Audio branch on validation clips", ylim=(0, 1))
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    save(figure, path)


def draw_branch_bars(part: JudgedPart, decision: Decision, path: Path) -> None:
    """F1 of each label by branch, as figure 3; (V) marks labels at which the video weighs more."""
    fused = part.figures["fused"].label_f1
    labels = sorted(fused, key=lambda label: fused[label])
    marked = {
        label for label, weight in zip(part.labels, decision.weights, strict=True) if weight > 0.5
    }
    rows, height = np.arange(len(labels)), 0.8 / len(BRANCHES)
    figure, axes = plt.subplots(figsize=(8, 1.5 + 0.45 * len(labels)), layout="constrained")
    for place, branch in enumerate(BRANCHES):
        of = part.figures[branch].label_f1
        middle = rows + (len(BRANCHES) - 1) * height / 2 - place * height
        axes.barh(
            middle, [of[label] for label in labels], height, label=branch, color=_COLOURS[branch]
        )
    names = [label.replace("_", " ") + (" (V)" if label in marked else "") for label in labels]
    axes.set_yticks(rows, names)
    axes.set(xlim=(0, 1), xlabel="F1")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(BRANCHES))
    save(figure, path)


def draw_key_frames(
    part: Part, media: ClipMedia, decision: Decision, per_second: float, path: Path
) -> None:
    """Key frames of some clips, with what is recognised in them and what that speaks for."""
    count = min(_SHOWN_CLIPS, len(part.clips))
    chosen = np.linspace(0, len(part.clips) - 1, count).astype(int)
    every = part.rows()
    columns = max(len(every[i]) for i in chosen)
    figure, grid = plt.subplots(
        count, columns, figsize=(2.6 * columns, 2.9 * count), layout="constrained", squeeze=False
    )
    objects = decision.objects
    for axes in grid.flat:
        axes.axis("off")
    for line, i in zip(grid, chosen, strict=True):
        clip, row = part.of.clips[part.clips[i]], every[i]
        pictures = media.pictures(clip, per_second)
        for place, (axes, number, said) in enumerate(
            zip(line, frame_numbers(row), frame_objects(row), strict=False)
        ):
            axes.imshow(pictures[number])
            texts = []
            for k in np.argsort(-said, kind="stable")[:_SHOWN_OBJECTS]:
                event = int(objects.event[k])
                speaks_for = objects.events[event] if event >= 0 else "nothing"
                name = objects.objects[k].partition(",")[0]
                texts.append(f"{name} {said[k]:.2f}: {speaks_for}")
            has = ", ".join(clip.labels) or "nothing"
            heading = f"{clip.id}\n{has}\n" if place == 0 else ""
            axes.set_title(f"{heading}{number / per_second:.1f} s", fontsize=7, loc="left")
            axes.text(0, -0.03, "\n".join(texts), fontsize=6, va="top", transform=axes.transAxes)
    save(figure, path)


def write_fusion_report(
    run: Path,
    recipe: FusionRecipe,
    settings: dict[str, Any],
    judged: JudgedParts,
    decision: Decision,
    mapping: ObjectEventMap,
    rows: Mapping[str, Sequence[FloatArray]],
) -> None:
    """report.md, figures.json and the pictures but for that of the key frames.

    rows : of the clips of each split, as of VideoBranch.look
    """
    data, training, visual = recipe.data, recipe.training, recipe.visual
    draw_fusion_curves(run / METRICS, run / "curves.png")
    drawn_from = ", ".join(data.validation) or f"held out of {', '.join(data.train)}"
    better = [
        label for label, weight in zip(decision.labels, decision.weights, strict=True)
        if weight > 0.5
    ]  # fmt: skip
    lines = [
        f"# Run {run.name}: recipe {recipe.name}",
        "",
        recipe.source,
        "",
        f"Trained on the sound of {settings['data']['train']['n_clips']} clips of "
        f"{Path(settings['path']).name} ({data.kind}: {', '.join(data.train)}), {training.epochs} "
        f"epochs, batches of {training.batch_size}. {visual.key_frames} key frames of "
        f"{visual.frames_per_second:g} a second by {visual.features}, objects by {visual.objects}. "
        f"Code at {settings['git']}, torch {settings['torch']}, seed {training.seed}.",
        "",
        *branch_table(
            {split: part.figures for split, part in judged.items()}, recipe.published, data.kind
        ),
        "",
        f"F1, P and R are micro-averaged, mAP is the mean over labels. Weights and thresholds were "
        f"chosen on {VALIDATION} ({drawn_from}), and so was the epoch: what that split reaches is "
        f"what could be reached, not what to expect. Pictures weigh more than sound at "
        f"{len(better)} of {len(decision.labels)} labels"
        + (f": {', '.join(better)}." if better else "."),
        "",
        "![curves](curves.png)",
        "",
        "## Objects",
        "",
        f"What was seen most in the clips of {VALIDATION}, and the label whose name is nearest.",
        "",
        *object_lines(mapping, rows[VALIDATION], visual.top_objects),
        "",
        "![key frames](key_frames.png)",
        "",
    ]
    for split, part in judged.items():
        draw_branch_bars(part, decision, run / f"labels_{split}.png")
        lines += [
            f"## {split.capitalize()}",
            "",
            *label_lines(part, decision),
            "",
            f"![labels](labels_{split}.png)",
            "",
        ]
    table = json.dumps(figures_to_dict(judged), indent=1) + "\n"
    write_atomically(run / FIGURES_FILE, table.encode())
    write_atomically(run / "report.md", "\n".join(lines).encode())
