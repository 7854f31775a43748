/* A board on this computer, for example_dma.c: a converter that counts, a circular DMA buffer, a
 * clock, and a network that is the standard output (port, length, datagram).
 *
 * Channel c of frame n is n * 128 + c in the upper 24 bits. Time begins at Unix second 1000 and runs
 * with the samples. board HALVES OVERRUN N: HALVES are filled in all; after the half OVERRUN the
 * program is late by N more.
 */
#include <stdio.h>
#include <stdlib.h>

#include "soundpost_rtp.h"

enum { N_CHANNELS = 128, FRAMES = 48, RATE_HZ = 48000 };

void dma_half_complete(void);
void dma_complete(void);
void array_run(void);
uint32_t board_random(void);
void board_invalidate_cache(const void *start, size_t length);
void board_start_dma(void *buffer, size_t length);
bool board_udp_send(uint16_t port, const void *datagram, size_t length);
void board_clock(volatile uint32_t *unix_seconds, volatile uint32_t *microseconds);
void board_wait_for_interrupt(void);
void board_announce(const char *sdp, size_t length);

static int32_t *dma;
static uint32_t filled, halves, overrun_after, overrun, random_number;

static void put(uint16_t port, const void *bytes, size_t length)
{
    const uint8_t head[4] = {(uint8_t)(port >> 8), (uint8_t)port, (uint8_t)(length >> 8),
                             (uint8_t)length};
    fwrite(head, 1, sizeof head, stdout);
    fwrite(bytes, 1, length, stdout);
}

static void fill_half(void)
{
    int32_t *half = dma + (filled % 2) * FRAMES * N_CHANNELS;
    size_t at;

    for (at = 0; at < FRAMES * N_CHANNELS; at++) {
        half[at] = (int32_t)((filled * FRAMES * N_CHANNELS + (uint32_t)at) << 8);
    }
    filled++;
    if (filled % 2 == 1) {
        dma_half_complete();
    } else {
        dma_complete();
    }
}

uint32_t board_random(void)
{
    return ++random_number * 2654435761u;
}

void board_invalidate_cache(const void *start, size_t length)
{
    (void)start;
    (void)length;
}

void board_start_dma(void *buffer, size_t length)
{
    if (length != 2 * FRAMES * N_CHANNELS * sizeof(int32_t)) {
        exit(3);
    }
    dma = buffer;
}

bool board_udp_send(uint16_t port, const void *datagram, size_t length)
{
    put(port, datagram, length);
    return true;
}

void board_clock(volatile uint32_t *unix_seconds, volatile uint32_t *microseconds)
{
    /* The converter has taken all frames of the halves that are full. */
    const uint32_t ms = filled * (1000 * FRAMES / RATE_HZ);

    *unix_seconds = 1000 + ms / 1000;
    *microseconds = ms % 1000 * 1000;
}

void board_wait_for_interrupt(void)
{
    uint32_t more;

    if (filled >= halves) {
        exit(fflush(stdout) == 0 ? 0 : 4);
    }
    fill_half();
    if (filled == overrun_after) {
        for (more = 0; more < overrun; more++) {
            fill_half();
        }
    }
}

void board_announce(const char *sdp, size_t length)
{
    put(0, sdp, length);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        return 2;
    }
    halves = (uint32_t)atoi(argv[1]);
    overrun_after = (uint32_t)atoi(argv[2]);
    overrun = (uint32_t)atoi(argv[3]);
    array_run();
}
