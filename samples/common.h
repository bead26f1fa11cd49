/* What every native sample shares: a bounded run in exact time that states its own truth.
 *
 * A sample works in ticks of 20 ms whose deadlines are absolute, so what it has leaked at a given
 * second does not depend on how busy the machine is: a late tick is caught up, never dropped.
 * It prints one line of JSON at its start ({"pid":…,"sample":…}) and one at its end, after
 * `--seconds N` (default 150) or SIGTERM, with what it leaked. Failures of set-up are the only
 * use of stderr.
 *
 * Byte figures are what the kernel shows as resident, so malloc's overhead is part of them.
 * They hold for 64-bit glibc and pages of 4 KiB.
 */
#ifndef LEAKCASE_SAMPLES_COMMON_H
#define LEAKCASE_SAMPLES_COMMON_H

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS UINT64_C(1000000000)
#define MILLISECOND_NS UINT64_C(1000000)
#define TICK_NS (20 * MILLISECOND_NS)
#define PAGE_BYTES ((size_t)4096)
#define DEFAULT_SECONDS 150.0

/* The last resort should a sample run away: its address space. A sample may define its own. */
#ifndef SAMPLE_LIMIT_BYTES
#define SAMPLE_LIMIT_BYTES (UINT64_C(1) << 30)
#endif

/* The chunk that glibc cuts for a request: an 8-byte size word, rounded up to 16
 * (malloc/malloc.c, request2size). */
#define CHUNK_BYTES(request) (((size_t)(request) + 8 + 15) & ~(size_t)15)

/* From 128 KiB up, glibc maps each block by itself: the chunk and 8 bytes more, in whole pages
 * (malloc/malloc.c, sysmalloc_mmap). */
#define MAPPED_CHUNK_BYTES(request) \
    ((CHUNK_BYTES(request) + 8 + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1))

/* Keeps the function that leaks visible in stacks, under its own name: GCC may specialise a
 * function that it does not inline, and then calls it name.constprop.0. */
#if defined(__clang__)
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE __attribute__((noipa))
#endif

static struct {
    const char *name;
    const char *ended; /* why the run is over: "time", "signal" or "limit"; NULL while it runs */
    uint64_t start_ns, tick, last_tick;
} sample;

static volatile sig_atomic_t sample_asked_to_stop;

static void sample_on_sigterm(int signal_number)
{
    (void)signal_number;
    sample_asked_to_stop = 1;
}

static inline uint64_t sample_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

/* Ends a sample whose stage could not be set. */
static inline void sample_die(const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", sample.name, what, strerror(errno));
    exit(1);
}

/* Says that no more could be had (memory, descriptors, threads): the run ends. Always false, for
 * the failing function to return. */
static inline bool sample_limit_reached(void)
{
    sample.ended = "limit";
    return false;
}

/* Lowers (never raises) a resource limit's soft and hard value. */
static inline void sample_cap(__rlimit_resource_t resource, uint64_t value)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0)
        sample_die("getrlimit");
    if (limit.rlim_cur > value)
        limit.rlim_cur = value;
    if (limit.rlim_max > value)
        limit.rlim_max = value;
    if (setrlimit(resource, &limit) != 0)
        sample_die("setrlimit");
}

static inline double sample_parse_seconds(int argc, char **argv)
{
    if (argc == 1)
        return DEFAULT_SECONDS;
    char *end = NULL;
    double seconds = argc == 3 && strcmp(argv[1], "--seconds") == 0 ? strtod(argv[2], &end) : 0;
    if (end == NULL || *end != '\0' || !(seconds > 0 && seconds <= 86400)) {
        fprintf(stderr, "usage: %s [--seconds N]   (0 < N <= 86400)\n", sample.name);
        exit(2);
    }
    return seconds;
}

static inline void sample_begin(int argc, char **argv, const char *name)
{
    sample.name = name;
    double seconds = sample_parse_seconds(argc, argv);
    sample_cap(RLIMIT_AS, SAMPLE_LIMIT_BYTES);
    sample_cap(RLIMIT_CORE, 0);
    /* Huge pages would make resident memory grow 2 MiB at a time where the host forces them. */
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    struct sigaction on_sigterm;
    memset(&on_sigterm, 0, sizeof on_sigterm);
    on_sigterm.sa_handler = sample_on_sigterm;
    on_sigterm.sa_flags = SA_RESTART; /* only the sleep between ticks is to be cut short */
    sigaction(SIGTERM, &on_sigterm, NULL);
    printf("{\"pid\":%d,\"sample\":\"%s\"}\n", (int)getpid(), name);
    fflush(stdout);
    sample.last_tick = (uint64_t)(seconds * (double)SECOND_NS) / TICK_NS;
    sample.start_ns = sample_clock_ns();
}

/* Sleeps until the next tick is due. False when the run is over. */
static inline bool sample_tick(void)
{
    if (sample.ended == NULL && sample.tick == sample.last_tick)
        sample.ended = "time";
    if (sample.ended != NULL)
        return false;
    uint64_t due_ns = sample.start_ns + ++sample.tick * TICK_NS;
    struct timespec due;
    due.tv_sec = (time_t)(due_ns / SECOND_NS);
    due.tv_nsec = (long)(due_ns % SECOND_NS);
    while (!sample_asked_to_stop &&
           clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
        continue;
    if (sample_asked_to_stop)
        sample.ended = "signal";
    return !sample_asked_to_stop;
}

/* The tick's nominal time since the start. */
static inline uint64_t sample_time_ns(void)
{
    return sample.tick * TICK_NS;
}

/* How many events must have happened by this tick, at `count` events in each `period_ns`. */
static inline uint64_t sample_due(uint64_t count, uint64_t period_ns)
{
    return sample_time_ns() * count / period_ns;
}

/* Writes to every byte of a block, so that it is resident, and lets the compiler assume nothing
 * about it afterwards (it may delete a malloc whose block is never used). Always true, for the
 * function that made the block to return. */
static inline bool sample_touch(void *block, size_t bytes)
{
    memset(block, 0xA7, bytes);
    __asm__ volatile("" : : "r"(block) : "memory");
    return true;
}

/* States the truth: resident bytes leaked (for threads and descriptors 0) and how many blocks,
 * threads or descriptors. */
static inline int sample_end(uint64_t leaked_bytes, uint64_t leaked_count)
{
    double elapsed_seconds = (double)(sample_clock_ns() - sample.start_ns) / (double)SECOND_NS;
    printf("{\"sample\":\"%s\",\"leaked_bytes\":%llu,\"leaked_count\":%llu,"
           "\"elapsed_seconds\":%.3f,\"ended\":\"%s\"}\n",
           sample.name, (unsigned long long)leaked_bytes, (unsigned long long)leaked_count,
           elapsed_seconds, sample.ended);
    fflush(stdout);
    return 0;
}

#endif
