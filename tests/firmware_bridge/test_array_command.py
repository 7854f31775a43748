"""`soundpost array` as a program: what it sends, prints and refuses, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from array_streams import free_ports
from receivers import FFmpeg, bound_ports, wait_for

from soundpost.device.array.geometry_files import read_acoular_xml, read_array
from soundpost.device.array.layouts import N_ITERATIONS, smallest_spacing_m
from soundpost.device.cli import run
from soundpost.device.errors import InputError, UsageError
from soundpost.firmware_bridge.array_command import ACTIONS
from soundpost.firmware_bridge.impairments import read_truth
from soundpost.firmware_bridge.session_description import parse_sdp

PROGRAM = [sys.executable, "-m", "soundpost.device", "array"]
RATE_HZ = 48_000


@pytest.fixture
def scene(tmp_path):
    """A file of twelve channels of 24-bit noise, half a second, and its whole numbers."""
    whole = np.random.default_rng(5).integers(-(2**23), 2**23, (24_000, 12), np.int32)
    path = tmp_path / "scene.wav"
    soundfile.write(path, whole << 8, RATE_HZ, subtype="PCM_24")
    return path, whole


def heard_by_ffmpeg(path, sdp, port, n_streams, packet, *options):
    """What FFmpeg hears of a file that is played, (n_samples, 12), by the description written.

    The description has to be there before FFmpeg is: the first run writes it for the second.
    """
    command = [*PROGRAM, "simulate", path, "--to", f"127.0.0.1:{port}", "--quiet", *options]
    subprocess.run(command, check=True, capture_output=True)
    receiver = FFmpeg(path.parent, sdp, port, n_streams, "s32le")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    streams = parse_sdp(sdp.read_text(), str(sdp)).streams
    parts = [
        np.frombuffer(raw, "<i4").reshape(-1, stream.n_channels) >> 8
        for raw, stream in zip(receiver.heard(), streams, strict=True)
    ]
    # FFmpeg takes the first packet of one stream to find out what comes.
    shortest = min(map(len, parts))
    assert 24_000 - shortest in (0, packet)
    return np.concatenate([part[len(part) - shortest :] for part in parts], axis=1), done.stdout


def test_a_file_is_heard_to_the_bit_with_swapped_and_dead_channels(scene):
    path, whole = scene
    port = free_ports(2)
    heard, said = heard_by_ffmpeg(
        path,
        path.with_suffix(".sdp"),
        port,
        2,
        48,
        "--swap",
        "4:9",
        "--dead",
        "3,7",
        "--seed",
        "11",
    )
    expected = whole[:, [0, 1, 2, 3, 9, 5, 6, 7, 8, 4, 10, 11]]
    expected[:, [3, 7]] = 0
    assert np.array_equal(heard, expected[24_000 - len(heard) :])
    assert re.fullmatch(
        rf"{path.with_suffix('.sdp')}: 2 streams of 12 channels, L24 at 48000 Hz, 48 samples a "
        rf"packet, to 127\.0\.0\.1 ports {port} to {port + 2}, seed 11\n"
        r"sent 0\.500 s: 1000 packets, 0\.9 MB; at most [\d.]+ ms late\n",
        said,
    )


def test_streams_packets_and_description_are_as_asked(scene):
    path, whole = scene
    port, sdp = free_ports(3), path.parent / "other.sdp"
    heard, _ = heard_by_ffmpeg(
        path, sdp, port, 3, 12, "--streams", "3", "--packet-ms", "0.25", "--sdp", sdp, "--seed", "1"
    )
    assert np.array_equal(heard, whole[24_000 - len(heard) :])
    read = parse_sdp(sdp.read_text(), str(sdp))
    assert [stream.n_channels for stream in read.streams] == [4, 4, 4]
    assert {stream.packet_ms for stream in read.streams} == {0.25}
    assert read.name == "scene"
    assert not path.with_suffix(".sdp").exists()


def test_the_same_seed_loses_the_same_packets(scene, tmp_path):
    path, _ = scene
    told = []
    for seed in (3, 3, 4):
        truth = tmp_path / "truth.csv"
        code = run(
            [
                *("array", "simulate", str(path), "--to", f"127.0.0.1:{free_ports(2)}", "--quiet"),
                *("--loss", "0.05", "--reorder", "0.05", "--duplicate", "0.01"),
                *("--seed", str(seed), "--truth", str(truth)),
                *("--jitter-ms", "1", "--drift-ppm", "100000"),
            ]
        )
        assert code == 0
        told.append(read_truth(truth))
    assert told[0] == told[1] != told[2]
    assert {one.what for one in told[0]} == {"lost", "reordered", "duplicate"}
    assert {one.stream for one in told[0]} == {0, 1}


def test_ctrl_c_ends_a_loop_with_totals_and_a_whole_truth(scene, tmp_path):
    path, _ = scene
    truth = tmp_path / "truth.csv"
    port = free_ports(2)
    program = subprocess.Popen(
        [
            *(*PROGRAM, "simulate", path, "--loop", "--to", f"127.0.0.1:{port}", "--quiet"),
            *("--loss", "0.1", "--truth", truth),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        first = program.stdout.readline()
        assert "2 streams" in first
        # Longer than the file: it has begun anew.
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(1.5)
        program.send_signal(signal.SIGINT)
        said, errors = program.communicate(timeout=60)
    finally:
        program.kill()
    assert (program.returncode, errors) == (130, "")
    found = re.fullmatch(r"sent ([\d.]+) s: (\d+) packets, .* MB; (\d+) lost; .*\n", said)
    assert float(found[1]) > 0.6
    rows = read_truth(truth)
    assert len(rows) == int(found[3])
    assert max(row.first_sample for row in rows) > 24_000


def test_a_group_is_sent_to_by_the_network_that_is_named(scene):
    """Multicast on the loopback: a socket that joins the group hears it."""
    path, whole = scene
    port, sdp = free_ports(2), path.with_suffix(".sdp")
    command = [*PROGRAM, "simulate", path, "--to", f"239.69.7.9:{port}", "--quiet", "--ttl", "0"]
    command += ["--interface", "127.0.0.1", "--seed", "2"]
    subprocess.run(command, check=True, capture_output=True)
    assert b"c=IN IP4 239.69.7.9/0\r\n" in sdp.read_bytes()
    received = path.parent / "heard.raw"
    listener = subprocess.Popen(
        [sys.executable, "-c", MULTICAST_EAR, str(port), str(received)], stdout=subprocess.PIPE
    )
    try:
        wait_for(lambda: port in bound_ports(), "the listener is there")
        subprocess.run(command, check=True, capture_output=True)
        listener.communicate(timeout=60)
    finally:
        listener.kill()
    found = np.frombuffer(received.read_bytes(), np.uint8).reshape(-1, 3).astype(np.int32)
    samples = (found[:, 0] << 24 | found[:, 1] << 16 | found[:, 2] << 8) >> 8
    assert np.array_equal(samples.reshape(-1, 8), whole[:, :8])


# Joins the group, and writes the payload of 500 packets.
MULTICAST_EAR = """
import socket, sys
port, path = int(sys.argv[1]), sys.argv[2]
ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
group = socket.inet_aton("239.69.7.9") + socket.inet_aton("127.0.0.1")
ear.bind(("239.69.7.9", port))
ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
ear.settimeout(60)
with open(path, "wb") as file:
    for _ in range(500):
        file.write(ear.recv(2000)[12:])
"""


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (["missing.wav"], InputError, "missing.wav: cannot be read"),
        (["FILE", "--to", "array.local"], UsageError, "--to array.local: expected an address"),
        (["FILE", "--to", "127.0.0.1:99999"], UsageError, "port 99999"),
        (["FILE", "--to", "127.0.0.1:0"], UsageError, "port 0: 2 streams"),
        (["FILE", "--to", "255.255.255.255"], UsageError, "cannot be sent to"),
        (["FILE", "--interface", "203.0.113.9"], UsageError, "interface 203.0.113.9"),
        (["FILE", "--interface", "eth0"], UsageError, "interface eth0"),
        (["FILE", "--to", "239.1.1.1", "--ttl", "300"], UsageError, "--ttl 300: expected 0 to 255"),
        (["FILE", "--streams", "13"], UsageError, "13 streams for 12 channels"),
        (["FILE", "--streams", "many"], UsageError, "--streams many: expected auto or a number"),
        (["FILE", "--packet-ms", "0"], UsageError, "--packet-ms 0"),
        (["FILE", "--packet-ms", "900", "--streams", "1"], UsageError, "a datagram has at most"),
        (["FILE", "--dead", "12"], UsageError, "channel 12: expected 0 to 11"),
        (["FILE", "--dead", "x"], UsageError, "--dead x: expected channels"),
        (["FILE", "--swap", "1:12"], UsageError, "channel 12"),
        (["FILE", "--swap", "1-2"], UsageError, "--swap 1-2: expected pairs"),
        (["FILE", "--loss", "2"], UsageError, "loss 2: expected a share"),
        (["FILE", "--drift-ppm", "nan"], UsageError, "drift nan ppm"),
        (["FILE", "--truth", "no/such/truth.csv"], InputError, "truth.csv: cannot be written"),
        (["FILE", "--sdp", "no/such/array.sdp"], InputError, "array.sdp: cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(scene, options, kind, message):
    path, _ = scene
    arguments = [str(path) if option == "FILE" else option for option in options]
    with pytest.raises(kind, match=re.escape(message)) as found:
        run(["array", "simulate", *arguments, "--quiet"])
    assert "\n" not in str(found.value)
    assert list(path.parent.iterdir()) == [path]


# ------------------------------------------------------------------------------------ layout


def test_a_layout_is_written_as_json_xml_and_picture(tmp_path, capsys):
    out, xml, picture = (tmp_path / name for name in ("array.json", "array.xml", "array.svg"))
    code = run(
        [
            *("array", "layout", "vogel", "--mics", "24", "--diameter", "0.2", "--out", str(out)),
            *("--xml", str(xml), "--picture", str(picture), "--half-width", "30"),
        ]
    )
    assert code == 0
    said = capsys.readouterr().out
    array = read_array(out)
    assert (array.geometry.n_mics, array.image.half_width_deg) == (24, 30.0)
    assert np.array_equal(read_acoular_xml(xml).positions_m, array.geometry.positions_m)
    spacing_mm = 1000 * smallest_spacing_m(array.geometry)
    assert said.startswith(f"{out}: 24 microphones on 0.2 m, at least {spacing_mm:.0f} mm apart\n")
    assert picture.read_text().count('r="3"') == 24


def test_the_optimised_layout_is_quieter_than_both_others(tmp_path, capsys):
    out = tmp_path / "array.json"
    arguments = ["array", "layout", "optimised", "--mics", "32", "--out", str(out), "--quiet"]
    assert run([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    levels = json.loads(captured.out)["largest_side_lobe_db"]["front"]
    assert levels["optimised"] < levels["vogel"] < levels["grid"]
    assert levels["optimised"] < levels["vogel"] - 5
    assert run(arguments[:-1]) == 0
    assert f"/{N_ITERATIONS}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mics", "2"], "2 microphones; expected 3 to 1024"),
        (["--diameter", "0"], "diameter 0 m; expected more than 0"),
        (["--max-hz", "5"], "highest frequency 5 Hz: expected 20 to 100000 Hz"),
        (["--half-width", "95"], "half_width_deg 95"),
        (["--diameter", "15", "--max-hz", "90000"], "too many lobes"),
        (["--diameter", "0.01", "--max-hz", "100"], "main lobe is wider than the image"),
    ],
)
@pytest.mark.parametrize("kind", ["vogel", "optimised", "grid"])
def test_an_impossible_layout_is_refused(tmp_path, kind, options, message):
    out = tmp_path / "array.json"
    with pytest.raises(InputError) as found:
        run(["array", "layout", kind, *options, "--out", str(out), "--quiet"])
    assert message in str(found.value) or "no side lobes within the image" in str(found.value)
    assert not out.exists()


def test_the_group_lists_its_actions(capsys):
    with pytest.raises(SystemExit):
        run(["array", "--help"])
    text = capsys.readouterr().out
    for name, command in ACTIONS.items():
        assert f"{name:<10} {command.summary}\n" in text
        with pytest.raises(SystemExit):
            run(["array", name, "--help"])
        assert f"\n  soundpost array {name}" in capsys.readouterr().out
