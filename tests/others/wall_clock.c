/* A wall clock that a test moves: what is asked for the time of day reads it from a shared page.
 *
 * Preloaded (LD_PRELOAD) into a server, with LASH_STORE_WALL_CLOCK naming a file that holds the
 * microseconds since the epoch. The monotonic clock is left alone: a server's timers go on.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile int64_t *now_us;

__attribute__((constructor)) static void map_clock(void) {
    int file = open(getenv("LASH_STORE_WALL_CLOCK"), O_RDONLY);
    now_us = mmap(NULL, sizeof *now_us, PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || now_us == MAP_FAILED) abort();
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    int64_t us = *now_us;
    (void)zone;
    at->tv_sec = us / 1000000;
    at->tv_usec = us % 1000000;
    return 0;
}

time_t time(time_t *at) {
    time_t s = *now_us / 1000000;
    if (at != NULL) *at = s;
    return s;
}
