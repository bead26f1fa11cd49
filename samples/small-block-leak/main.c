/* Forgets small blocks in the midst of innocent traffic of the same and other sizes. */
#include "churn.h"

#define BLOCK_BYTES 211
#define BLOCKS_PER_SECOND 1999

static NOINLINE bool remember_request(void)
{
    char *request = malloc(BLOCK_BYTES); /* LEAK */
    if (request == NULL)
        return sample_limit_reached();
    return sample_touch(request, BLOCK_BYTES);
}

int main(int argc, char **argv)
{
    uint64_t leaked = 0;
    sample_begin(argc, argv, "small-block-leak");
    churn_begin();
    while (sample_tick()) {
        churn_tick();
        for (uint64_t due = sample_due(BLOCKS_PER_SECOND, SECOND_NS);
             leaked < due && remember_request();)
            leaked++;
    }
    return sample_end(leaked * CHUNK_BYTES(BLOCK_BYTES), leaked);
}
