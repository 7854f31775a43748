"""A bundle that is in order is read as it was written; anything else is refused with a reason."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soundpost.device.archive import write_archive
from soundpost.device.bundle import (
    GOLDEN,
    MANIFEST,
    MEMBERS,
    MODEL,
    MODEL_CARD,
    Bundle,
    Golden,
    Manifest,
    check_bundle,
    open_bundle,
    pack_bundle,
    parse_bundle,
    read_bundle,
    starter_bundle_path,
    write_bundle,
)
from soundpost.device.errors import BundleError, InputError
from soundpost.device.interpreter import Quantisation, available_runtimes

EXAMPLE = Path(__file__).parent / "examples" / "manifest.json"
CARD = "# tiny\n"


@pytest.fixture(scope="module")
def manifest(tiny: ModuleType) -> Manifest:
    made: Manifest = tiny.tiny_manifest()
    return made


@pytest.fixture(scope="module")
def raw(tiny: ModuleType, manifest: Manifest) -> bytes:
    student = tiny.tiny_student()
    return pack_bundle(manifest, student.model, tiny.tiny_golden(student, manifest), CARD)


def members_of(raw: bytes) -> dict[str, bytes]:
    import zipfile

    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repacked(raw: bytes, change: Callable[[dict[str, Any]], object], **members: bytes) -> bytes:
    """The bundle with members replaced, their hashes corrected, and its manifest changed."""
    content = members_of(raw) | members
    table = json.loads(content[MANIFEST])
    for name in (MODEL, GOLDEN, MODEL_CARD):
        table["sha256"][name] = hashlib.sha256(content[name]).hexdigest()
    change(table)
    content[MANIFEST] = json.dumps(table).encode()
    return write_archive(content)


def nothing(table: dict[str, Any]) -> None:
    del table


def test_what_is_written_is_read(tiny: ModuleType, manifest: Manifest, tmp_path: Path) -> None:
    student = tiny.tiny_student()
    golden = tiny.tiny_golden(student, manifest)
    path = tmp_path / "tiny.bundle"
    sha256 = write_bundle(path, manifest, student.model, golden, CARD)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    bundle = read_bundle(path)
    assert replace(bundle.manifest, sha256={}) == manifest
    assert bundle.model == student.model
    assert bundle.model_card == CARD
    assert bundle.sha256 == sha256
    for name in ("samples", "features", "logits", "embedding"):
        np.testing.assert_array_equal(getattr(bundle.golden, name), getattr(golden, name))
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_same_inputs_give_the_same_bytes(tiny: ModuleType, manifest: Manifest, raw: bytes) -> None:
    student = tiny.tiny_student()
    again = pack_bundle(manifest, student.model, tiny.tiny_golden(student, manifest), CARD)
    assert again == raw
    assert parse_bundle(raw, "x").manifest.to_json() == members_of(raw)[MANIFEST]


def test_numpy_reads_the_golden_vector(raw: bytes) -> None:
    with np.load(io.BytesIO(members_of(raw)[GOLDEN]), allow_pickle=False) as arrays:
        assert sorted(arrays) == ["embedding", "features", "logits", "samples"]
        np.testing.assert_array_equal(arrays["logits"], parse_bundle(raw, "x").golden.logits)


def test_the_manifest_is_frozen(tiny: ModuleType) -> None:
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in sorted(MEMBERS)}
    del hashes[MANIFEST]
    manifest = replace(tiny.tiny_manifest(), sha256=hashes)
    assert manifest.to_json() == EXAMPLE.read_bytes()
    assert Manifest.from_json(EXAMPLE.read_bytes()) == manifest


def test_unknown_fields_are_kept() -> None:
    table = json.loads(EXAMPLE.read_bytes())
    table["colour"] = {"of": ["the", "bikeshed"]}
    table["classes"][1]["priority"] = 3
    table["front_end"]["parameters_of_another_kind"] = None
    manifest = Manifest.from_json(json.dumps(table).encode())
    assert json.loads(manifest.to_json()) == table
    renamed = json.loads(replace(manifest, name="other").to_json())
    assert renamed == table | {"name": "other"}


def test_labels_of_speech() -> None:
    table = json.loads(EXAMPLE.read_bytes())
    assert Manifest.from_json(EXAMPLE.read_bytes()).speech_labels == ()
    label = table["labels"][1]
    manifest = Manifest.from_json(json.dumps(table | {"speech_labels": [label]}).encode())
    assert manifest.speech_labels == (label,)
    assert Manifest.from_json(manifest.to_json()) == manifest
    none = json.loads(replace(manifest, speech_labels=()).to_json())
    assert none["speech_labels"] == []
    for wrong in (["speech"], label, [1], None):
        with pytest.raises(BundleError, match="manifest: speech_labels"):
            Manifest.from_json(json.dumps(table | {"speech_labels": wrong}).encode())


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_is_refused(raw: bytes, data: st.DataObject) -> None:
    changed = bytearray(raw)
    changed[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BundleError, match=r"^there\.bundle: "):
        parse_bundle(bytes(changed), "there.bundle")


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cut_short_anywhere_is_refused(raw: bytes, data: st.DataObject) -> None:
    with pytest.raises(BundleError, match=r"^there\.bundle: "):
        parse_bundle(raw[: data.draw(st.integers(0, len(raw) - 1))], "there.bundle")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(data=st.data())
def test_a_manifest_with_any_value_replaced_is_read_or_refused(data: st.DataObject) -> None:
    table = json.loads(EXAMPLE.read_bytes())
    place: Any = table
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    try:
        manifest = Manifest.from_json(json.dumps(table).encode())
    except BundleError as error:
        refusal = str(error)
    else:
        assert Manifest.from_json(manifest.to_json()) == manifest
        return
    assert "\n" not in refusal
    assert refusal.startswith("manifest: ")


@given(st.binary(max_size=100))
def test_a_manifest_of_any_bytes_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError):
        Manifest.from_json(content)


def test_a_deeply_nested_manifest_is_refused() -> None:
    with pytest.raises(BundleError, match="not JSON"):
        Manifest.from_json(b"[" * 100_000)


REFUSED: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("schema", lambda t: t.update(schema="soundpost.bundle/2"), "soundpost.bundle/2.*update"),
    ("no schema", lambda t: t.pop("schema"), "schema is None"),
    ("missing", lambda t: t.pop("labels"), "labels is None"),
    ("kind", lambda t: t.update(kind="spectra"), "kind is 'spectra'.*'frames'; update soundpost"),
    ("frames", lambda t: t.update(kind="frames"), "frames is None"),
    ("others", lambda t: t.update(kind="frames", frames={}), "states is None"),
    ("name", lambda t: t.update(name="../evil"), "name is '../evil'"),
    ("version", lambda t: t.update(version="1.2"), "version is '1.2'.*1.0.0"),
    ("created", lambda t: t.update(created="yesterday"), "created is 'yesterday'.*UTC"),
    ("topic", lambda t: t["labels"].__setitem__(0, "a/b"), "labels is 'a/b'"),
    ("twice", lambda t: t["labels"].__setitem__(0, "smoke_alarm"), "labels is 'a repetition'"),
    ("order", lambda t: t["classes"].reverse(), "in the labels' order"),
    ("label", lambda t: t["labels"].append("dog"), "one for each label"),
    ("onset", lambda t: t["classes"][0].update(onset=1.5), r"classes\[0\].*onset is 1.5"),
    ("text", lambda t: t["classes"][0].update(onset="0.5"), r"classes\[0\].onset is '0.5'.*float"),
    ("infinite", lambda t: t.update(logit_limit=1e999), "Infinity is no JSON number"),
    ("huge", lambda t: t.update(logit_limit=10**400), r"logit_limit is 10*\.\.\.: expected"),
    ("long", lambda t: t.update(schema="a" * 9_000), r"schema is 'a{76}\.\.\.: this"),
    ("window", lambda t: t.update(window_samples=1_841), "window_samples is 1841.*whole number"),
    ("hop", lambda t: t.update(hop_samples=801), "hop_samples is 801.*multiple.*160"),
    (
        "front end",
        lambda t: t["front_end"]["parameters"].update(fmax_hz=7_000),
        "would hear something else",
    ),
    (
        "newer front end",
        lambda t: t["front_end"]["parameters"].update(pre_emphasis=0.97),
        "unknown or missing parameters: pre_emphasis",
    ),
    ("hash", lambda t: t["sha256"].update({MODEL: "0" * 64}), r"model\.tflite has sha256"),
    ("no hash", lambda t: t["sha256"].pop(MODEL_CARD), r"expected .*MODEL_CARD\.md"),
    ("more hashes", lambda t: t["sha256"].update(x="0" * 64), "sha256 names .*x"),
]


@pytest.mark.parametrize(
    ("change", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_a_wrong_manifest_is_refused(
    raw: bytes, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    with pytest.raises(BundleError, match=reason) as refusal:
        parse_bundle(repacked(raw, change), "x.bundle")
    assert str(refusal.value).startswith("x.bundle: ")
    assert "\n" not in str(refusal.value)


def test_repacked_without_a_change_is_read(raw: bytes) -> None:
    # So that each refusal above is due to its change and not to the packing.
    assert parse_bundle(repacked(raw, nothing), "x").manifest == parse_bundle(raw, "x").manifest


def golden_with(raw: bytes, **arrays: np.ndarray) -> bytes:
    return replace(parse_bundle(raw, "x").golden, **arrays).to_npz()  # type: ignore[arg-type]


def test_golden_vectors_of_other_shapes_are_refused(raw: bytes) -> None:
    golden = parse_bundle(raw, "x").golden
    for arrays in (
        {"logits": golden.logits[:, :2]},
        {"logits": golden.logits[:0], "embedding": golden.embedding[:0]},
        {"features": golden.features[1:]},
        {"samples": golden.samples[:-1]},
        {"embedding": golden.embedding[:-1]},
    ):
        content = golden_with(raw, **arrays)
        with pytest.raises(BundleError, match=r"golden\.npz: .*expected"):
            parse_bundle(repacked(raw, nothing, **{GOLDEN: content}), "x")


def npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


@pytest.mark.parametrize(
    "member",
    [
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}", b"1234"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"\x80\x04N."),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", bytes(8)),
        npy("{'descr': '<f4', 'fortran_order': True, 'shape': (1,)}", bytes(4)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", bytes(4)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", b"\0\0\xc0\x7f"),
        npy("[" * 50),
        b"",
        b"\x93NUMPY\x09\x00",
    ],
    ids=["huge", "pickle", "float64", "fortran", "negative", "nan", "nonsense", "empty", "version"],
)
def test_hostile_arrays_are_refused(raw: bytes, member: bytes) -> None:
    arrays = members_of(members_of(raw)[GOLDEN]) | {"samples.npy": member}
    content = write_archive(arrays)
    with pytest.raises(BundleError, match=r"golden\.npz: samples"):
        parse_bundle(repacked(raw, nothing, **{GOLDEN: content}), "x")


def test_the_golden_vector_reproduces(raw: bytes) -> None:
    for runtime in [name for name in available_runtimes() if name != "tensorflow"]:
        check = check_bundle(parse_bundle(raw, "x"), runtime=runtime)
        assert check.runtime == runtime
        assert check.n_windows == 3
        assert check.feature_error == 0.0
        assert check.score_error <= 0.02


def swapped(bundle: Bundle, **arrays: np.ndarray) -> Bundle:
    return replace(bundle, golden=replace(bundle.golden, **arrays))  # type: ignore[arg-type]


def test_a_golden_vector_that_does_not_reproduce_is_refused(raw: bytes) -> None:
    bundle = parse_bundle(raw, "x.bundle")
    golden = bundle.golden
    # A score of 0.5 has a slope of 1/4: 0.24 in logits is 0.06 in probability, 0.16 is 0.04.
    logits = np.zeros_like(golden.logits)
    interpreter = bundle.load_interpreter()
    features = golden.features
    real = np.stack([interpreter.run(features[i : i + 10]).logits for i in (0, 5, 10)])
    assert (np.abs(real) < 8).all()
    check_bundle(swapped(bundle, logits=real), interpreter)
    far = real.copy()
    far[1, 2] += 1.0 if far[1, 2] < 0 else -1.0
    with pytest.raises(BundleError, match=r"x\.bundle: golden vector: scores .*water drops"):
        check_bundle(swapped(bundle, logits=far), interpreter)
    with pytest.raises(BundleError, match="scores differ"):
        check_bundle(swapped(bundle, logits=logits + 8), interpreter)
    with pytest.raises(BundleError, match="features differ"):
        check_bundle(swapped(bundle, features=features + np.float32(0.002)), interpreter)
    check_bundle(swapped(bundle, features=features + np.float32(0.0005)), interpreter)


def test_a_model_that_does_not_fit_its_manifest_is_refused(
    tiny: ModuleType, manifest: Manifest, raw: bytes
) -> None:
    bundle = parse_bundle(raw, "x.bundle")
    for changed, reason in (
        (replace(bundle, model=tiny.tiny_student(n_labels=4).model), "4 outputs.*3 labels"),
        (replace(bundle, model=tiny.tiny_student(quantised=False).model), "input is quantised"),
        (replace(bundle, model=b"no model"), "cannot load it"),
        (replace(bundle, model=tiny.tiny_student(signature="x").model), "no signature scores"),
        (
            replace(bundle, manifest=replace(manifest, window_samples=16_240)),
            r"patches \(10, 64\).*\(100, 64\)",
        ),
        (
            replace(
                bundle,
                manifest=replace(
                    manifest, quantisation=manifest.quantisation | {"logits": Quantisation(0.1, 0)}
                ),
            ),
            "logits is quantised by 0.0627",
        ),
    ):
        with pytest.raises(BundleError, match=reason) as refusal:
            check_bundle(changed)
        assert str(refusal.value).startswith("x.bundle: ")


def test_float_students_work_too(tiny: ModuleType, tmp_path: Path) -> None:
    student = tiny.tiny_student(quantised=False)
    manifest = tiny.tiny_manifest(quantised=False)
    path = tmp_path / "float.bundle"
    write_bundle(path, manifest, student.model, tiny.tiny_golden(student, manifest), CARD)
    bundle, interpreter, check = open_bundle(path)
    assert bundle.manifest.weights == "float32"
    assert check.score_error < 1e-6
    assert interpreter.n_labels == 3


def test_a_bundle_that_would_be_refused_is_not_written(
    tiny: ModuleType, manifest: Manifest, tmp_path: Path
) -> None:
    student = tiny.tiny_student()
    golden = replace(tiny.tiny_golden(student, manifest), samples=np.zeros(5, np.float32))
    with pytest.raises(BundleError, match=r"golden\.npz"):
        write_bundle(tmp_path / "x.bundle", manifest, student.model, golden, CARD)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(
    tiny: ModuleType, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = tiny.tiny_student()
    golden = tiny.tiny_golden(student, manifest)
    path = tmp_path / "x.bundle"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        del descriptor
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"x\.bundle: cannot be written \(No space left"):
        write_bundle(path, manifest, student.model, golden, CARD)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.bundle: cannot be read \(No such file"):
        read_bundle(tmp_path / "none.bundle")
    with pytest.raises(InputError, match="Is a directory"):
        read_bundle(tmp_path)


def test_golden_of_wrong_members_is_refused() -> None:
    with pytest.raises(BundleError, match=r"logits\.npy is missing"):
        Golden.from_npz(write_archive({"samples.npy": b"", "features.npy": b""}))


def test_the_starter_bundle_is_in_order() -> None:
    bundle, interpreter, check = open_bundle(starter_bundle_path())
    assert {"smoke_alarm", "co_alarm"} <= set(bundle.manifest.labels)
    assert interpreter.n_labels == 52
    assert check.n_windows > 1
    assert starter_bundle_path().stat().st_size <= 4_000_000
