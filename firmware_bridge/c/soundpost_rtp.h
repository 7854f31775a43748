/* RTP sender for the firmware of a microphone array: L16 and L24 packets, RTCP reports, SDP.
 *
 * C99, freestanding: no allocation, no floating point, no libc, no static RAM. Everything lives in
 * the caller's structures and buffers; README.md states their sizes and shows an example with DMA.
 *
 * RFC 3550 (RTP, RTCP), RFC 3551 (L16), RFC 3190 (L24), RFC 8866 (SDP), RFC 7273 (media clock).
 *
 * Functions that fill a buffer return the bytes they wrote, or 0 where something does not fit; then
 * no sequence number and no timestamp has been spent.
 */
#ifndef SOUNDPOST_RTP_H
#define SOUNDPOST_RTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Streams of more channels are not AES67, and many receivers refuse them. */
#define SP_STREAM_CHANNELS 8
#define SP_RTP_HEADER_BYTES 12
/* Length of a packet at compile time, to size the buffer of one. */
#define SP_RTP_PACKET_BYTES(channels, bytes_per_sample, frames) \
    (SP_RTP_HEADER_BYTES + (size_t)(channels) * (bytes_per_sample) * (frames))
/* A report with the longest name: sender report 28, SDES 10 + 255 padded, BYE 8. */
#define SP_RTCP_MAX_BYTES 304

/* How samples travel; the value is the bytes of one. */
typedef enum { SP_L16 = 2, SP_L24 = 3 } sp_encoding;

/* How samples lie in memory. Bits that the encoding has no room for are cut off, not rounded. */
typedef enum {
    SP_INT16,       /* int16_t */
    SP_INT24,       /* three bytes, the lowest first */
    SP_INT32,       /* int32_t, full scale: the sample in the upper bits */
    SP_INT32_LOW24  /* int32_t, the sample in the lower 24 bits; the upper 8 are ignored */
} sp_format;

/* A block of samples as a DMA controller left it. Strides are in bytes, so that interleaved and
 * planar buffers, and slots to be passed over, are all the same to the packetiser. */
typedef struct {
    const void *samples;      /* first sample of the first channel; aligned as its format needs */
    size_t frame_stride;      /* from a sample to the next one of the same channel */
    size_t channel_stride;    /* from a sample to that of the next channel, same time */
    size_t n_frames;
    uint16_t first_channel;   /* channel of the array that the first one here is */
    uint16_t n_channels;
    sp_format format;
} sp_block;

/* What a stream needs to know, and where it stands. */
typedef struct {
    uint32_t ssrc;
    uint32_t clock_offset;    /* RTP timestamp of the array's sample 0: a=mediaclk:direct */
    uint32_t timestamp;       /* of the next packet */
    uint32_t n_packets;       /* sent so far, as sender reports count them */
    uint32_t n_octets;        /* of payload */
    uint16_t sequence;        /* of the next packet */
    uint16_t first_channel;   /* in the array */
    uint8_t n_channels;
    uint8_t payload_type;     /* 96 to 127 */
    uint8_t bytes_per_sample; /* an sp_encoding */
} sp_stream;

/* Describe a buffer in which the channels of one moment lie together. */
sp_block sp_interleaved(const void *samples, sp_format format, uint16_t n_channels,
                        size_t n_frames);

/* Describe a buffer in which the moments of one channel lie together, channel after channel.
 * A half of a circular DMA buffer has its own n_frames and the whole buffer's channel_frames. */
sp_block sp_planar(const void *samples, sp_format format, uint16_t n_channels, size_t n_frames,
                   size_t channel_frames);

/* Streams that n channels need: 8 in each, the rest in the last. */
size_t sp_n_streams(uint16_t n_channels);

/* Set up the streams of an array, all starting at its sample 0.
 *
 * random: three numbers for each stream, for RFC 3550 asks for a start that nobody can guess; from
 *     the chip's random number generator, never the same after each reset
 *
 * Returns the number of streams, or 0 where there are more than max_streams or the payload type is
 * not a dynamic one.
 */
size_t sp_split(sp_stream *streams, size_t max_streams, uint16_t n_channels, sp_encoding encoding,
                uint8_t payload_type, const uint32_t *random);

/* Bytes of a packet of so many frames. */
size_t sp_packet_bytes(const sp_stream *stream, size_t n_frames);

/* The most frames that fit an IP packet of mtu bytes (1500 on Ethernet), with IPv4 and UDP. */
size_t sp_max_frames(const sp_stream *stream, size_t mtu);

/* Write one packet: frames [first_frame, first_frame + n_frames) of a block, the stream's channels.
 *
 * The stream moves on by one packet and n_frames. Returns the packet's bytes; 0 where it is empty,
 * does not fit into capacity, or the block lacks the frames or the channels.
 */
size_t sp_packet(sp_stream *stream, const sp_block *block, size_t first_frame, size_t n_frames,
                 uint8_t *out, size_t capacity);

/* Pass over frames that were lost before they could be sent (an overrun of the DMA): a receiver then
 * sees a gap of this length, and what follows stays in place. Call it for every stream. */
void sp_skip(sp_stream *stream, uint32_t n_frames);

/* Write an RTCP report: when, by the wall clock, the stream's next frame was taken. Every 5 s or so,
 * to the port above the stream's.
 *
 * ntp_seconds: since 1900 (Unix time + SP_NTP_UNIX); ntp_fraction: of a second, in 1/2^32
 * cname: the array's name, the same for all of its streams; at most 255 bytes
 * bye: the stream ends here
 */
#define SP_NTP_UNIX 2208988800u
size_t sp_report(const sp_stream *stream, uint32_t ntp_seconds, uint32_t ntp_fraction,
                 const char *cname, bool bye, uint8_t *out, size_t capacity);

/* Fraction of a second as NTP counts it, to 1 ns, without a division. */
uint32_t sp_ntp_fraction(uint32_t microseconds);

/* What a session description says beside the streams. Texts are ASCII without line ends. */
typedef struct {
    const char *name;            /* for people */
    const char *origin;          /* IPv4 address of the sender */
    const char *destination;     /* IPv4 address, unicast or multicast */
    const char *reference_clock; /* a=ts-refclk, such as "localmac=00-04-A3-12-34-56"; or NULL */
    uint32_t id;                 /* of this session, another one after each reset */
    uint32_t rate_hz;
    uint32_t packet_us;          /* of sound in a packet, up to a second */
    uint16_t port;               /* of the first stream; those after it have every second one */
    uint8_t ttl;                 /* multicast: how many routers packets may pass */
} sp_session;

/* Write the session description (SDP) of the streams, a text without a final zero: 110 bytes and the
 * texts, and for each stream up to 190 bytes and the reference clock. */
size_t sp_describe(const sp_session *session, const sp_stream *streams, size_t n_streams, char *out,
                   size_t capacity);

#endif
