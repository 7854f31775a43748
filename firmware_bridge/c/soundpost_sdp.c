/* Session descriptions (SDP, RFC 8866); soundpost_rtp.h says what sp_describe does. */
#include "soundpost_rtp.h"

/* A text that grows until it is full; then nothing more is written. */
typedef struct {
    char *out;
    size_t capacity, length;
    bool full;
} text;

static void put_char(text *to, char character)
{
    if (to->length == to->capacity) {
        to->full = true;
    } else {
        to->out[to->length++] = character;
    }
}

static void put(text *to, const char *characters)
{
    while (*characters != '\0') {
        put_char(to, *characters++);
    }
}

static void put_number(text *to, uint32_t number)
{
    uint32_t power = 1;

    while (number / power >= 10) {
        power *= 10;
    }
    for (; power > 0; power /= 10) {
        put_char(to, (char)('0' + number / power % 10));
    }
}

static void put_end(text *to)
{
    put(to, "\r\n");
}

/* Milliseconds of a number of microseconds, without zeros at the end. */
static void put_ms(text *to, uint32_t microseconds)
{
    uint32_t rest = microseconds % 1000;

    put_number(to, microseconds / 1000);
    if (rest > 0) {
        put_char(to, '.');
        for (; rest > 0; rest = rest * 10 % 1000) {
            put_char(to, (char)('0' + rest / 100));
        }
    }
}

static bool is_multicast(const char *address)
{
    uint32_t first = 0;

    for (; *address >= '0' && *address <= '9'; address++) {
        first = first * 10 + (uint32_t)(*address - '0');
    }
    return first >= 224 && first <= 239;
}

static void put_stream(text *to, const sp_session *session, const sp_stream *stream, uint32_t port)
{
    put(to, "m=audio ");
    put_number(to, port);
    put(to, " RTP/AVP ");
    put_number(to, stream->payload_type);
    put(to, "\r\nc=IN IP4 ");
    put(to, session->destination);
    if (is_multicast(session->destination)) {
        put_char(to, '/');
        put_number(to, session->ttl);
    }
    put(to, "\r\na=rtpmap:");
    put_number(to, stream->payload_type);
    put(to, stream->bytes_per_sample == SP_L24 ? " L24/" : " L16/");
    put_number(to, session->rate_hz);
    put_char(to, '/');
    put_number(to, stream->n_channels);
    put(to, "\r\na=ptime:");
    put_ms(to, session->packet_us);
    put_end(to);
    if (session->reference_clock != NULL) {
        put(to, "a=ts-refclk:");
        put(to, session->reference_clock);
        put_end(to);
    }
    put(to, "a=mediaclk:direct=");
    put_number(to, stream->clock_offset);
    put_end(to);
}

size_t sp_describe(const sp_session *session, const sp_stream *streams, size_t n_streams, char *out,
                   size_t capacity)
{
    text to = {out, capacity, 0, false};
    size_t number;

    put(&to, "v=0\r\no=- ");
    put_number(&to, session->id);
    put(&to, " 1 IN IP4 ");
    put(&to, session->origin);
    put(&to, "\r\ns=");
    put(&to, session->name[0] == '\0' ? "-" : session->name);
    put(&to, "\r\nt=0 0\r\n");
    for (number = 0; number < n_streams; number++) {
        put_stream(&to, session, &streams[number], (uint32_t)(session->port + 2 * number));
    }
    return to.full ? 0 : to.length;
}
