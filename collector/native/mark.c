/*
 * Which chunks refer to which, and what can be reached from the roots: the twin of
 * heap/marking.py, which explains it. Equal steps over equal arrays, so that both give the same;
 * a test compares them.
 *
 * C11, freestanding but for memcpy. Words come from a process that may be writing meanwhile: any
 * of them may be anything, and none is followed but through the table of chunks.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { UNSEEN, REACHED, REFERRED };
enum { HEADER = 16, BEYOND = 8, PAGE_SHIFT = 12 };
#define NONE UINT64_MAX
#define MIX UINT64_C(0x9E3779B97F4A7C15)

/* MarkState of heap/marking.py: pointers are those of its arrays. */
struct leakcase_mark {
    const uint64_t *addresses, *sizes;
    uint64_t chunks;
    /* Three words each: start, end, and where its pages begin in `first_of_page`. */
    const uint64_t *spans;
    uint64_t span_count;
    uint32_t *first_of_page;
    uint64_t low, high;
    uint32_t *rows, *prints, *edges;
    uint64_t edge_count, edge_capacity;
    uint64_t cursor, print;
    uint8_t *marks;
    uint32_t *stack;
    uint64_t stacked;
    uint64_t last_span;
};

/* For each page, the first chunk that begins in it or behind it. */
void leakcase_mark_index(struct leakcase_mark *s)
{
    uint64_t chunk = 0;
    for (uint64_t i = 0; i < s->span_count; i++) {
        const uint64_t *span = s->spans + 3 * i;
        uint64_t pages = (span[1] - span[0]) >> PAGE_SHIFT;
        for (uint64_t page = 0; page <= pages; page++) {
            uint64_t start = span[0] + (page << PAGE_SHIFT);
            while (chunk < s->chunks && s->addresses[chunk] < start)
                chunk++;
            s->first_of_page[span[2] + page] = (uint32_t)chunk;
        }
    }
}

static const uint64_t *span_of(struct leakcase_mark *s, uint64_t at)
{
    const uint64_t *span = s->spans + 3 * s->last_span;
    if (at >= span[0] && at < span[1])
        return span;
    uint64_t low = 0, high = s->span_count;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (s->spans[3 * middle] <= at)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low || at >= s->spans[3 * low - 2])
        return NULL;
    s->last_span = low - 1;
    return s->spans + 3 * s->last_span;
}

/* The chunk within whose block `word` points. */
static uint64_t chunk_of(struct leakcase_mark *s, uint64_t word)
{
    if (word < s->low || word >= s->high)
        return NONE;
    const uint64_t *span = span_of(s, word);
    if (!span)
        return NONE;
    const uint32_t *page = s->first_of_page + span[2] + ((word - span[0]) >> PAGE_SHIFT);
    uint64_t low = page[0], high = page[1];
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (s->addresses[middle] + HEADER <= word)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low)
        return NONE;
    uint64_t start = s->addresses[low - 1];
    return word >= start + HEADER && word - start < s->sizes[low - 1] + BEYOND ? low - 1 : NONE;
}

static void reach(struct leakcase_mark *s, uint64_t chunk)
{
    if (s->marks[chunk] == REACHED)
        return;
    s->marks[chunk] = REACHED;
    s->stack[s->stacked++] = (uint32_t)chunk;
}

void leakcase_mark_roots(struct leakcase_mark *s, const unsigned char *bytes, uint64_t length)
{
    for (uint64_t at = 0; at + 8 <= length; at += 8) {
        uint64_t word, chunk;
        memcpy(&word, bytes + at, 8);
        if ((chunk = chunk_of(s, word)) != NONE)
            reach(s, chunk);
    }
}

static bool take_words(struct leakcase_mark *s, const unsigned char *bytes, uint64_t length)
{
    uint64_t print = s->print, edges = s->edge_count, row = s->rows[s->cursor];
    for (uint64_t at = 0; at + 8 <= length; at += 8) {
        uint64_t word, chunk;
        memcpy(&word, bytes + at, 8);
        print = (print ^ word) * MIX;
        print ^= print >> 29;
        if ((chunk = chunk_of(s, word)) == NONE || chunk == s->cursor ||
            (edges > row && s->edges[edges - 1] == chunk))
            continue;
        if (edges == s->edge_capacity)
            return false;
        s->edges[edges++] = (uint32_t)chunk;
    }
    s->print = print;
    s->edge_count = edges;
    return true;
}

/* Windows come by ascending address; a chunk may lie in several. 0: there is no more room. */
int leakcase_mark_scan(struct leakcase_mark *s, const unsigned char *bytes, uint64_t base,
                       uint64_t length)
{
    uint64_t end = base + length;
    while (s->cursor < s->chunks) {
        uint64_t chunk = s->addresses[s->cursor];
        uint64_t low = chunk + HEADER, high = chunk + s->sizes[s->cursor] + BEYOND;
        if (low >= end)
            break;
        uint64_t from = low > base ? low : base, to = high < end ? high : end;
        if (from < to && !take_words(s, bytes + (from - base), to - from))
            return 0;
        if (high > end)
            break;
        s->prints[s->cursor++] = (uint32_t)(s->print >> 32);
        s->rows[s->cursor] = (uint32_t)s->edge_count;
        s->print = 0;
    }
    return 1;
}

/* Blocks whose pages were not there to the end refer to nothing more. */
void leakcase_mark_spread(struct leakcase_mark *s)
{
    for (uint64_t chunk = s->cursor; chunk < s->chunks; chunk++)
        s->rows[chunk + 1] = (uint32_t)s->edge_count;
    while (s->stacked) {
        uint64_t chunk = s->stack[--s->stacked];
        for (uint64_t i = s->rows[chunk]; i < s->rows[chunk + 1]; i++)
            reach(s, s->edges[i]);
    }
    for (uint64_t chunk = 0; chunk < s->chunks; chunk++) {
        if (s->marks[chunk] == REACHED)
            continue;
        for (uint64_t i = s->rows[chunk]; i < s->rows[chunk + 1]; i++)
            if (s->marks[s->edges[i]] == UNSEEN)
                s->marks[s->edges[i]] = REFERRED;
    }
}
