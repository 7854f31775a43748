"""Checkpoints that survive a kill at any moment: tensors in safetensors, written aside, renamed."""

from __future__ import annotations

import io
import json
import lzma
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically


def save_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
    """Write tensors and JSON notes as one safetensors file."""
    # Clones: averaged weights and the network share no memory, but views of one tensor would.
    flat = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomically(path, save(flat, {"notes": json.dumps(notes)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what save_tensors wrote; raises InputError on anything else."""
    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads((file.metadata() or {}).get("notes", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: is not a readable checkpoint ({error}); delete it to start again"
        ) from error


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as one .npz file."""
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    write_atomically(path, packed.getvalue())


def load_weights(network: nn.Module, path: Path, remedy: str = "train again") -> dict[str, Any]:
    """Put what save_tensors wrote into a network; its notes.

    Raises InputError where it is not readable, or of another network.
    """
    tensors, notes = load_tensors(path)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            f"{path}: does not fit what it belongs to ({' '.join(str(error).split())[:200]}); "
            f"{remedy}"
        ) from error
    return notes


def load_packed_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The same of a file that xz has made a tenth smaller: what an installation carries along."""
    try:
        raw = lzma.decompress(path.read_bytes())
        (size,) = struct.unpack_from("<Q", raw)
        header = json.loads(raw[8 : 8 + size])
        notes = json.loads(header.get("__metadata__", {}).get("notes", "{}"))
        return load(raw), notes
    except (OSError, EOFError, lzma.LZMAError, ValueError, struct.error, SafetensorError) as error:
        raise InputError(f"{path}: is not readable ({error}); install soundpost again") from error


def training_tensors(
    network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Everything a run needs to go on, by name."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"optimiser.{index}.{name}"] = torch.as_tensor(value)
    return tensors


def restore_training(
    tensors: dict[str, Tensor],
    network: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
) -> None:
    """Undo training_tensors."""
    for module, prefix in ((network, "network."), (average, "average.")):
        module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict(
        {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}
    )
