/* A file that is mapped and shared, extended and written, and never shrinks. Whether that is
 * shared memory or a file mapping depends only on where the file stands. */
#ifndef LEAKCASE_SAMPLES_GROWING_MAP_H
#define LEAKCASE_SAMPLES_GROWING_MAP_H

#include <sys/mman.h>

#include "common.h"

static char *map_start;
static size_t map_bytes;

static NOINLINE bool extend_map(int file, size_t step_bytes)
{
    size_t bytes = map_bytes + step_bytes;
    if (ftruncate(file, (off_t)bytes) != 0)
        return sample_limit_reached();
    void *extended = map_start == NULL
                         ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
                         : mremap(map_start, map_bytes, bytes, MREMAP_MAYMOVE); /* LEAK */
    if (extended == MAP_FAILED)
        return sample_limit_reached();
    map_start = extended;
    map_bytes = bytes;
    return sample_touch(map_start + bytes - step_bytes, step_bytes);
}

/* Extends the map at a steady rate until the run is over, and states the truth. */
static inline int run_growing_map(int file, size_t step_bytes, uint64_t steps_per_second)
{
    while (sample_tick()) {
        size_t due_bytes = (size_t)sample_due(steps_per_second, SECOND_NS) * step_bytes;
        while (map_bytes < due_bytes && extend_map(file, step_bytes))
            continue;
    }
    return sample_end(map_bytes, map_bytes / step_bytes);
}

#endif
