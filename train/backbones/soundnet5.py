"""SoundNet-5 and the student of perez2020 that starts from it.

Aytar et al., "SoundNet: learning sound representations from unlabeled video" (2016), five layers,
as in the authors' published code: waveforms at 22,050 Hz, full scale 256, to ImageNet objects and
Places scenes. Perez et al. (2020), section 5.1, put layers of 1,024, 1,000 and 14 at its end
("OurSoundNet"). The text leaves open what they replace; in the authors' published code the fifth
convolution gets 1,024 channels instead of the object and scene scores, with batch normalisation,
and the three layers follow it. Convolutions are two-dimensional with a width of 1, so that
published weights keep their shapes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from soundpost.device.errors import InputError
from soundpost.train.backbones.torch7 import Torch7Object
from soundpost.train.backbones.transfer import start_from

N_OBJECTS = 1000
N_SCENES = 401
FEATURES = 1024
HIDDEN_UNITS = 1000
# Channels, kernel, whether a pooling by 8 follows; every stride is 2 and every padding half a
# kernel.
CONVOLUTIONS = ((32, 64, True), (64, 32, True), (128, 16, True), (256, 8, False))
POOL = 8
# Of the fifth convolution; one step spans five seconds.
LAST_KERNEL, LAST_STRIDE, LAST_PADDING = 16, 12, 4

# Places of the convolutions in the authors' file; batch normalisation follows each.
_PUBLISHED_PLACES = {"conv1": 0, "conv2": 4, "conv3": 8, "conv4": 12}
_PUBLISHED_HEADS = 15


class SoundNetTrunk(nn.Module):
    """The four convolutions that SoundNet-5 and its student have in common."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (1, *(c for c, _, _ in CONVOLUTIONS))
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            _convolution(c_in, *shape) for c_in, shape in zip(sizes, CONVOLUTIONS, strict=False)
        )

    def trunk(self, waveform: Tensor) -> dict[str, Tensor]:
        """Output of each convolution, conv1 to conv4, after its pooling where it has one.

        waveform : (n_clips, n_samples) at 22,050 Hz, full scale 256

        Each (n_clips, n_channels, n_steps, 1).
        """
        x = waveform[:, None, :, None]
        outputs: dict[str, Tensor] = {}
        for name in _PUBLISHED_PLACES:
            x = getattr(self, name)(x)
            outputs[name] = x
        return outputs


def _convolution(c_in: int, c: int, kernel: int, pooled: bool) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(c_in, c, (kernel, 1), (2, 1), (kernel // 2, 0)),
        nn.BatchNorm2d(c),
        nn.ReLU(inplace=True),
    ]
    if pooled:
        layers.append(nn.MaxPool2d((POOL, 1)))
    return nn.Sequential(*layers)


def _last_convolution(c: int) -> nn.Conv2d:
    return nn.Conv2d(CONVOLUTIONS[-1][0], c, (LAST_KERNEL, 1), (LAST_STRIDE, 1), (LAST_PADDING, 0))


class SoundNet5(SoundNetTrunk):
    """Waveforms to ImageNet objects and Places scenes, as published."""

    embedding_size = N_OBJECTS + N_SCENES

    def __init__(self) -> None:
        super().__init__()
        self.conv5_objects = _last_convolution(N_OBJECTS)
        self.conv5_scenes = _last_convolution(N_SCENES)

    def layers(self, waveform: Tensor) -> dict[str, Tensor]:
        """Output of each layer, conv1 to conv5 (objects, then scenes); see trunk."""
        outputs = self.trunk(waveform)
        last = outputs["conv4"]
        outputs["conv5"] = torch.cat([self.conv5_objects(last), self.conv5_scenes(last)], 1)
        return outputs

    def embed(self, waveform: Tensor) -> Tensor:
        """conv5 averaged over time: (n_clips, n_samples) to (n_clips, 1401)."""
        return self.layers(waveform)["conv5"].mean((2, 3))

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Scores before the softmax, averaged over time.

        waveform : (n_clips, n_samples) at 22,050 Hz, full scale 256, at least five seconds

        Returns objects (n_clips, 1000) and scenes (n_clips, 401).
        """
        scores = self.embed(waveform)
        return scores[:, :N_OBJECTS], scores[:, N_OBJECTS:]


class SoundNetStudent(SoundNetTrunk):
    """Waveforms to one score for each class and clip.

    n_classes : 14 actions as published
    start : trained SoundNet-5 whose first four convolutions it begins with
    """

    embedding_size = FEATURES

    def __init__(self, n_classes: int = 14, start: SoundNet5 | None = None) -> None:
        super().__init__()
        # No bias in the convolution: the batch normalisation after it has one.
        last = _last_convolution(FEATURES)
        last.register_parameter("bias", None)
        self.conv5 = nn.Sequential(last, nn.BatchNorm2d(FEATURES), nn.ReLU(inplace=True))
        self.conv6 = nn.Conv2d(FEATURES, FEATURES, 1)
        self.fc1 = nn.Conv2d(FEATURES, HIDDEN_UNITS, 1)
        self.fc2 = nn.Conv2d(HIDDEN_UNITS, n_classes, 1)
        self.relu = nn.ReLU()
        if start is not None:
            start_from(self, start, without=("conv5",))

    def layers(self, waveform: Tensor) -> dict[str, Tensor]:
        """Output of each layer: conv1 to conv6, fc1, and the scores as fc2; see trunk."""
        outputs = self.trunk(waveform)
        outputs["conv5"] = self.conv5(outputs["conv4"])
        outputs["conv6"] = self.relu(self.conv6(outputs["conv5"]))
        outputs["fc1"] = self.relu(self.fc1(outputs["conv6"]))
        outputs["fc2"] = self.fc2(outputs["fc1"])
        return outputs

    def forward(self, waveform: Tensor) -> Tensor:
        """Scores before the softmax.

        waveform : (n_clips, n_samples) at 22,050 Hz, full scale 256 (waveform.student_waveform);
            scores of more than five seconds are averaged over time

        Returns (n_clips, n_classes).
        """
        return self.layers(waveform)["fc2"].mean((2, 3))


def published_state(network: Any) -> dict[str, Tensor]:
    """State of SoundNet5 from what the authors' file (`soundnet5_final.t7`) holds.

    Raises InputError where it is another network.
    """
    try:
        modules = _modules(network)
        state: dict[str, Tensor] = {}
        for name, place in _PUBLISHED_PLACES.items():
            state |= _tensors(modules[place], f"{name}.0", ("weight", "bias"))
            statistics = ("weight", "bias", "running_mean", "running_var")
            state |= _tensors(modules[place + 1], f"{name}.1", statistics)
        heads = _modules(modules[_PUBLISHED_HEADS])
        state |= _tensors(heads[0], "conv5_objects", ("weight", "bias"))
        state |= _tensors(heads[1], "conv5_scenes", ("weight", "bias"))
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise InputError(f"is not SoundNet-5 as its authors published it ({error})") from error
    return state


def _modules(container: Torch7Object) -> list[Torch7Object]:
    # Lua counts from 1.
    table = container.fields["modules"]
    return [table[number] for number in range(1, len(table) + 1)]


def _tensors(module: Torch7Object, name: str, wanted: tuple[str, ...]) -> dict[str, Tensor]:
    return {f"{name}.{key}": torch.from_numpy(module.fields[key]).float() for key in wanted}
