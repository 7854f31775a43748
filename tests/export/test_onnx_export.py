"""The ONNX graph computes what torch computes, clamped."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from soundpost.device.errors import ExportError
from soundpost.export.onnx_export import OPSET, export_onnx
from soundpost.train.mobilenet_v2 import MobileNetV2, MobileNetV2Settings


def test_onnx_runtime_gives_torchs_outputs_clamped() -> None:
    torch.manual_seed(0)
    student = MobileNetV2(5, MobileNetV2Settings(width=0.35)).eval()
    patch = np.random.default_rng(0).uniform(-7, 5, (1, 1, 100, 64)).astype(np.float32)
    with torch.no_grad():
        student.classifier.weight *= 20 / student(torch.from_numpy(patch))[0].abs().max()
    content = export_onnx(student, 100, 64)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("patch", [1, 1, 100, 64])]
    assert [o.name for o in session.get_outputs()] == ["logits", "embedding"]
    logits, embedding = session.run(None, {"patch": patch})
    with torch.no_grad():
        expected, expected_embedding = student(torch.from_numpy(patch))
    # The clamp must bite for this to be a test of it.
    assert expected.abs().max() > 8
    np.testing.assert_allclose(logits, expected.numpy().clip(-8, 8), atol=1e-4)
    np.testing.assert_allclose(embedding, expected_embedding.numpy(), atol=1e-4)


def test_the_same_weights_give_the_same_bytes() -> None:
    student = MobileNetV2(3, MobileNetV2Settings(width=0.35)).eval()
    content = export_onnx(student, 100, 64)
    assert content == export_onnx(student, 100, 64)
    assert onnx.load_from_string(content).opset_import[0].version == OPSET


class Untraceable(nn.Module):
    def forward(self, patch: Tensor) -> tuple[Tensor, Tensor]:
        return torch.special.i1(patch).flatten(1), patch.flatten(1)


def test_what_has_no_onnx_form_is_refused_in_one_line() -> None:
    with pytest.raises(ExportError, match=r"torch to ONNX: .*special_i1") as failure:
        export_onnx(Untraceable(), 100, 64)
    assert "\n" not in str(failure.value)
