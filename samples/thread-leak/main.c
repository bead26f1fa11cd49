/* Starts a worker thread every 1009 ms; no worker ever returns. */
#define SAMPLE_LIMIT_BYTES (UINT64_C(4) << 30)
#include <pthread.h>

#include "common.h"

#define PERIOD_NS (1009 * MILLISECOND_NS)
#define STACK_BYTES ((size_t)8 << 20)

/* Waits for work that nobody sends. */
static void *worker(void *unused)
{
    (void)unused;
    for (;;)
        pause();
    return NULL;
}

static NOINLINE bool start_worker(const pthread_attr_t *attributes)
{
    pthread_t thread;
    if (pthread_create(&thread, attributes, worker, NULL) != 0) /* LEAK */
        return sample_limit_reached();
    pthread_setname_np(thread, "pool-worker");
    return true;
}

int main(int argc, char **argv)
{
    uint64_t leaked = 0;
    pthread_attr_t attributes;
    sample_begin(argc, argv, "thread-leak");
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    while (sample_tick())
        for (uint64_t due = sample_due(1, PERIOD_NS); leaked < due && start_worker(&attributes);)
            leaked++;
    return sample_end(0, leaked);
}
