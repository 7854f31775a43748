/* RTP packets and RTCP reports; soundpost_rtp.h says what each function does. */
#include "soundpost_rtp.h"

enum { RTP_VERSION = 0x80, RTCP_SENDER_REPORT = 200, RTCP_SDES = 202, RTCP_BYE = 203 };
enum { SDES_CNAME = 1, REPORT_BYTES = 28, BYE_BYTES = 8, MAX_CNAME = 255 };
enum { FIRST_DYNAMIC = 96, LAST_DYNAMIC = 127, IPV4_UDP_BYTES = 28 };

static uint8_t *put_16(uint8_t *out, uint32_t value)
{
    *out++ = (uint8_t)(value >> 8);
    *out++ = (uint8_t)value;
    return out;
}

static uint8_t *put_32(uint8_t *out, uint32_t value)
{
    return put_16(put_16(out, value >> 16), value & 0xffffu);
}

static size_t sample_bytes(sp_format format)
{
    return format == SP_INT16 ? 2 : format == SP_INT24 ? 3 : 4;
}

sp_block sp_interleaved(const void *samples, sp_format format, uint16_t n_channels, size_t n_frames)
{
    const size_t bytes = sample_bytes(format);
    const sp_block block = {samples, bytes * n_channels, bytes, n_frames, 0, n_channels, format};
    return block;
}

sp_block sp_planar(const void *samples, sp_format format, uint16_t n_channels, size_t n_frames,
                   size_t channel_frames)
{
    const size_t bytes = sample_bytes(format);
    const sp_block block = {samples, bytes, bytes * channel_frames, n_frames, 0, n_channels, format};
    return block;
}

size_t sp_n_streams(uint16_t n_channels)
{
    return ((size_t)n_channels + SP_STREAM_CHANNELS - 1) / SP_STREAM_CHANNELS;
}

size_t sp_split(sp_stream *streams, size_t max_streams, uint16_t n_channels, sp_encoding encoding,
                uint8_t payload_type, const uint32_t *random)
{
    const size_t n_streams = sp_n_streams(n_channels);
    size_t number;

    if (n_streams > max_streams || payload_type < FIRST_DYNAMIC || payload_type > LAST_DYNAMIC) {
        return 0;
    }
    for (number = 0; number < n_streams; number++) {
        sp_stream *stream = &streams[number];
        const uint16_t first = (uint16_t)(number * SP_STREAM_CHANNELS);
        const uint16_t left = (uint16_t)(n_channels - first);

        stream->ssrc = random[3 * number];
        stream->clock_offset = random[3 * number + 1];
        stream->timestamp = stream->clock_offset;
        stream->n_packets = 0;
        stream->n_octets = 0;
        stream->sequence = (uint16_t)random[3 * number + 2];
        stream->first_channel = first;
        stream->n_channels = (uint8_t)(left < SP_STREAM_CHANNELS ? left : SP_STREAM_CHANNELS);
        stream->payload_type = payload_type;
        stream->bytes_per_sample = (uint8_t)encoding;
    }
    return n_streams;
}

size_t sp_packet_bytes(const sp_stream *stream, size_t n_frames)
{
    return SP_RTP_PACKET_BYTES(stream->n_channels, stream->bytes_per_sample, n_frames);
}

size_t sp_max_frames(const sp_stream *stream, size_t mtu)
{
    const size_t headers = IPV4_UDP_BYTES + SP_RTP_HEADER_BYTES;
    const size_t frame_bytes = (size_t)stream->n_channels * stream->bytes_per_sample;
    return mtu < headers || frame_bytes == 0 ? 0 : (mtu - headers) / frame_bytes;
}

/* One function for each format: a choice within the loop would cost more than the copying. The
 * sample is brought to the upper bits of a word, from which two or three bytes go out. */
#define DEFINE_PACK(name, type, word)                                                        \
    static void name(const uint8_t *frame, const sp_block *block, size_t n_frames,           \
                     size_t n_channels, bool third, uint8_t *out)                            \
    {                                                                                        \
        while (n_frames-- > 0) {                                                             \
            const uint8_t *at = frame;                                                       \
            size_t left = n_channels;                                                        \
            while (left-- > 0) {                                                             \
                const type *sample = (const type *)(const void *)at;                         \
                const uint32_t bits = (word);                                                \
                *out++ = (uint8_t)(bits >> 24);                                              \
                *out++ = (uint8_t)(bits >> 16);                                              \
                if (third) {                                                                 \
                    *out++ = (uint8_t)(bits >> 8);                                           \
                }                                                                            \
                at += block->channel_stride;                                                 \
            }                                                                                \
            frame += block->frame_stride;                                                    \
        }                                                                                    \
    }

DEFINE_PACK(pack_int16, int16_t, (uint32_t)(uint16_t)*sample << 16)
DEFINE_PACK(pack_int24, uint8_t,
            (uint32_t)sample[2] << 24 | (uint32_t)sample[1] << 16 | (uint32_t)sample[0] << 8)
DEFINE_PACK(pack_int32, int32_t, (uint32_t)*sample)
DEFINE_PACK(pack_low24, int32_t, (uint32_t)*sample << 8)

size_t sp_packet(sp_stream *stream, const sp_block *block, size_t first_frame, size_t n_frames,
                 uint8_t *out, size_t capacity)
{
    const size_t n_channels = stream->n_channels;
    const size_t frame_bytes = n_channels * stream->bytes_per_sample;
    const bool third = stream->bytes_per_sample == SP_L24;
    const uint8_t *frame;
    size_t payload_bytes;

    if (capacity < SP_RTP_HEADER_BYTES || n_frames == 0 || frame_bytes == 0 ||
        n_frames > (capacity - SP_RTP_HEADER_BYTES) / frame_bytes ||
        first_frame > block->n_frames || n_frames > block->n_frames - first_frame ||
        stream->first_channel < block->first_channel ||
        stream->first_channel - block->first_channel + n_channels > block->n_channels) {
        return 0;
    }
    payload_bytes = n_frames * frame_bytes;

    *out++ = RTP_VERSION;
    *out++ = stream->payload_type;
    out = put_16(out, stream->sequence);
    out = put_32(out, stream->timestamp);
    out = put_32(out, stream->ssrc);

    frame = (const uint8_t *)block->samples + first_frame * block->frame_stride +
            (size_t)(stream->first_channel - block->first_channel) * block->channel_stride;
    switch (block->format) {
    case SP_INT16:
        pack_int16(frame, block, n_frames, n_channels, third, out);
        break;
    case SP_INT24:
        pack_int24(frame, block, n_frames, n_channels, third, out);
        break;
    case SP_INT32:
        pack_int32(frame, block, n_frames, n_channels, third, out);
        break;
    case SP_INT32_LOW24:
        pack_low24(frame, block, n_frames, n_channels, third, out);
        break;
    }

    stream->sequence++;
    stream->timestamp += (uint32_t)n_frames;
    stream->n_packets++;
    stream->n_octets += (uint32_t)payload_bytes;
    return SP_RTP_HEADER_BYTES + payload_bytes;
}

void sp_skip(sp_stream *stream, uint32_t n_frames)
{
    stream->timestamp += n_frames;
}

size_t sp_report(const sp_stream *stream, uint32_t ntp_seconds, uint32_t ntp_fraction,
                 const char *cname, bool bye, uint8_t *out, size_t capacity)
{
    size_t n_name = 0, sdes_bytes, total, left;

    while (n_name <= MAX_CNAME && cname[n_name] != '\0') {
        n_name++;
    }
    /* Header, SSRC, type and length of the item, the name, one to four zeros: whole words. */
    sdes_bytes = (10 + n_name) / 4 * 4 + 4;
    total = REPORT_BYTES + sdes_bytes + (bye ? BYE_BYTES : 0);
    if (n_name > MAX_CNAME || capacity < total) {
        return 0;
    }

    *out++ = RTP_VERSION;
    *out++ = RTCP_SENDER_REPORT;
    out = put_16(out, REPORT_BYTES / 4 - 1);
    out = put_32(out, stream->ssrc);
    out = put_32(out, ntp_seconds);
    out = put_32(out, ntp_fraction);
    out = put_32(out, stream->timestamp);
    out = put_32(out, stream->n_packets);
    out = put_32(out, stream->n_octets);

    *out++ = RTP_VERSION | 1; /* one source */
    *out++ = RTCP_SDES;
    out = put_16(out, (uint32_t)(sdes_bytes / 4 - 1));
    out = put_32(out, stream->ssrc);
    *out++ = SDES_CNAME;
    *out++ = (uint8_t)n_name;
    for (left = n_name; left > 0; left--) {
        *out++ = (uint8_t)*cname++;
    }
    for (left = sdes_bytes - 10 - n_name; left > 0; left--) {
        *out++ = 0;
    }

    if (bye) {
        *out++ = RTP_VERSION | 1;
        *out++ = RTCP_BYE;
        out = put_16(out, BYE_BYTES / 4 - 1);
        put_32(out, stream->ssrc);
    }
    return total;
}

uint32_t sp_ntp_fraction(uint32_t microseconds)
{
    /* 2^64 / 10^6, rounded up: one long multiplication, where a division would call the library. */
    return (uint32_t)((microseconds * UINT64_C(18446744073710)) >> 32);
}
