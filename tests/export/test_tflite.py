"""A converter that fails, dies or hangs ends in one line that says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from soundpost.device.errors import ExportError, MissingExtraError
from soundpost.export import tflite
from soundpost.export.tflite import convert_to_tflite

PATCHES = np.zeros((2, 10, 64), np.float32)


def instead(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a shell script in place of the converter; $3 is its folder."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(tflite.sys, "executable", str(program))


def convert(**more: float) -> tflite.TFLiteModels:
    return convert_to_tflite(b"model", PATCHES, quiet=True, **more)


def test_the_last_telling_line_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
    echo 'ONNX to TensorFlow'
    echo 'INFO: fine so far' >> $3/convert.log
    echo 'ValueError: op Erf is not supported' >> $3/convert.log
    echo 'I0000 00:00:1 port.cc:1] error counters: none' >> $3/convert.log
    echo 'please see the wiki' >> $3/convert.log
    exit 1"""
    instead(script, tmp_path, monkeypatch)
    expected = "conversion failed while 'ONNX to TensorFlow': ValueError: op Erf is not supported"
    with pytest.raises(ExportError) as failure:
        convert()
    assert str(failure.value) == expected


def test_a_death_is_told_by_its_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instead("echo calibration; kill -SEGV $$", tmp_path, monkeypatch)
    with pytest.raises(ExportError, match="died of signal 11 while 'calibration'"):
        convert()


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instead("echo \"ModuleNotFoundError: No module named 'onnx2tf'\" >&2; exit 1", tmp_path,
            monkeypatch)  # fmt: skip
    with pytest.raises(MissingExtraError, match=r"'onnx2tf'; install soundpost\[export\]"):
        convert()


def test_a_converter_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instead("echo waiting; exec sleep 600", tmp_path, monkeypatch)
    with pytest.raises(ExportError, match="too long while 'waiting'"):
        convert(timeout_s=0.5)


def test_success_without_a_model_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead("exit 0", tmp_path, monkeypatch)
    with pytest.raises(ExportError, match="left no model: it said nothing"):
        convert()


def test_the_real_converter_refuses_a_model_it_cannot_read(
    capfd: pytest.CaptureFixture[str],
) -> None:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("NoSuchOperator", ["patch"], ["logits"])],
        "g",
        [onnx.helper.make_tensor_value_info("patch", onnx.TensorProto.FLOAT, [1, 1, 10, 64])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 1, 10, 64])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    with pytest.raises(ExportError, match=r"conversion failed while 'ONNX to TensorFlow': .+"):
        convert_to_tflite(model.SerializeToString(), PATCHES, quiet=True)
    # Whatever the converters print, C++ included, stays in their log.
    assert capfd.readouterr() == ("", "")
