/* Works for 12 s, rests for 12 s, and forgets blocks only while it works. */
#include "common.h"

#define EPISODE_NS (12 * SECOND_NS)
#define BLOCK_BYTES 1009
#define BLOCKS_PER_ACTIVE_SECOND 251
#define WORK_BYTES ((size_t)1 << 20)

/* The time spent in active episodes so far; the run starts with one. */
static uint64_t active_ns(void)
{
    uint64_t whole = sample_time_ns() / (2 * EPISODE_NS);
    uint64_t rest = sample_time_ns() % (2 * EPISODE_NS);
    return whole * EPISODE_NS + (rest < EPISODE_NS ? rest : EPISODE_NS);
}

/* One or two milliseconds of processor time. */
static void work(void)
{
    static unsigned char input[4096];
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < WORK_BYTES; i++)
        hash = (hash ^ input[i % sizeof input]) * 1099511628211u;
    input[0] = (unsigned char)hash;
}

static NOINLINE bool process_job(void)
{
    char *job = malloc(BLOCK_BYTES); /* LEAK */
    if (job == NULL)
        return sample_limit_reached();
    return sample_touch(job, BLOCK_BYTES);
}

int main(int argc, char **argv)
{
    uint64_t leaked = 0;
    sample_begin(argc, argv, "active-leak");
    while (sample_tick()) {
        uint64_t due = active_ns() * BLOCKS_PER_ACTIVE_SECOND / SECOND_NS;
        if (sample_time_ns() % (2 * EPISODE_NS) < EPISODE_NS)
            work();
        for (; leaked < due && process_job(); leaked++)
            continue;
    }
    return sample_end(leaked * CHUNK_BYTES(BLOCK_BYTES), leaked);
}
