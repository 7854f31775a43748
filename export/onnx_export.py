"""torch to ONNX, by the exporter that onnx2tf understands."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from soundpost.device.errors import ExportError
from soundpost.device.interpreter import Signature
from soundpost.train.mobilenet_v2 import LOGIT_LIMIT

OPSET = 17


class ExportedGraph(nn.Module):
    """A student as it leaves training: logits clamped, so that int8 resolves what a sigmoid can."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, patch: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and embedding.

        Parameters
        ----------
        patch : (1, 1, n_frames, n_mels)

        Returns
        -------
        logits : (1, n_labels) within ±LOGIT_LIMIT
        embedding : (1, n_embedding)
        """
        logits, embedding = self.student(patch)
        return logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT), embedding


def export_onnx(student: nn.Module, n_frames: int, n_mels: int) -> bytes:
    """ONNX model (opset 17, static batch of 1) of a student of kind `window`.

    The input is 4-D, (1, 1, n_frames, n_mels): other layouts fail in onnx2tf or are silently
    transposed. Raises ExportError where torch cannot trace the graph or ONNX's checker refuses it.
    """
    names = Signature()
    return trace_onnx(
        ExportedGraph(student),
        {names.input: torch.zeros(1, 1, n_frames, n_mels)},
        (names.logits, names.embedding),
    )


def trace_onnx(graph: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> bytes:
    """ONNX model of a graph with these example inputs, by name and in order, and output names.

    Raises ExportError where torch cannot trace the graph or ONNX's checker refuses it.
    """
    graph = graph.eval().to("cpu")
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            # The newer exporter's graphs do not convert; its advertisement helps no user.
            warnings.simplefilter("ignore", DeprecationWarning)
            path = Path(folder) / "model.onnx"
            torch.onnx.export(
                graph,
                tuple(inputs.values()),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
            )
            content = path.read_bytes()
        onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    except (torch.onnx.errors.OnnxExporterError, onnx.checker.ValidationError) as error:
        raise ExportError(f"torch to ONNX: {' '.join(str(error).split())}") from error
    return content
