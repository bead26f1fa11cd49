/* Work that is counted, for `bench/tracing.py`: each unit takes memory, uses it and gives it back.
 *
 *     worker THREADS PAIRS_PER_SECOND SPIN
 *
 * PAIRS_PER_SECOND of malloc and free over all threads, 0: as fast as it goes; SPIN steps of
 * arithmetic for each pair, the server's own work. A line with a time in seconds makes it work so
 * long; it answers with the pairs done, the CPU time in nanoseconds that they took and the longest
 * time in nanoseconds that one stretch of 64 pairs took. One pair of 5,000 is forgotten.
 */
#include <pthread.h>

#include "../../samples/common.h"

#define THREADS_MAX 64
#define STRETCH 64
#define SLOTS 512

static int thread_count;
static uint64_t pairs_per_second, spin, end_ns, begin_ns;

struct share {
    uint64_t pairs, cpu_ns, longest_ns, seed;
    pthread_t thread;
    void *slots[SLOTS];
};
static struct share shares[THREADS_MAX];

static uint64_t thread_cpu_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * SECOND_NS + (uint64_t)used.tv_nsec;
}

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

static NOINLINE void serve(struct share *own)
{
    uint64_t value = own->seed;
    for (uint64_t i = 0; i < spin; i++)
        value = value * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    own->seed = value * 2862933555777941757 + 3037000493;
    void **slot = &own->slots[(own->seed >> 33) % SLOTS];
    free(*slot);
    *slot = take(own->pairs);
    if (++own->pairs % 5000 == 0)
        forget(own->pairs);
}

static void *work(void *argument)
{
    struct share *own = argument;
    uint64_t cpu_ns = thread_cpu_ns();
    for (uint64_t now; (now = sample_clock_ns()) < end_ns;) {
        uint64_t due = (now - begin_ns) / 1000 * pairs_per_second / 1000000 / (uint64_t)thread_count;
        if (pairs_per_second != 0 && own->pairs + STRETCH > due) {
            usleep(1000);
            continue;
        }
        for (int i = 0; i < STRETCH; i++)
            serve(own);
        uint64_t took_ns = sample_clock_ns() - now;
        if (took_ns > own->longest_ns)
            own->longest_ns = took_ns;
    }
    own->cpu_ns = thread_cpu_ns() - cpu_ns;
    return NULL;
}

int main(int argc, char **argv)
{
    double seconds;
    if (argc != 4)
        return 2;
    sample.name = "worker";
    thread_count = atoi(argv[1]);
    pairs_per_second = strtoull(argv[2], NULL, 10);
    spin = strtoull(argv[3], NULL, 10);
    if (thread_count < 1 || thread_count > THREADS_MAX)
        return 2;
    sample_cap(RLIMIT_AS, UINT64_C(4) << 30);
    printf("ready\n");
    fflush(stdout);
    while (scanf("%lf", &seconds) == 1) {
        uint64_t pairs = 0, cpu_ns = 0, longest_ns = 0;
        begin_ns = sample_clock_ns();
        end_ns = begin_ns + (uint64_t)(seconds * (double)SECOND_NS);
        for (int i = 0; i < thread_count; i++) {
            shares[i].pairs = shares[i].longest_ns = 0;
            shares[i].seed += (uint64_t)i + 1;
            if (pthread_create(&shares[i].thread, NULL, work, &shares[i]) != 0)
                sample_die("pthread_create");
        }
        for (int i = 0; i < thread_count; i++) {
            pthread_join(shares[i].thread, NULL);
            pairs += shares[i].pairs;
            cpu_ns += shares[i].cpu_ns;
            if (shares[i].longest_ns > longest_ns)
                longest_ns = shares[i].longest_ns;
        }
        printf("%llu %llu %llu\n", (unsigned long long)pairs, (unsigned long long)cpu_ns,
               (unsigned long long)longest_ns);
        fflush(stdout);
    }
    return 0;
}
