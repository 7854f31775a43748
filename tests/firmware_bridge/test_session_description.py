"""Descriptions as others write them, and nonsense, refused by its line."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.errors import InputError
from soundpost.firmware_bridge.session_description import (
    Origin,
    SessionDescription,
    SourceFilter,
    StreamDescription,
    parse_sdp,
)

# The multicast example of AES67 (annex on session descriptions).
AES67 = """\
v=0
o=- 1311738121 1311738121 IN IP4 192.168.1.1
s=Stage left I/O
c=IN IP4 239.0.0.1/32
t=0 0
m=audio 5004 RTP/AVP 96
i=Channels 1-8
a=rtpmap:96 L24/48000/8
a=recvonly
a=ptime:1
a=ts-refclk:ptp=IEEE1588-2008:39-A7-94-FF-FE-07-CB-D0:0
a=mediaclk:direct=963214424
"""
# What FFmpeg 5.1 prints for `-f rtp rtp://127.0.0.1:15004`.
FFMPEG = """\
SDP:
v=0
o=- 0 0 IN IP4 127.0.0.1
s=No Name
c=IN IP4 127.0.0.1
t=0 0
a=tool:libavformat LIBAVFORMAT_VERSION
m=audio 15004 RTP/AVP 98
b=AS:9216
a=rtpmap:98 L24/48000/8
"""
# RFC 8866, section 5: a call, in compressed sound.
CALL = """\
v=0
o=jdoe 3724394400 3724394405 IN IP4 198.51.100.1
s=Call to John Smith
i=SDP Offer #1
u=http://www.jdoe.example.com/home.html
e=Jane Doe <jane@jdoe.example.com>
p=+1 617 555-6011
c=IN IP4 198.51.100.1
t=0 0
m=audio 49170 RTP/AVP 0
m=audio 49180 RTP/AVP 0
m=video 51372 RTP/AVP 99
c=IN IP6 2001:db8::2
a=rtpmap:99 h263-1998/90000
"""


def test_the_standards_example() -> None:
    session = parse_sdp(AES67, "aes67.sdp")
    assert session.name == "Stage left I/O"
    assert session.origin == Origin("192.168.1.1", 1_311_738_121, 1_311_738_121)
    assert session.streams == (
        StreamDescription(
            address="239.0.0.1",
            port=5_004,
            payload_type=96,
            encoding="L24",
            rate_hz=48_000,
            n_channels=8,
            packet_ms=1.0,
            media_clock_offset=963_214_424,
            clock_reference="ptp=IEEE1588-2008:39-A7-94-FF-FE-07-CB-D0:0",
            ttl=32,
        ),
    )
    (stream,) = session.streams
    assert stream.is_multicast
    assert (stream.rtcp_port, stream.frame_bytes) == (5_005, 24)
    assert parse_sdp(AES67.replace("\n", "\r\n"), "crlf.sdp") == session


def test_as_ffmpeg_prints_it() -> None:
    (stream,) = parse_sdp(FFMPEG, "ffmpeg.sdp").streams
    assert (stream.address, stream.port, stream.payload_type) == ("127.0.0.1", 15_004, 98)
    assert (stream.packet_ms, stream.media_clock_offset, stream.is_multicast) == (None, None, False)


def test_streams_are_the_channels_in_their_order() -> None:
    """Lines of the session stand for all media that have none of their own; others are skipped."""
    text = """\
v=0
o=- 1 2 IN IP6 fd00::7
s=-
c=IN IP6 ff15::99
t=0 0
a=ts-refclk:localmac=00-11-22-33-44-55
a=mediaclk:direct=17
a=source-filter: incl IN IP6 * fd00::7 fd00::8
a=ptime:0.125
a=x-unknown:nobody knows this
m=video 6000 RTP/AVP 99
a=rtpmap:99 H264/90000
m=audio 5004 RTP/AVP 97 98
a=rtpmap:97 opus/48000/2
a=rtpmap:98 l16/48000/3
m=audio 0 RTP/AVP 96
a=rtpmap:96 L24/48000/8
m=audio 5006 RTP/AVP 96
c=IN IP6 ff15::100
a=rtpmap:96 L24/48000
a=mediaclk:direct=18 rate=1/1
a=rtcp:7001
a=source-filter: excl IN IP6 ff15::100 fd00::9
"""
    session = parse_sdp(text, "two.sdp")
    assert (session.name, session.n_channels, session.rate_hz) == ("", 4, 48_000)
    first, second = session.streams
    assert first == StreamDescription(
        address="ff15::99",
        port=5_004,
        payload_type=98,
        encoding="L16",
        rate_hz=48_000,
        n_channels=3,
        packet_ms=0.125,
        media_clock_offset=17,
        clock_reference="localmac=00-11-22-33-44-55",
        senders=SourceFilter(("fd00::7", "fd00::8")),
    )
    assert second == dataclasses.replace(
        first,
        address="ff15::100",
        port=5_006,
        payload_type=96,
        encoding="L24",
        n_channels=1,
        first_channel=3,
        media_clock_offset=18,
        senders=SourceFilter(("fd00::9",), include=False),
        rtcp_port=7_001,
    )
    assert first.senders is not None
    assert second.senders is not None
    asked = [first.senders.admits("fd00::7"), first.senders.admits("fd00::9")]
    asked += [second.senders.admits("fd00::7"), second.senders.admits("fd00::9")]
    assert asked == [True, False, True, False]


def test_static_payload_types_need_no_map() -> None:
    """RFC 3551, table 4: 10 is L16 at 44.1 kHz of two channels, 11 of one."""
    text = "v=0\no=- 1 1 IN IP4 1.2.3.4\ns=-\nc=IN IP4 1.2.3.4\nt=0 0\nm=audio 4000 RTP/AVP 10\n"
    (stream,) = parse_sdp(text, "static.sdp").streams
    assert (stream.encoding, stream.rate_hz, stream.n_channels) == ("L16", 44_100, 2)


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("v=0", "v=1", r"a\.sdp:1: found 'v=1', expected v=0, once"),
        ("v=0\n", "", r"a\.sdp:1: .* expected v=0 first: not SDP"),
        ("t=0 0", "hello", r"a\.sdp:5: found 'hello', expected a letter of SDP"),
        ("IN IP4 192", "IN IP4", r"a\.sdp:2: origin .*: expected a user, id"),
        ("239.0.0.1/32", "array.local/32", r"a\.sdp:4: connection .* look the name up"),
        ("239.0.0.1/32", "239.0.0.1/32/4", r"a\.sdp:4: .*: 4 groups, expected one"),
        ("c=IN IP4 239.0.0.1/32\n", "", r"a\.sdp:5: no address: expected a line such as c="),
        ("audio 5004", "audio 70000", r"a\.sdp:6: stream of .*: port 70000: expected 1 to 65535"),
        ("audio 5004", "audio 5004/2", r"a\.sdp:6: 2 ports; expected a medium for each"),
        ("audio 5004", "audio", r"a\.sdp:6: media .*: expected such as audio 5004 RTP/AVP 96"),
        ("audio 5004", "video 5004", r"a\.sdp: no stream of sound: expected"),
        ("RTP/AVP 96", "RTP/SAVP 96", r"a\.sdp:6: transport 'RTP/SAVP': expected RTP/AVP"),
        ("RTP/AVP 96", "RTP/AVP x", r"a\.sdp:6: format 'x': expected a payload type"),
        ("L24/48000", "opus/48000", r"a\.sdp:6: payload '96 OPUS': expected L16 or L24"),
        ("L24/48000/8", "L24", r"a\.sdp:8: rtpmap .*: expected such as 96 L24/48000/8"),
        ("48000/8", "48000/0", r"a\.sdp:6: .*: 0 channels from 0: expected 1"),
        ("48000/8", "48000/1025", r"a\.sdp:6: .*: channels up to 1025, more than 1024"),
        ("48000/8", "4000/8", r"a\.sdp:6: .*: rate 4000 Hz: expected 8000 to 192000 Hz"),
        ("ptime:1", "ptime:0", r"a\.sdp:10: ptime '0': expected milliseconds"),
        ("ptime:1", "ptime:9999", r"a\.sdp:6: .*: packets of 9999 ms: expected up to 1000 ms"),
        ("ptime:1", "ptime:900", r"a\.sdp:6: .* are 1036800 bytes: no datagram"),
        ("direct=963214424", "direct=4294967296", r"a\.sdp:12: mediaclk .* 0 to 2\^32 - 1"),
        ("direct=963214424", "direct=x", r"a\.sdp:12: mediaclk .* direct=963214424"),
        ("=963214424", "=1 rate=1000/1001", r"a\.sdp:12: .*a rate pulled up or down"),
        ("recvonly", "source-filter: incl IN IP4 * x", r"a\.sdp:9: source-filter 'x': expected"),
        ("recvonly", "source-filter: some", r"a\.sdp:9: source-filter 'some': expected"),
        ("recvonly", "rtcp:" + "9" * 5_000, r"a\.sdp:9: rtcp .*: expected a port from 1"),
    ],
)
def test_nonsense_is_refused_by_its_line(before: str, after: str, problem: str) -> None:
    assert before in AES67
    with pytest.raises(InputError, match=problem) as refused:
        parse_sdp(AES67.replace(before, after, 1), "a.sdp")
    assert "\n" not in str(refused.value)


def test_compressed_sound_is_refused() -> None:
    with pytest.raises(InputError, match=r"call\.sdp:10: payload '0 without rtpmap': expected L16"):
        parse_sdp(CALL, "call.sdp")


def test_streams_must_fit_together() -> None:
    media = AES67[AES67.index("m=") :]
    with pytest.raises(
        InputError, match=r"two\.sdp: .*: two streams are sent to 239\.0\.0\.1 port"
    ):
        parse_sdp(AES67 + media, "two.sdp")
    other = media.replace("5004", "5006")
    assert parse_sdp(AES67 + other, "two.sdp").n_channels == 16
    with pytest.raises(InputError, match="stream 2 has 44100 Hz and the first 48000 Hz"):
        parse_sdp(AES67 + other.replace("48000", "44100"), "two.sdp")
    stream = parse_sdp(AES67, "one.sdp").streams[0]
    with pytest.raises(InputError, match="stream 1 begins with channel 1; expected 0"):
        SessionDescription("", Origin("::1"), (dataclasses.replace(stream, first_channel=1),))
    with pytest.raises(InputError, match="no stream; expected at least one"):
        SessionDescription("", Origin("::1"), ())


ADDRESSES = st.sampled_from(["127.0.0.1", "192.0.2.9", "239.1.2.3", "fd00::7", "ff15::1"])
STREAMS = st.builds(
    StreamDescription,
    address=ADDRESSES,
    port=st.integers(1, 65_534),
    payload_type=st.integers(96, 127),
    encoding=st.sampled_from(["L16", "L24"]),
    rate_hz=st.just(48_000),
    n_channels=st.integers(1, 8),
    packet_ms=st.sampled_from([None, 0.125, 0.333333, 1.0, 4.0]),
    media_clock_offset=st.none() | st.integers(0, 2**32 - 1),
    clock_reference=st.none() | st.sampled_from(["localmac=00-11-22-33-44-55", "gps"]),
    senders=st.none() | st.builds(SourceFilter, st.just(("192.0.2.9",)), st.booleans()),
    rtcp_port=st.integers(0, 65_535),
    ttl=st.none(),
)


@given(
    st.text(st.characters(blacklist_categories=("C", "Z")), max_size=20),
    st.lists(STREAMS, min_size=1, max_size=4, unique_by=lambda each: (each.address, each.port)),
)
def test_what_is_written_is_read(name: str, streams: list[StreamDescription]) -> None:
    first, numbered = 0, []
    for stream in streams:
        multicast = stream.is_multicast and "." in stream.address
        ttl = 16 if multicast else None
        numbered.append(dataclasses.replace(stream, first_channel=first, ttl=ttl))
        first += stream.n_channels
    session = SessionDescription("" if name == "-" else name, Origin("fd00::7"), tuple(numbered))
    text = session.to_sdp()
    assert parse_sdp(text, "written.sdp") == session
    assert text.endswith("\r\n")


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(0, len(AES67) - 1), st.characters(), st.integers(0, 9)), max_size=6
    )
)
def test_any_text_is_a_description_or_refused(changes: list[tuple[int, str, int]]) -> None:
    text = AES67
    for place, character, cut in changes:
        text = text[:place] + character + text[place + cut :]
    said = ""
    try:
        assert 1 <= parse_sdp(text, "any.sdp").n_channels <= 1_024
    except InputError as error:
        said = str(error)
    assert said == "" or (said.startswith("any.sdp:") and "\n" not in said)
