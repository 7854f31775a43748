"""A small visual network: its size, and that it does not matter where a thing is."""

import torch

from soundpost.train.backbones.counts import counts, multiply_adds
from soundpost.train.backbones.frame_input import crop_frames
from soundpost.train.backbones.picture_net import FRAMES, PictureNet


def test_sizes_are_those_worked_out_by_hand():
    network = PictureNet(16)
    layers = [(3, 16, 120 * 160), (16, 32, 60 * 80), (32, 64, 30 * 40), (64, 64, 30 * 40),
              (64, 128, 15 * 20), (128, 128, 15 * 20)]  # fmt: skip
    weights = sum(9 * c_in * c_out for c_in, c_out, _ in layers)
    assert weights == 281_520
    assert counts(network).weights == weights + 128 * 16
    made = sum(9 * c_in * c_out * size for c_in, c_out, size in layers) + 128 * 16
    assert multiply_adds(network, torch.zeros(1, 3, 240, 320)) == made
    assert network.features(torch.zeros(1, 3, 240, 320)).shape == (1, 128, 15, 20)


@torch.no_grad()
def test_a_thing_is_the_same_wherever_it_is():
    torch.manual_seed(0)
    network = PictureNet(4).eval()
    thing = torch.randn(3, 24, 24)
    # Steps of 16 pixels, by which the map's cells are apart, and far from the edges.
    frames = torch.zeros(3, 3, 240, 320)
    for frame, (top, left) in zip(frames, ((96, 96), (144, 96), (96, 208)), strict=True):
        frame[:, top : top + 24, left : left + 24] = thing
    embedded = network.embed(frames)
    torch.testing.assert_close(embedded[1:], embedded[:1].expand(2, -1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(embedded[0], network.embed(torch.zeros(1, 3, 240, 320))[0])


def test_it_sees_all_of_a_4_to_3_frame_and_the_middle_of_a_wider_one():
    frame = torch.arange(640).repeat(480, 1).div(640 / 256, rounding_mode="floor")
    whole = crop_frames(frame.to(torch.uint8)[None, :, :, None].expand(1, 480, 640, 3), FRAMES)
    assert whole.shape == (1, 3, 240, 320)
    assert (int(whole.min()), int(whole.max())) == (0, 255)
    wide = torch.zeros(1, 240, 426, 3, dtype=torch.uint8)
    wide[:, :, 53:373] = 200
    assert (crop_frames(wide, FRAMES) == 200).all()
    # A narrower one is taken as it is.
    assert crop_frames(torch.zeros(1, 240, 240, 3, dtype=torch.uint8), FRAMES).shape[2:] == (
        240,
        240,
    )
