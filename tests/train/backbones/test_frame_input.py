"""Preparation of frames, against Pillow's resizing."""

from dataclasses import astuple

import numpy as np
import pytest
import torch

from soundpost.train.backbones.frame_input import IMAGENET, INCEPTION, FrameInput, prepare_frames


def picture(height, width, seed=0):
    # Smooth shapes with edges: what antialiasing is for.
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 20 + 1, width // 20 + 1, 3), np.uint8)
    return coarse.repeat(20, 0).repeat(20, 1)[:height, :width]


@pytest.mark.parametrize("settings", [IMAGENET, INCEPTION])
@pytest.mark.parametrize(("height", "width"), [(480, 640), (360, 202), (100, 100)])
def test_frames_are_resized_as_pillow_does_and_cropped_in_the_middle(settings, height, width):
    # Pillow's resizing is what the published networks were trained with.
    from PIL import Image

    frame = picture(height, width)
    shorter = min(height, width)
    size = (settings.resize_px * width // shorter, settings.resize_px * height // shorter)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    resized = Image.fromarray(frame).resize(size, filters[settings.interpolation])
    left, top = (round((side - settings.crop_px) / 2) for side in size)
    box = (left, top, left + settings.crop_px, top + settings.crop_px)
    expected = (np.asarray(resized.crop(box)) / 255.0 - settings.mean) / settings.std
    prepared = prepare_frames(torch.from_numpy(frame[None]), settings)
    assert prepared.shape == (1, 3, settings.crop_px, settings.crop_px)
    ours = prepared[0].permute(1, 2, 0).numpy()
    # A tie that Pillow's fixed point rounds the other way moves a value by a level in each pass.
    levels = np.abs(ours - expected) * 255 * settings.std
    assert levels.max() < 2.1
    assert (levels > 0.1).mean() < 0.01


def test_a_frame_of_the_right_size_is_only_normalised():
    # (128 / 255 - 0.485) / 0.229 = 0.0741 for red; 0.2052 for green, 0.4265 for blue
    frames = torch.full((2, 256, 256, 3), 128, dtype=torch.uint8)
    prepared = prepare_frames(frames)
    for plane, value in enumerate((0.0741, 0.2052, 0.4265)):
        assert prepared[:, plane].unique().tolist() == [pytest.approx(value, abs=1e-4)]


def test_red_is_first():
    frame = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    frame[..., 0] = 255
    plain = FrameInput(8, 8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert prepare_frames(frame, plain).mean((0, 2, 3)).tolist() == [1.0, 0.0, 0.0]


def test_the_preparations_are_those_published_with_the_weights():
    # torchvision: resize 256, bilinear, crop 224, mean and deviation of ImageNet.
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert astuple(IMAGENET) == (256, 224, "bilinear", mean, std, 0)
    # timm: 299 pixels are 0.875 of the shorter side, bicubic, full scale to ±1.
    half = (0.5, 0.5, 0.5)
    assert astuple(INCEPTION) == (int(299 / 0.875), 299, "bicubic", half, half, 0)
