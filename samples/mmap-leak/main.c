/* Maps anonymous memory for buffers and never unmaps it. */
#include <sys/mman.h>

#include "common.h"

#define BUFFER_BYTES (17 * PAGE_BYTES)
#define BUFFERS_PER_SECOND 7

static NOINLINE bool map_buffer(void)
{
    void *buffer = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, /* LEAK */
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED)
        return sample_limit_reached();
    return sample_touch(buffer, BUFFER_BYTES);
}

int main(int argc, char **argv)
{
    uint64_t leaked = 0;
    sample_begin(argc, argv, "mmap-leak");
    while (sample_tick())
        for (uint64_t due = sample_due(BUFFERS_PER_SECOND, SECOND_NS);
             leaked < due && map_buffer();)
            leaked++;
    return sample_end(leaked * BUFFER_BYTES, leaked);
}
