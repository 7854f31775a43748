import numpy as np
import torch

from soundpost.device.features import FrontEnd, log_mel
from soundpost.train.log_mel import LogMel


def test_equals_the_device():
    rng = np.random.default_rng(1)
    samples = (rng.standard_normal((3, 16_240)) * [[1e-4], [0.1], [1.0]]).astype(np.float32)
    front_end = FrontEnd()
    ours = LogMel(front_end)(torch.from_numpy(samples))
    assert ours.shape == (3, 1, 100, 64)
    for row, clip in zip(ours, samples, strict=True):
        np.testing.assert_allclose(row[0].numpy(), log_mel(clip, front_end), atol=1e-3)


def test_gain_shifts_the_logarithm():
    samples = 0.02 * torch.randn(1, 16_240)
    net = LogMel(FrontEnd(log_offset=1e-9, clamp_low=-20.0))
    louder = net(samples, torch.full((1, 64), 2.0))
    torch.testing.assert_close(louder - net(samples), torch.full((1, 1, 100, 64), float(np.log(2))))
