/* Forgets large blocks, each of which glibc maps by itself. */
#include "common.h"

#define BLOCK_BYTES 200003
#define BLOCKS_PER_SECOND 3

static NOINLINE bool load_document(void)
{
    char *document = malloc(BLOCK_BYTES); /* LEAK */
    if (document == NULL)
        return sample_limit_reached();
    return sample_touch(document, BLOCK_BYTES);
}

int main(int argc, char **argv)
{
    uint64_t leaked = 0;
    sample_begin(argc, argv, "large-block-leak");
    while (sample_tick())
        for (uint64_t due = sample_due(BLOCKS_PER_SECOND, SECOND_NS);
             leaked < due && load_document();)
            leaked++;
    return sample_end(leaked * MAPPED_CHUNK_BYTES(BLOCK_BYTES), leaked);
}
