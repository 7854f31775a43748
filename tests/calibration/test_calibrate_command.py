"""`soundpost calibrate`: from files to calibration.json and a page, one section at a time."""

import argparse
import json
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from soundpost.calibration import scene_command
from soundpost.calibration.calibrate_command import COMMAND
from soundpost.calibration.propagation import PointSource
from soundpost.calibration.scene import Noise, Scene, render
from soundpost.calibration.scene_files import write_scene
from soundpost.calibration.signals import at_level, chirp, white_noise
from soundpost.calibration.trajectory import Trajectory
from soundpost.device.array.acoular_calib import read_acoular_calib
from soundpost.device.array.calibration_file import read_calibration
from soundpost.device.array.camera_map import to_pixels
from soundpost.device.array.geometry import ImageGrid, vogel_spiral
from soundpost.device.array.geometry_files import ArrayDescription, write_array
from soundpost.device.errors import InputError, UsageError
from soundpost.device.microphone import load_profile

RATE_HZ = 16_000
# Microphone 0 on channel 1, and channel 0 unused.
ARRAY = ArrayDescription(vogel_spiral(16), tuple(range(1, 17)), ImageGrid(18, 24))
TAKES = {"left": (-0.8, 0.2, 1.4), "right": (0.8, 0.1, 1.5), "above": (0.1, 0.9, 1.3)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_array(tmp_path / "array.json", ARRAY)
    return tmp_path


def call(command, *words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    parse = parser.parse_intermixed_args if command.intermixed else parser.parse_args
    return command.run(parse([str(word) for word in words]))


def calibrate(*words):
    return call(COMMAND, *words)


class Page(HTMLParser):
    """Elements of a page, and whatever it would load from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.loaded = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loaded += [value for key, value in attributes if key in ("src", "href")]
        if tag not in ("meta", "line", "circle", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in ("line", "circle", "path"):
            return
        assert self.open.pop() == tag


def check_page(path, n_plots):
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    assert page.loaded == []
    assert page.tags.count("svg") == n_plots
    assert "nan" not in path.read_text(encoding="utf-8").lower().split("</style>")[1]


def test_level_writes_a_section_and_a_profile(folder, capsys):
    times_s = np.arange(3 * 48_000) / 48_000
    rng = np.random.default_rng(0)
    samples = 1e-4 * rng.standard_normal((len(times_s), 17))
    samples[:, 5] += 0.1 * np.sin(2 * np.pi * 1000 * times_s)
    soundfile.write("tone.wav", samples, 48_000, subtype="PCM_24")
    (folder / "maker.txt").write_text("* miniDSP\nFreq dB\n100 -2\n1000 0.5\n8000 3\n")
    words = ["level", "tone.wav", "--level", 94, "--response", "maker.txt", "--report", "p.html"]
    assert calibrate(*words, "--array", "array.json", "--profile", "porch.toml") == 0
    told = capsys.readouterr().out
    assert "channel 5: sensitivity -20.00 dBFS at 94 dB SPL" in told
    calibration = read_calibration(folder / "calibration.json", ARRAY.geometry)
    assert calibration.level.channel == 5
    assert calibration.level.pa_per_unit == pytest.approx(1.0024 / 0.0707107, rel=1e-3)
    assert calibration.response.points == ((100.0, -2.0), (1000.0, 0.5), (8000.0, 3.0))
    profile = load_profile(folder / "porch.toml")
    assert profile.sensitivity_dbfs == pytest.approx(-20, abs=0.01)
    assert profile.response == calibration.response.points
    check_page(folder / "p.html", 1)


def test_json_of_a_level_is_its_section(folder, capsys):
    times_s = np.arange(2 * 48_000) / 48_000
    soundfile.write("tone.wav", 0.1 * np.sin(2 * np.pi * 1000 * times_s), 48_000, subtype="PCM_24")
    assert calibrate("level", "tone.wav", "--level", 94, "--profile", "p.toml", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pa_per_unit"] == pytest.approx(1.0024 / 0.0707107, rel=1e-3)
    assert (told["channel"], told["warnings"]) == (0, [])
    assert set(told["residuals"]) == {"frequency_hz", "unsteady_db", "snr_db"}
    assert not (folder / "calibration.json").exists()


def test_responses_come_from_makers_tables(folder, capsys):
    (folder / "maker.txt").write_text("Freq dB\n100 -2\n1000 0.5\n8000 3\n")
    (folder / "spare.csv").write_text("100,0,90\n1000,0,85\n2000,4,80\n")
    assert calibrate("response", "maker.txt", "--report", "r.html") == 0
    assert calibrate("response", "--microphone", 3, "spare.csv", "--json") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == [
        "a response for all microphones, 0 of 16 with one of their own",
        "written: calibration.json, r.html",
    ]
    assert json.loads(told[2])["by_microphone"] == {"3": [[100, 0], [1000, 0], [2000, 4]]}
    response = read_calibration(folder / "calibration.json", ARRAY.geometry).response
    assert response.points == ((100.0, -2.0), (1000.0, 0.5), (8000.0, 3.0))
    found = response.response_db(np.array([2_000.0]), 16)[0]
    expected = np.full(16, 2.5 * np.log(2) / np.log(8))
    expected[3] = 4.0
    np.testing.assert_allclose(found, expected, atol=1e-12)
    check_page(folder / "r.html", 1)


def test_a_session_brings_its_own_array(folder, capsys, record_session):
    """Recorded, then calibrated: no file beside the session is needed."""
    (folder / "array.json").unlink()
    rng = np.random.default_rng(5)
    times_s = np.arange(3 * RATE_HZ) / RATE_HZ
    samples = 1e-4 * rng.standard_normal((len(times_s), 17))
    samples[:, 6] += 0.1 * np.sin(2 * np.pi * 1000 * times_s)
    session = record_session("tone", samples, RATE_HZ, array=ARRAY)
    assert calibrate("level", session, "--level", 114) == 0
    assert "written: calibration.json" in capsys.readouterr().out
    level = read_calibration(folder / "calibration.json", ARRAY.geometry).level
    assert level.channel == 6
    # A profile alone asks for no calibration.json.
    (folder / "calibration.json").unlink()
    assert calibrate("level", session, "--level", 114, "--profile", "p.toml") == 0
    assert not (folder / "calibration.json").exists()
    # Its array is also that of what must be refused.
    message = "channel 16 is dead|SNR|degrees away|octaves"
    with pytest.raises(InputError, match=message):
        calibrate("array", "--take", session, 0, 0, 2)
    with pytest.raises(InputError, match="0 chirps or clicks are heard"):
        calibrate("positions", session)
    with pytest.raises(InputError, match="has no pictures"):
        calibrate("sync", session, "--quiet")
    with pytest.raises(InputError, match="has no pictures"):
        calibrate("camera", session, "--quiet")
    with pytest.raises(UsageError, match="a session brings its own sound; give it alone"):
        calibrate("camera", session, "tone.wav")


def test_array_names_faults_and_keeps_other_sections(folder, capsys):
    test_level_writes_a_section_and_a_profile(folder, capsys)
    for number, (name, place) in enumerate(TAKES.items()):
        (folder / f"{name}.toml").write_text(
            f'array = "array.json"\nseconds = 2.0\nrate_hz = {RATE_HZ}\nseed = 7\n'
            f"[[source]]\nnoise = true\nseconds = 1.9\nposition_m = {list(place)}\n"
            '[[noise]]\nkind = "diffuse"\nsnr_db = 20\n'
            "[microphones]\ngain_db = 1.0\ndelay_s = 1e-5\ninverted = 2\ndead = 1\nswapped = 1\n"
        )
        out = f"{name}.wav"
        assert call(scene_command.COMMAND, "render", f"{name}.toml", "--out", out, "--quiet") == 0
        assert number < 3
    truth = json.loads((folder / "left.json").read_text())["microphones"]
    capsys.readouterr()
    takes = [word for name, at in TAKES.items() for word in ("--take", f"{name}.wav", *at)]
    assert calibrate("array", *takes, "--report", "array.html") == 0
    told = capsys.readouterr().out
    assert told.startswith("11 of 16 microphones are as they should be\n")
    calibration = read_calibration(folder / "calibration.json", ARRAY.geometry)
    assert calibration.level.channel == 5
    section = calibration.microphones
    dead = [mic for mic, is_dead in enumerate(truth["dead"]) if is_dead]
    assert list(section.named("dead")) == dead
    assert list(section.inverted) == truth["inverted"]
    # The channel on which each microphone is: array.json's of the column that carries it.
    columns = np.argsort(truth["order"])
    assert section.channels == tuple(ARRAY.channels[column] for column in columns)
    check_page(folder / "array.html", 6)

    # Acoular's file both ways.
    capsys.readouterr()
    assert calibrate("export", "calib.xml") == 0
    # It came with a maker's response.
    assert "mind: the XML has no room for the response" in capsys.readouterr().out
    assert calibrate("import", "calib.xml", "--out", "other.json") == 0
    back = read_calibration(folder / "other.json", ARRAY.geometry)
    date = back.microphones.evidence.date
    assert back == read_acoular_calib(folder / "calib.xml", ARRAY, date)
    assert list(back.microphones.named("dead")) == dead
    # Into what has been measured it brings gains, and leaves what the XML has no room for.
    assert calibrate("import", "calib.xml") == 0
    merged = read_calibration(folder / "calibration.json", ARRAY.geometry).microphones
    assert merged.channels == section.channels
    assert merged.states == section.states
    np.testing.assert_array_equal(merged.delay_s, section.delay_s)
    alive = [mic for mic in range(len(section.gain)) if mic not in dead]
    ratio = np.array(merged.gain)[alive] / np.array(section.gain)[alive]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)


def test_poor_evidence_is_refused_and_leaves_no_file(folder):
    rng = np.random.default_rng(0)
    samples = 0.01 * rng.standard_normal((RATE_HZ * 2, 17))
    samples[:, 4] = 0
    soundfile.write("noise.wav", samples, RATE_HZ, subtype="PCM_24")
    message = r"channel 4 is dead: silent to the last bit; recording 1: SNR -?\d+ dB, expected 15"
    with pytest.raises(InputError, match=message):
        calibrate("array", "--take", "noise.wav", 0, 0, 2, "--report", "p.html")
    assert sorted(path.name for path in folder.iterdir()) == ["array.json", "noise.wav"]


def test_positions_are_written_and_older_delays_are_told_of(folder, capsys):
    rng = np.random.default_rng(2)
    drawn_m = ARRAY.geometry.positions_m
    true_m = drawn_m + rng.normal(0, 4e-3, drawn_m.shape)
    sound = at_level(chirp(300, 5500, 0.15, RATE_HZ), -20)
    z = (np.arange(12) + 0.5) / 12 * 0.75 + 0.2
    side, angle = np.sqrt(1 - z**2), np.arange(12) * 2.4
    places = np.stack([side * np.cos(angle), side * np.sin(angle), z], axis=1)
    sources = [
        PointSource(sound, Trajectory.at_rest(place), 0.2 + 0.4 * number)
        for number, place in enumerate(places * rng.uniform(0.6, 1.6, (12, 1)))
    ]
    # In two recordings, as one makes them.
    for name, some in (("a.wav", sources[:6]), ("b.wav", sources[6:])):
        shifted = tuple(
            PointSource(sound, of.place, 0.2 + 0.4 * number) for number, of in enumerate(some)
        )
        scene = Scene(shifted, round(2.8 * RATE_HZ), RATE_HZ, noises=(Noise("self", snr_db=30.0),))
        write_scene(folder / name, scene, render(scene, true_m), ARRAY)
    (folder / "calib.xml").write_text(
        "<Calib>" + '<pos Name="Point" factor="1.0"/>' * 16 + "</Calib>"
    )
    assert calibrate("import", "calib.xml") == 0
    capsys.readouterr()
    assert calibrate("positions", "a.wav", "b.wav", "--report", "p.html", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["warnings"]) == 1
    assert "run soundpost calibrate array again" in told["warnings"][0]
    placed_m = np.array(told["positions_m"])
    assert told["residuals"]["residual_s"] < 1e-6
    moved = placed_m - placed_m.mean(axis=0), true_m - true_m.mean(axis=0)
    # No turn is left but the one by which the drawing itself is off: a millimetre of it.
    assert np.sqrt(np.mean(np.square(moved[0] - moved[1]).sum(axis=1))) < 4e-3
    calibration = read_calibration(folder / "calibration.json", ARRAY.geometry)
    assert np.array_equal(calibration.positions.positions_m, placed_m)
    check_page(folder / "p.html", 4)


def test_sync_and_camera_from_video_files(folder, capsys, write_film):
    """A known camera, a lag of 100 ms, and a target that buzzes and shines at twelve places."""
    rng = np.random.default_rng(3)
    frame_rate, late_s = 20, 0.1
    events_s = np.array([0.61, 1.83, 2.94, 4.27])
    lit = [40 + rng.integers(0, 3, (48, 64)).astype(np.uint8) for _ in range(110)]
    heard = 1e-4 * rng.standard_normal((round(5.8 * RATE_HZ), 17))
    for event_s in events_s:
        lit[int(event_s * frame_rate)][20:24, 30:34] = 250
        first = round((event_s + late_s + 1.5 / 343.2) * RATE_HZ)
        heard[first : first + 100] += 0.4 * rng.standard_normal((100, 1))
    write_film(folder / "flash.mkv", lit, frame_rate)
    soundfile.write("flash.wav", heard, RATE_HZ, subtype="PCM_24")
    words = ["flash.mkv", "flash.wav", "--quiet"]
    assert calibrate("sync", *words, "--distance", 1.5, "--report", "s.html") == 0
    sync = read_calibration(folder / "calibration.json", ARRAY.geometry).sync
    # Stamps are the first moment of a frame; 1.5 m are 4.4 ms, which are no lag.
    stamps_s = np.floor(events_s * frame_rate) / frame_rate
    assert sync.audio_late_s == pytest.approx(late_s + (events_s - stamps_s).mean(), abs=3e-4)
    check_page(folder / "s.html", 1)

    matrix = np.array([[110.0, 0, 80], [0, -110, 60], [0, 0, 1]])
    stay_s = 0.9
    u, v = np.meshgrid([-0.5, -0.17, 0.17, 0.5], [-0.35, 0.0, 0.35])
    places = np.stack([u.ravel(), v.ravel(), np.ones(12)], axis=1) * 3.0
    buzz = at_level(white_noise(stay_s, RATE_HZ, rng), -20)
    scene = Scene(
        tuple(
            PointSource(buzz, Trajectory.at_rest(place), number * 1.0 + sync.audio_late_s)
            for number, place in enumerate(places)
        ),
        round(12.5 * RATE_HZ),
        RATE_HZ,
        noises=(Noise("self", snr_db=15.0),),
    )
    write_scene(folder / "target.wav", scene, render(scene, ARRAY.geometry.positions_m), ARRAY)
    rows, columns = np.indices((120, 160))
    frames = []
    for number in range(12 * frame_rate):
        column, row = to_pixels(matrix, 0.0, places[number // frame_rate][None])[0]
        distance = (rows - row) ** 2 + (columns - column) ** 2
        frames.append((30 + 200 * np.exp(-distance / 8)).astype(np.uint8))
    write_film(folder / "target.mkv", frames, frame_rate)
    capsys.readouterr()
    words = ["target.mkv", "target.wav", "--quiet"]
    assert calibrate("camera", *words, "--report", "c.html") == 0
    assert "12 of 12 places of the target fit within" in capsys.readouterr().out
    calibration = read_calibration(folder / "calibration.json", ARRAY.geometry)
    assert calibration.sync == sync
    camera = calibration.camera
    found = to_pixels(camera.matrix, camera.radial, places)
    # Three pixels of the video are half of one of the acoustic image.
    assert np.abs(found - to_pixels(matrix, 0.0, places)).max() < 3
    check_page(folder / "c.html", 2)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["level", "x.wav", "--level", 94], UsageError, "nothing to write: give --profile"),
        (["level", "x.wav", "--level", 90, "--profile", "p.toml"], UsageError, "about 94 or 114"),
        (
            ["level", "x.wav", "--level", 94, "--array", "array.json", "--channel", 0],
            InputError,
            "channel 0 is no microphone of 'vogel-16', which are on channels 1 to 16",
        ),
        (["array", "--take", "x.wav", "a", 0, 1], UsageError, "three numbers in metres"),
        (["array", "--take", "x.wav", 0, 0, 0], UsageError, "0.05 to 100 m away"),
        (["array", "--take", "x.wav", 0, 0, 1], InputError, "x.wav: cannot be read"),
        (["positions", "x.wav", "--spread-mm", 0], UsageError, "--spread-mm 0"),
        (["positions", "x.wav", "--temperature", 300], UsageError, "--temperature 300"),
        (["sync", "v.mp4", "x.wav", "--distance", -1], UsageError, "--distance -1"),
        (["sync", "v.mp4"], UsageError, "v.mp4: give its sound as well"),
        (["response"], UsageError, "give a FILE for all microphones, or --microphone"),
        (["response", "--microphone", "x", "m.txt"], UsageError, "expected its number from 0"),
        (["response", "m.txt"], InputError, "m.txt: cannot read"),
        (["camera", "v.mp4", "x.wav"], InputError, "v.mp4: cannot be read"),
        (["export", "c.xml"], InputError, "calibration.json: cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(folder, words, error, message):
    with pytest.raises(error, match=message) as caught:
        calibrate(*words)
    assert "\n" not in str(caught.value)
    assert [path.name for path in folder.iterdir()] == ["array.json"]


def test_a_calibration_of_another_array_is_not_touched(folder):
    other = ArrayDescription(vogel_spiral(16, 0.3))
    write_array(folder / "other.json", other)
    (folder / "calib.xml").write_text(
        "<Calib>" + '<pos Name="Point" factor="2.0"/>' * 16 + "</Calib>"
    )
    assert calibrate("import", "calib.xml", "--array", "other.json") == 0
    before = (folder / "calibration.json").read_bytes()
    with pytest.raises(InputError, match=r"calibration.json: belongs to array 'vogel-16'"):
        calibrate("array", "--take", "x.wav", 0, 0, 1)
    assert (folder / "calibration.json").read_bytes() == before


@pytest.mark.parametrize(
    "action", ["level", "response", "positions", "array", "sync", "camera", "import", "export"]
)
def test_help_of_an_action_has_its_own_examples(action, capsys):
    with pytest.raises(SystemExit):
        calibrate(action, "--help")
    examples = capsys.readouterr().out.partition("examples:\n")[2].splitlines()
    assert examples[0].startswith(f"  soundpost calibrate {action} ")
    for line in examples:
        assert line.startswith((f"  soundpost calibrate {action} ", "      --"))
    # What they show can be given.
    parser = argparse.ArgumentParser()
    COMMAND.add_arguments(parser)
    for line in "\n".join(examples).replace("\\\n", " ").splitlines():
        assert parser.parse_args(line.split()[2:]).action == action
