/* Gathers a batch for 4.6 s, frees it whole, and begins again. The period is no near-multiple of a
 * second, or looks taken once a second would drift along the teeth and see a slowly moving floor. */
#include "common.h"

#define TOOTH_NS (4621 * MILLISECOND_NS)
#define BLOCK_BYTES 61001
#define BLOCKS_PER_SECOND 101
#define BLOCKS (5 * BLOCKS_PER_SECOND)

static char *batch[BLOCKS];
static size_t gathered;

static bool gather(void)
{
    batch[gathered] = malloc(BLOCK_BYTES);
    if (batch[gathered] == NULL)
        return sample_limit_reached();
    return sample_touch(batch[gathered++], BLOCK_BYTES);
}

static void release(void)
{
    while (gathered > 0)
        free(batch[--gathered]);
}

int main(int argc, char **argv)
{
    sample_begin(argc, argv, "sawtooth");
    while (sample_tick()) {
        size_t due = sample_time_ns() % TOOTH_NS * BLOCKS_PER_SECOND / SECOND_NS;
        if (due < gathered)
            release();
        while (gathered < due && gather())
            continue;
    }
    return sample_end(0, 0);
}
