/* A cache with a fixed number of places: it fills in 11 s and from then on replaces its oldest
 * entry by each new one. */
#include "common.h"

#define ENTRIES_PER_SECOND 1499
#define PLACES (11 * ENTRIES_PER_SECOND)
#define SIZES 5

static char *cache[PLACES];

/* An entry is as large as the one it replaces, so a full cache holds the same bytes for ever. */
static bool insert(uint64_t number)
{
    static const size_t sizes_bytes[SIZES] = {499, 1009, 1511, 2003, 2503};
    size_t place = number % PLACES;
    size_t bytes = sizes_bytes[place % SIZES];
    free(cache[place]);
    cache[place] = malloc(bytes);
    if (cache[place] == NULL)
        return sample_limit_reached();
    return sample_touch(cache[place], bytes);
}

int main(int argc, char **argv)
{
    uint64_t inserted = 0;
    sample_begin(argc, argv, "filling-cache");
    while (sample_tick())
        for (uint64_t due = sample_due(ENTRIES_PER_SECOND, SECOND_NS);
             inserted < due && insert(inserted);)
            inserted++;
    return sample_end(0, 0);
}
