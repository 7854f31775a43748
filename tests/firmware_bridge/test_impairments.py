"""What a bad network does to packets is what it says it did; channels that are swapped or dead."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import InputError, UsageError
from soundpost.firmware_bridge.impairments import (
    Impaired,
    Impairments,
    ImpairmentSettings,
    faulty_order,
    read_truth,
    spoil_channels,
    truth_file,
)
from soundpost.firmware_bridge.packetiser import Datagram

PACKET = 48


def packets(n_packets, n_streams):
    return [
        Datagram(stream, (65_530 + number) & 0xFFFF, number * PACKET, PACKET, b"")
        for number in range(n_packets)
        for stream in range(n_streams)
    ]


def through(settings, seed, sent):
    """What comes out, in the order of the times at which it is due, and what is told."""
    told = []
    network = Impairments(settings, seed, told.append)
    out = [
        delivered
        for datagram in sent
        for delivered in network.send(datagram, datagram.first_sample / 48_000)
    ]
    out += network.flush(sent[-1].first_sample / 48_000 if sent else 0.0)
    assert network.counts == {
        what: sum(one.what == what for one in told) for what in ("lost", "reordered", "duplicate")
    }
    return sorted(out, key=lambda one: one[0]), told


shares = st.floats(0, 0.33)


@given(
    shares,
    shares,
    shares,
    st.sampled_from([0.0, 0.5, 7.0]),
    st.integers(1, 6),
    st.integers(0, 2**32),
    st.integers(0, 80),
    st.integers(1, 3),
)
def test_what_is_told_is_what_was_done(
    loss, reorder, duplicate, jitter_ms, depth, seed, n_packets, n_streams
):
    """The truth, taken from what came out: lost, doubled, and overtaken by how many others."""
    sent = packets(n_packets, n_streams)
    settings = ImpairmentSettings(loss, reorder, duplicate, jitter_ms, depth)
    delivered, told = through(settings, seed, sent)
    assert (delivered, told) == through(settings, seed, sent)

    counted = Counter(datagram for _, datagram in delivered)
    assert set(counted) <= set(sent)
    rows = {what: [] for what in ("lost", "reordered", "duplicate")}
    for one in told:
        rows[one.what].append(one)
        assert (one.sequence - 65_530) % 65_536 * one.n_samples == one.first_sample
    assert {row[1:5] for row in rows["lost"]} == {one[:4] for one in sent if not counted[one]}
    assert {row[1:5] for row in rows["duplicate"]} == {
        one[:4] for one, count in counted.items() if count == 2
    }
    assert max(counted.values(), default=0) <= 2

    for stream in range(n_streams):
        firsts = list(
            dict.fromkeys(one.first_sample for _, one in delivered if one.stream == stream)
        )
        overtaken = {
            first: sum(other > first for other in firsts[:place])
            for place, first in enumerate(firsts)
        }
        assert {first: count for first, count in overtaken.items() if count} == {
            row.first_sample: row.places for row in rows["reordered"] if row.stream == stream
        }
    for due_s, one in delivered:
        late_s = due_s - one.first_sample / 48_000
        assert late_s >= 0
        # Packets that are held back wait for others.
        assert reorder + duplicate or late_s <= jitter_ms / 1000 + 1e-12


def test_shares_are_those_that_were_asked_for():
    """Of 40,000 packets, within four standard deviations of a binomial."""
    n = 40_000
    settings = ImpairmentSettings(loss=0.01, reorder=0.05, duplicate=0.02)
    _, told = through(settings, 1, packets(n // 16, 16))
    counts = Counter(one.what for one in told)
    for what, share in [("lost", 0.01), ("reordered", 0.05), ("duplicate", 0.02)]:
        assert abs(counts[what] - n * share) < 4 * np.sqrt(n * share * (1 - share))
    places = Counter(one.places for one in told if one.what == "reordered")
    assert set(places) >= {1, 2, 3}
    assert min(places[1], places[2], places[3]) > 500


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"loss": 1.1}, "loss 1.1: expected a share from 0 to 1"),
        ({"reorder": -0.1}, "reorder -0.1"),
        ({"loss": 0.6, "duplicate": 0.5}, "more than all packets"),
        ({"jitter_ms": -1.0}, "jitter -1 ms"),
        ({"loss": float("nan")}, "loss nan"),
        ({"depth": 0}, "depth 0"),
    ],
)
def test_an_impossible_network_is_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        ImpairmentSettings(**wrong)


def test_the_truth_on_disk_appears_whole_even_when_the_run_is_stopped(tmp_path):
    path = tmp_path / "truth.csv"
    rows = [Impaired("lost", 3, 65_535, 960, 48), Impaired("reordered", 0, 0, 0, 48, 2)]

    def stopped():
        with truth_file(path) as record:
            record(rows[0])
            assert not path.exists()
            record(rows[1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_text() == (
        "what,stream,sequence,first_sample,n_samples,places\n"
        "lost,3,65535,960,48,0\nreordered,0,0,0,48,2\n"
    )
    assert read_truth(path) == rows
    assert list(tmp_path.iterdir()) == [path]
    missing = tmp_path / "missing" / "truth.csv"
    with (
        pytest.raises(InputError, match=r"truth\.csv: cannot be written \(No such file"),
        truth_file(missing),
    ):
        raise AssertionError


# ------------------------------------------------------------------------------------ channels


def test_swapped_plugs_and_dead_microphones():
    samples = np.arange(1, 11, dtype=np.float32).reshape(2, 5)
    spoilt = spoil_channels(samples, faulty_order(5, [(1, 3)]), [3])
    # Channel 3 is dead as the receiver counts: where it hears microphone 1.
    assert spoilt.tolist() == [[1, 4, 3, 0, 5], [6, 9, 8, 0, 10]]
    assert samples.tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
    assert spoil_channels(samples, faulty_order(5, []), []) is samples
    # One plug after the other, as hands do it
    assert faulty_order(4, [(0, 1), (1, 2)]) == [1, 2, 0, 3]
    with pytest.raises(UsageError, match="channel 5: expected 0 to 4"):
        faulty_order(5, [(0, 5)])
