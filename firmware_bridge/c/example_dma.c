/* An array of 128 microphones at 48 kHz on one circular DMA buffer, sent as 16 streams of 1 ms.
 *
 * What the board must bring is declared here and defined nowhere: this file is compiled, to state
 * the RAM that an array needs, and not linked.
 */
#include "soundpost_rtp.h"

enum { N_CHANNELS = 128, RATE_HZ = 48000, PACKET_FRAMES = 48, PORT = 5004, PAYLOAD_TYPE = 98 };
enum { REPORT_HALVES = 5 * RATE_HZ / PACKET_FRAMES }; /* every 5 s */
enum { N_STREAMS = (N_CHANNELS + SP_STREAM_CHANNELS - 1) / SP_STREAM_CHANNELS };

/* --- the board ------------------------------------------------------------------------------ */
uint32_t board_random(void);                      /* from the generator of the chip */
void board_invalidate_cache(const void *start, size_t length);
void board_start_dma(void *buffer, size_t length);
bool board_udp_send(uint16_t port, const void *datagram, size_t length);
void board_clock(volatile uint32_t *unix_seconds, volatile uint32_t *microseconds);
void board_wait_for_interrupt(void);
void board_announce(const char *sdp, size_t length);  /* SAP, HTTP, a serial console */

/* --- the array ------------------------------------------------------------------------------ */
/* Two halves, one filled while the other is sent. 32 bytes are a line of the Cortex-M7's cache. */
__attribute__((aligned(32))) static int32_t dma_buffer[2][PACKET_FRAMES][N_CHANNELS];
static sp_stream streams[N_STREAMS];
static uint8_t datagram[SP_RTP_PACKET_BYTES(SP_STREAM_CHANNELS, SP_L24, PACKET_FRAMES)];
static volatile uint32_t halves_filled, filled_seconds, filled_microseconds;

void dma_half_complete(void);
void dma_complete(void);
void array_run(void);

/* Interrupts only count and note the time: that at which the next half's first frame is taken. Half 0
 * is full after an odd number of them, half 1 after an even one. */
static void half_filled(void)
{
    board_clock(&filled_seconds, &filled_microseconds);
    halves_filled++;
}

void dma_half_complete(void)
{
    half_filled();
}

void dma_complete(void)
{
    half_filled();
}

static void announce(void)
{
    static char text[4096];
    const sp_session session = {
        .name = "Soundpost array",
        .origin = "192.168.1.50",
        .destination = "239.69.1.50",
        .reference_clock = "localmac=00-04-A3-12-34-56",
        .id = board_random(),
        .rate_hz = RATE_HZ,
        .packet_us = 1000,
        .port = PORT,
        .ttl = 1,
    };
    board_announce(text, sp_describe(&session, streams, N_STREAMS, text, sizeof text));
}

/* False where an interrupt came between: its time is that of another frame. */
static bool report(uint32_t halves_sent)
{
    uint8_t out[SP_RTCP_MAX_BYTES];
    const uint32_t seconds = filled_seconds, microseconds = filled_microseconds;
    size_t number;

    if (halves_filled != halves_sent) {
        return false;
    }
    for (number = 0; number < N_STREAMS; number++) {
        const size_t length =
            sp_report(&streams[number], seconds + SP_NTP_UNIX, sp_ntp_fraction(microseconds),
                      "soundpost-0004a3123456", false, out, sizeof out);
        board_udp_send((uint16_t)(PORT + 2 * number + 1), out, length);
    }
    return true;
}

static void send_half(uint32_t half)
{
    const sp_block block = sp_interleaved(dma_buffer[half], SP_INT32, N_CHANNELS, PACKET_FRAMES);
    size_t number;

    board_invalidate_cache(dma_buffer[half], sizeof dma_buffer[half]);
    for (number = 0; number < N_STREAMS; number++) {
        const size_t length =
            sp_packet(&streams[number], &block, 0, PACKET_FRAMES, datagram, sizeof datagram);
        board_udp_send((uint16_t)(PORT + 2 * number), datagram, length);
    }
}

void array_run(void)
{
    uint32_t random[3 * N_STREAMS];
    uint32_t halves_sent = 0, number;
    bool report_due = false;

    for (number = 0; number < 3 * N_STREAMS; number++) {
        random[number] = board_random();
    }
    sp_split(streams, N_STREAMS, N_CHANNELS, SP_L24, PAYLOAD_TYPE, random);
    announce();
    board_start_dma(dma_buffer, sizeof dma_buffer);
    for (;;) {
        const uint32_t waiting = halves_filled - halves_sent;

        if (waiting == 0) {
            board_wait_for_interrupt();
            continue;
        }
        /* Of two halves or more that wait, all but the last have been written over. */
        if (waiting > 1) {
            for (number = 0; number < N_STREAMS; number++) {
                sp_skip(&streams[number], (waiting - 1) * PACKET_FRAMES);
            }
            halves_sent += waiting - 1;
        }
        send_half(halves_sent & 1u);
        halves_sent++;
        report_due = report_due || halves_sent % REPORT_HALVES == 0;
        if (report_due) {
            report_due = !report(halves_sent);
        }
    }
}
