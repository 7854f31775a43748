"""Video frames as the published networks were trained to see them: resized, cropped, normalised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class FrameInput:
    """How frames are prepared.

    resize_px : length of the shorter side after resizing, with antialiasing
    crop_px : side of the square cut from the middle
    interpolation : of the resizing
    mean, std : of red, green and blue, at full scale 1; those of ImageNet by default
    crop_width_px : where no square is cut, its width; of a frame that is narrower, all of it
    """

    resize_px: int = 256
    crop_px: int = 224
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    crop_width_px: int = 0


# What torchvision publishes with the weights of VGG16, AlexNet and the ResNets (IMAGENET1K_V1).
IMAGENET = FrameInput()
# Of Inception-v4: a crop of 0.875 of the resized side.
INCEPTION = FrameInput(341, 299, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def crop_frames(frames: Tensor, settings: FrameInput = IMAGENET) -> Tensor:
    """Resize frames and cut out their middle, in whole levels.

    frames : (n, height, width, 3) uint8, red first, on the CPU
    Returns (n, 3, crop_px, crop_px or crop_width_px) uint8.
    """
    height, width = frames.shape[1:3]
    shorter = min(height, width)
    size = [side * settings.resize_px // shorter for side in (height, width)]
    planes = frames.permute(0, 3, 1, 2)
    if size != [height, width]:
        # In bytes torch does what Pillow does, with which the networks were trained, and takes a
        # twentieth of the time that floating point takes.
        planes = functional.interpolate(
            planes, size, mode=settings.interpolation, align_corners=False, antialias=True
        )
    wanted = settings.crop_px, settings.crop_width_px or settings.crop_px
    top, left = (max(0, round((side - cut) / 2)) for side, cut in zip(size, wanted, strict=True))
    return planes[:, :, top : top + wanted[0], left : left + wanted[1]]


def normalise(cropped: Tensor, settings: FrameInput = IMAGENET) -> Tensor:
    """(n, 3, height, width) uint8 to float32, by the mean and deviation of each colour."""
    mean = torch.tensor(settings.mean, device=cropped.device)[:, None, None]
    std = torch.tensor(settings.std, device=cropped.device)[:, None, None]
    return cropped.float().div_(255.0).sub_(mean).div_(std)


def prepare_frames(frames: Tensor, settings: FrameInput = IMAGENET) -> Tensor:
    """Frames to the input of a network.

    frames : (n, height, width, 3) uint8, red first, on the CPU
    Returns (n, 3, crop_px, crop_px or crop_width_px) float32.
    """
    return normalise(crop_frames(frames, settings), settings)
