"""A clip's seconds as patches: what the device hears of them, and of the rest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.errors import InputError
from soundpost.device.features import FrontEnd, log_mel
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.multimodal.second_features import (
    frames_per_second,
    heard_seconds,
    open_seconds,
)

FRONT_END = FrontEnd()


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 60_000), seed=st.integers(0, 99))
def test_a_second_is_100_frames_and_half_a_second_counts_as_one(n, seed):
    samples = np.random.default_rng(seed).uniform(-1, 1, n).astype(np.float32)
    found = heard_seconds(samples, FRONT_END)
    n_seconds = max(1, int(np.floor(n / 16_000 + 0.5)))
    assert found.shape == (100 * n_seconds, 64)
    # Every frame is the device's own, of a clip that silence follows.
    whole = log_mel(np.pad(samples, (0, 60_000)), FRONT_END)
    if n >= 16_000 * n_seconds + 240:
        # What follows the last second is heard, and not silence.
        whole = log_mel(samples, FRONT_END)
    np.testing.assert_array_equal(found, whole[: len(found)])


class Tones:
    """Clips whose sound is their id's number of seconds."""

    def sound(self, clip, rate_hz):
        if clip.id == "0":
            raise InputError("broken")
        rng = np.random.default_rng(int(clip.id))
        return rng.uniform(-1, 1, int(clip.id) * rate_hz).astype(np.float32)


def test_clips_keep_their_own_length_and_their_rows(tmp_path, caplog):
    clips = [MediaClip(str(n), None, None, (), "train") for n in (2, 0, 3)]
    heard = open_seconds(clips, Tones(), FRONT_END, tmp_path, skip=True, quiet=True)
    assert heard.n_frames().tolist() == [200, 0, 300]
    assert "0: left out: broken" in caplog.text
    seconds = heard.seconds(2)
    assert seconds.shape == (3, 100, 64)
    exact = heard_seconds(Tones().sound(clips[2], 16_000), FRONT_END)
    # Stored in two bytes.
    np.testing.assert_allclose(seconds.reshape(300, 64), exact, atol=4e-3)
    patches = heard.patches([2, 0], [57, 100])
    np.testing.assert_array_equal(patches[0], seconds.reshape(300, 64)[57:157])
    np.testing.assert_array_equal(patches[1], heard.seconds(0)[1])
    with pytest.raises(InputError, match="broken"):
        open_seconds(clips, Tones(), FRONT_END, tmp_path / "again", quiet=True)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="holds no sound"):
        heard_seconds(np.zeros(0, np.float32), FRONT_END)
    assert frames_per_second(FRONT_END) == 100
    with pytest.raises(InputError, match="a hop of 150 samples at 16000 Hz: expected a whole"):
        frames_per_second(FrontEnd(hop_length=150))
