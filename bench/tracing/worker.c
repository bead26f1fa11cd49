/* Work that is counted, for `bench/tracing.py`: each unit takes memory, uses it and gives it back.
 *
 *     worker FILE PAIRS_PER_SECOND SPIN
 *
 * PAIRS_PER_SECOND of malloc and free, 0: as fast as it goes; SPIN steps of arithmetic for each
 * pair, the server's own work. One pair of 5,000 is forgotten. Works until it is ended, for two
 * hours at most. FILE is shared with the one who measures, who is told how many pairs were done and
 * the longest time in nanoseconds that one stretch of 64 took, and may set that back to 0; and who
 * says whether jemalloc's profiler should be at work, where this program runs with that allocator.
 */
#include <fcntl.h>
#include <sys/mman.h>

#include "../../samples/common.h"

#define STRETCH 64
#define SLOTS 512
#define LIFE_SECONDS 7200

struct shared {
    volatile uint64_t pairs, longest_ns, wants_profile, has_profile;
};
static struct shared *shared;
static uint64_t pairs_per_second, spin, seed;
static void *slots[SLOTS];

int mallctl(const char *, void *, size_t *, void *, size_t) __attribute__((weak));

static NOINLINE void *take(uint64_t number)
{
    uint64_t *block = malloc(48 + number % 5 * 32);
    if (block == NULL)
        sample_die("malloc");
    block[0] = number;
    return block;
}

static NOINLINE void forget(uint64_t number)
{
    void *block = take(number);
    __asm__ volatile("" : : "r"(block) : "memory");
}

static NOINLINE void serve(uint64_t number)
{
    uint64_t value = seed;
    for (uint64_t i = 0; i < spin; i++)
        value = value * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    seed = value * 2862933555777941757 + 3037000493;
    void **slot = &slots[(seed >> 33) % SLOTS];
    free(*slot);
    *slot = take(number);
    if (number % 5000 == 0)
        forget(number);
}

static void profile(void)
{
    bool wanted = shared->wants_profile != 0;
    if (mallctl == NULL || mallctl("prof.active", NULL, NULL, &wanted, sizeof wanted) != 0)
        sample_die("mallctl");
    shared->has_profile = wanted;
}

static NOINLINE void work(void)
{
    uint64_t begin_ns = sample_clock_ns(), pairs = 0;
    for (;;) {
        uint64_t now = sample_clock_ns();
        uint64_t due = (now - begin_ns) / 1000 * pairs_per_second / 1000000;
        if (pairs_per_second != 0 && pairs + STRETCH > due) {
            usleep(1000);
            continue;
        }
        if (shared->wants_profile != shared->has_profile)
            profile();
        for (int i = 0; i < STRETCH; i++)
            serve(++pairs);
        uint64_t took_ns = sample_clock_ns() - now;
        if (took_ns > shared->longest_ns)
            shared->longest_ns = took_ns;
        shared->pairs = pairs;
    }
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    sample.name = "worker";
    pairs_per_second = strtoull(argv[2], NULL, 10);
    spin = strtoull(argv[3], NULL, 10);
    int file = open(argv[1], O_RDWR);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file < 0 || shared == MAP_FAILED)
        sample_die(argv[1]);
    sample_cap(RLIMIT_AS, UINT64_C(4) << 30);
    alarm(LIFE_SECONDS);
    work();
}
