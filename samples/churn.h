/* Innocent traffic on the heap: a fixed population of blocks that are replaced at random.
 *
 * Every slot keeps its size for ever, so the bytes in use do not change; only their places do.
 */
#ifndef LEAKCASE_SAMPLES_CHURN_H
#define LEAKCASE_SAMPLES_CHURN_H

#include "common.h"

#define CHURN_SLOTS 10007
#define CHURN_PER_TICK 41

static void *churn_slots[CHURN_SLOTS];

static inline void churn_fill_slot(size_t slot)
{
    static const size_t sizes_bytes[] = {61, 113, 211, 397, 1009, 2003};
    size_t bytes = sizes_bytes[slot % (sizeof sizes_bytes / sizeof sizes_bytes[0])];
    churn_slots[slot] = malloc(bytes);
    if (churn_slots[slot] == NULL)
        sample_limit_reached();
    else
        sample_touch(churn_slots[slot], bytes);
}

static inline void churn_begin(void)
{
    for (size_t slot = 0; slot < CHURN_SLOTS; slot++)
        churn_fill_slot(slot);
}

/* Replaces some blocks: all of a tick's victims die before their successors are born, so that the
 * successors do not simply get the same places again. */
static inline void churn_tick(void)
{
    static uint64_t state = 2463534242;
    size_t victims[CHURN_PER_TICK];
    for (size_t i = 0; i < CHURN_PER_TICK; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        victims[i] = (size_t)((state >> 33) % CHURN_SLOTS);
        free(churn_slots[victims[i]]);
        churn_slots[victims[i]] = NULL;
    }
    for (size_t i = 0; i < CHURN_PER_TICK; i++)
        if (churn_slots[victims[i]] == NULL)
            churn_fill_slot(victims[i]);
}

#endif
