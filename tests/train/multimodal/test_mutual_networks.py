"""Sizes worked out by hand from the text of yin2021, and what each network looks at."""

import pytest
import torch

from soundpost.device.errors import ConfigError
from soundpost.train.multimodal.mutual_networks import (
    AcousticContext,
    AcousticFeature,
    Inputs,
    SpectrogramNetwork,
    Standardise,
    StudentNetwork,
    TaggingSettings,
    TeacherNetwork,
    VectorNetwork,
    VisualNetwork,
)

N_LABELS = 17
SMALL = TaggingSettings(visual_size=10, width=0.125)
# 3 x 3 weights between 1, 64, 64, 128, 128, 256, 256, 512, 512 channels: 9 * 520,256; a scale and a
# shift for each of 1,920 channels.
AUDIO = 9 * 520_256 + 2 * 1_920


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def clips(n=3, n_frames=50, settings=SMALL):
    features = tuple(torch.randn(n, n_frames, f.size) for f in settings.acoustic)
    return Inputs(features, torch.randn(n, 10, settings.visual_size))


def test_the_audio_network_has_the_published_layers():
    net = SpectrogramNetwork(64, TaggingSettings().channels)
    assert parameters(net) == AUDIO == 4_686_144
    convolutions = [m for m in net.layers if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert all(c.kernel_size == (3, 3) and c.stride == (1, 1) for c in convolutions)
    kinds = [type(m).__name__ for m in net.layers if not isinstance(m, torch.nn.BatchNorm2d)]
    pair = ["Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d"]
    assert kinds == pair * 4


def test_parameters_of_teacher_and_student():
    settings = TaggingSettings()
    # 4096 x 128 weights and 2 x 128 of the normalisation; (512 + 128) x 17 + 17.
    teacher = AUDIO + 4096 * 128 + 256 + 640 * 17 + 17
    # W_c and b_c: 512 x 128 + 128.
    student = AUDIO + 512 * 128 + 128 + 640 * 17 + 17
    assert parameters(TeacherNetwork(N_LABELS, settings)) == teacher == 5_221_585
    assert parameters(StudentNetwork(N_LABELS, settings)) == student == 4_762_705
    plain = AUDIO + 512 * 17 + 17
    assert parameters(StudentNetwork(N_LABELS, settings, imagines=False)) == plain == 4_694_865
    assert parameters(VisualNetwork(N_LABELS, settings)) == 4096 * 128 + 256 + 128 * 17 + 17


def test_ten_seconds_give_63_frame_vectors_of_512():
    # 998 frames halved four times, rounded up: 499, 250, 125, 63.
    net = SpectrogramNetwork(64, TaggingSettings().channels).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 998, 64)).shape == (1, 63, 512)


def test_sizes_of_what_is_said():
    inputs = clips()
    for network, acoustic, visual in (
        (TeacherNetwork(N_LABELS, SMALL), 64, 16),
        (StudentNetwork(N_LABELS, SMALL), 64, 16),
        (StudentNetwork(N_LABELS, SMALL, imagines=False), 64, 0),
        (VisualNetwork(N_LABELS, SMALL), 0, 16),
    ):
        said = network(inputs)
        assert [tuple(t.shape) for t in said] == [(3, acoustic), (3, visual), (3, N_LABELS)]
        assert (network.acoustic_size, network.visual_size) == (acoustic, visual)


def test_the_global_context_is_the_mean_over_time():
    context = AcousticContext(SMALL).eval()
    (log_mel,) = clips().acoustic
    frames = context.parts[0](log_mel)
    assert frames.shape == (3, 4, 64)
    expected = (frames[:, 0] + frames[:, 1] + frames[:, 2] + frames[:, 3]) / 4
    torch.testing.assert_close(context((log_mel,)), expected)


def test_the_students_visual_context_follows_from_what_it_hears():
    student = StudentNetwork(N_LABELS, SMALL).eval()
    said = student(clips())
    w, b = student.imagine.weight, student.imagine.bias
    torch.testing.assert_close(said.visual, (said.acoustic @ w.T + b).clamp(min=0))
    both = torch.cat([said.acoustic, said.visual], 1)
    torch.testing.assert_close(said.logits, both @ student.tags.weight.T + student.tags.bias)


def test_the_student_does_not_look():
    student = StudentNetwork(N_LABELS, SMALL).eval()
    inputs = clips()
    for other in (None, 100 * inputs.visual):
        for before, after in zip(
            student(inputs), student(Inputs(inputs.acoustic, other)), strict=True
        ):
            assert torch.equal(before, after)


def test_the_teacher_looks_and_hears():
    teacher = TeacherNetwork(N_LABELS, SMALL).eval()
    inputs = clips()
    seen, heard = (
        Inputs(inputs.acoustic, -inputs.visual),
        Inputs((-inputs.acoustic[0],), inputs.visual),
    )
    before = teacher(inputs)
    assert torch.equal(teacher(seen).acoustic, before.acoustic)
    assert not torch.equal(teacher(seen).visual, before.visual)
    assert torch.equal(teacher(heard).visual, before.visual)
    assert not torch.equal(teacher(heard).acoustic, before.acoustic)


@pytest.mark.parametrize("network", [TeacherNetwork, VisualNetwork])
def test_who_must_see_says_so_where_there_is_no_video(network):
    with pytest.raises(ValueError, match="without video"):
        network(2, SMALL)(Inputs(clips().acoustic))


def test_video_frames_share_one_normalisation_and_their_mean_is_the_context():
    # One element, weight 1: frames 1, 3, 2, 6 have mean 3 and variance 3.5 (1 + 9 + 4 + 36 is 50,
    # over 4 is 12.5, less 9). Normalised -2, 0, -1, 3 over sqrt(3.5); ReLU leaves 0, 0, 0, 3.
    net = VectorNetwork(1, 1)
    torch.nn.init.ones_(net.linear.weight)
    context = net(torch.tensor([[[1.0], [3.0]], [[2.0], [6.0]]])).mean(1)
    expected = torch.tensor([[0.0], [3 / 3.5**0.5 / 2]])
    torch.testing.assert_close(context, expected, atol=1e-4, rtol=0)


def test_several_features_are_concatenated():
    settings = TaggingSettings(
        acoustic=(AcousticFeature(), AcousticFeature("vectors", 128)), visual_size=10
    )
    teacher = TeacherNetwork(N_LABELS, settings)
    # VGGish: 128 x 128 + 256; the tags see 512 + 128 + 128.
    assert parameters(teacher.hear) == AUDIO + 128 * 128 + 256
    assert teacher.tags.in_features == 768
    student = StudentNetwork(N_LABELS, settings).eval()
    log_mel, vggish = torch.randn(2, 32, 64), torch.randn(2, 10, 128)
    said = student(Inputs((log_mel, vggish)))
    assert said.acoustic.shape == (2, 640)
    assert torch.equal(said.acoustic[:, :512], student.hear.parts[0](log_mel).mean(1))
    assert torch.equal(said.acoustic[:, 512:], student.hear.parts[1](vggish).mean(1))


def test_a_missing_feature_is_not_passed_over():
    settings = TaggingSettings(
        acoustic=(AcousticFeature(), AcousticFeature("vectors", 8)), width=0.125
    )
    with pytest.raises(ValueError, match="zip"):
        StudentNetwork(2, settings)(Inputs((torch.zeros(1, 32, 64),)))


def test_standardised_bands_have_mean_0_and_deviation_1_and_travel_with_the_weights():
    layer = Standardise(3)
    x = torch.randn(1000, 3) * torch.tensor([2.0, 0.5, 0.0]) + torch.tensor([-6.0, 1.0, 4.0])
    assert torch.equal(layer(x), x)
    layer.set_to(x.mean(0), x.std(0))
    y = layer(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(y[:, :2].std(0), torch.ones(2), atol=1e-4, rtol=0)
    other = Standardise(3)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), y)
    assert not list(layer.parameters())


def test_a_shorter_clip_than_all_poolings_has_one_frame():
    assert SpectrogramNetwork(8, (4, 4, 4, 4, 4, 4, 4, 4))(torch.zeros(2, 1, 8)).shape == (2, 1, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"acoustic": ()}, "acoustic is empty"),
        ({"channels": (8, 8, 8)}, "3 channels"),
        ({"channels": ()}, "0 channels"),
    ],
)
def test_settings_that_make_no_network_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TaggingSettings(**settings)


def test_an_unknown_kind_of_feature_is_refused():
    with pytest.raises(ConfigError, match="spectrogram"):
        AcousticFeature("wave")
