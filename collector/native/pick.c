/*
 * What is noted of blocks in use while they are walked: how many there are by class of size, a
 * sample of their addresses, and those of their first words that are addresses within programs and
 * libraries. The twin of heap/pick.py, which explains it; a test compares them.
 */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { HEADER = 16, EXACT_CLASSES = 256, EXACT_BITS = 12, SPLIT_BITS = 4 };

/* PickState of heap/pick_native.py. */
struct leakcase_pick {
    uint64_t ranges, slots, used, dropped, samples, outside;
};

struct size_class {
    uint64_t seen, bytes, stride, kept;
};

/* `tag` is the number of the class of size and 1: 0 where the slot is free. */
struct slot {
    uint64_t word, tag, count, bytes;
};

static inline uint64_t size_class(uint64_t size)
{
    if (size >> EXACT_BITS == 0)
        return size >> 4;
    unsigned bits = 63 - (unsigned)__builtin_clzll(size);
    return EXACT_CLASSES + ((bits - EXACT_BITS) << SPLIT_BITS) +
           (size >> (bits - SPLIT_BITS) & ((1 << SPLIT_BITS) - 1));
}

static inline bool is_within(const struct leakcase_pick *p, const uint64_t *ranges, uint64_t word)
{
    uint64_t low = 0, high = p->ranges;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (ranges[2 * middle] <= word)
            low = middle + 1;
        else
            high = middle;
    }
    return low && word < ranges[2 * low - 1];
}

static void note(struct leakcase_pick *p, struct slot *slots, uint64_t word, uint64_t tag,
                 uint64_t bytes)
{
    uint64_t mask = p->slots - 1, at = (word / 8 + tag) * UINT64_C(0x9E3779B97F4A7C15) >> 20 & mask;
    while (slots[at].tag && (slots[at].word != word || slots[at].tag != tag))
        at = (at + 1) & mask;
    if (!slots[at].tag) {
        if (p->used >= p->slots / 4 * 3) {
            p->dropped++;
            return;
        }
        p->used++;
        slots[at].word = word;
        slots[at].tag = tag;
    }
    slots[at].count++;
    slots[at].bytes += bytes;
}

static void sample(const struct leakcase_pick *p, struct size_class *c, uint64_t *kept,
                   uint64_t address)
{
    if ((c->seen - 1) % c->stride)
        return;
    if (c->kept == p->samples) {
        c->kept /= 2;
        c->stride *= 2;
        for (uint64_t i = 1; i < c->kept; i++)
            kept[i] = kept[2 * i];
        if ((c->seen - 1) % c->stride)
            return;
    }
    kept[c->kept++] = address;
}

void leakcase_pick_blocks(struct leakcase_pick *p, const uint64_t *ranges,
                          struct size_class *classes, struct slot *slots, uint64_t *samples,
                          uint64_t *outside, const uint64_t *listed, uint64_t count,
                          const unsigned char *bytes, uint64_t base, uint64_t length)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t address = listed[2 * i], size = listed[2 * i + 1], number = size_class(size), word;
        struct size_class *c = &classes[number];
        c->seen++;
        c->bytes += size;
        sample(p, c, samples + number * p->samples, address);
        uint64_t at = address + HEADER;
        if (at < base || at - base + sizeof word > length) {
            outside[2 * p->outside] = address;
            outside[2 * p->outside++ + 1] = size;
            continue;
        }
        memcpy(&word, bytes + (at - base), sizeof word);
        if (is_within(p, ranges, word))
            note(p, slots, word, number + 1, size);
    }
}

void leakcase_pick_words(struct leakcase_pick *p, const uint64_t *ranges, struct slot *slots,
                         const unsigned char *bytes, uint64_t length)
{
    for (uint64_t i = 0; i + 8 <= length; i += 8) {
        uint64_t word;
        memcpy(&word, bytes + i, sizeof word);
        if (word && is_within(p, ranges, word))
            note(p, slots, word, 1, 0);
    }
}
