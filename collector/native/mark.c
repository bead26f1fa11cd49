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
/* How far ahead of the word that is looked up, in bytes, its tables are asked for: of words in
 * random order each look-up is some cache misses, and those of several words can overlap. */
enum { FAR = 3072, NEAR = 1536 };
#define NONE UINT64_MAX
#define MIX UINT64_C(0x9E3779B97F4A7C15)

/* What a chunk refers to: `count` chunks, of which the numbers begin at edges[value]; a single one's
 * is `value` itself, so that following a list costs one cache miss for each of its blocks. */
struct row {
    uint32_t value, count;
};
#define IS_REACHED UINT32_C(0x80000000)

/* MarkState of heap/marking.py: pointers are those of its arrays. */
struct leakcase_mark {
    const uint64_t *addresses, *sizes;
    uint64_t chunks;
    /* Three words each: start, end, and where its pages begin in `first_of_page`. */
    const uint64_t *spans;
    uint64_t span_count;
    uint32_t *first_of_page;
    uint64_t low, high;
    struct row *rows;
    uint32_t *prints, *edges;
    uint64_t edge_count, edge_capacity;
    /* The block that is scanned, where its edges begin, and its fingerprint so far. */
    uint64_t cursor, first_edge, print;
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
        /* Behind a span that ends within a page; the next one's first entry says the same. */
        while (chunk < s->chunks && s->addresses[chunk] < span[1])
            chunk++;
        s->first_of_page[span[2] + pages + 1] = (uint32_t)chunk;
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

/* About where among the chunks of its page an address lies, were they of equal size. */
static inline uint64_t guess(const uint32_t *page, uint64_t inside)
{
    uint64_t in_page = inside & ((1u << PAGE_SHIFT) - 1);
    return page[0] + ((in_page * (page[1] - page[0])) >> PAGE_SHIFT);
}

/* The chunk within whose block `word` points. */
static uint64_t chunk_of(struct leakcase_mark *s, uint64_t word)
{
    if (word < s->low || word >= s->high)
        return NONE;
    const uint64_t *span = span_of(s, word);
    if (!span)
        return NONE;
    uint64_t inside = word - span[0], block = word - HEADER;
    const uint32_t *page = s->first_of_page + span[2] + (inside >> PAGE_SHIFT);
    /* At most a page's chunks in either direction, mostly none. */
    uint64_t after = guess(page, inside);
    while (after < page[1] && s->addresses[after] <= block)
        after++;
    while (after > page[0] && s->addresses[after - 1] > block)
        after--;
    if (!after)
        return NONE;
    uint64_t start = s->addresses[after - 1];
    return word >= start + HEADER && word - start < s->sizes[after - 1] + BEYOND ? after - 1 : NONE;
}

static inline void reach(struct leakcase_mark *s, uint64_t chunk)
{
    if (s->rows[chunk].count & IS_REACHED)
        return;
    s->rows[chunk].count |= IS_REACHED;
    s->stack[s->stacked++] = (uint32_t)chunk;
}

/* A hint only: ask for what `chunk_of` will look at, first for the page's entry, then by it. */
static inline void prepare(const struct leakcase_mark *s, const unsigned char *at, bool is_near)
{
    uint64_t word;
    memcpy(&word, at, 8);
    const uint64_t *span = s->spans + 3 * s->last_span;
    if (word < s->low || word >= s->high || word < span[0] || word >= span[1])
        return;
    uint64_t inside = word - span[0];
    const uint32_t *page = s->first_of_page + span[2] + (inside >> PAGE_SHIFT);
    if (!is_near) {
        __builtin_prefetch(page);
        return;
    }
    uint64_t chunk = guess(page, inside);
    __builtin_prefetch(s->addresses + chunk);
    __builtin_prefetch(s->sizes + chunk);
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

/* `ahead`: how many bytes of the window follow from `bytes` on. */
static bool take_words(struct leakcase_mark *s, const unsigned char *bytes, uint64_t length,
                       uint64_t ahead)
{
    uint64_t print = s->print, edges = s->edge_count, first = s->first_edge;
    for (uint64_t at = 0; at + 8 <= length; at += 8) {
        uint64_t word, chunk;
        memcpy(&word, bytes + at, 8);
        if (at + FAR + 8 <= ahead) {
            prepare(s, bytes + at + FAR, false);
            prepare(s, bytes + at + NEAR, true);
        }
        print = (print ^ word) * MIX;
        print ^= print >> 29;
        if ((chunk = chunk_of(s, word)) == NONE || chunk == s->cursor ||
            (edges > first && s->edges[edges - 1] == chunk))
            continue;
        if (edges == s->edge_capacity)
            return false;
        s->edges[edges++] = (uint32_t)chunk;
    }
    s->print = print;
    s->edge_count = edges;
    return true;
}

static void close_row(struct leakcase_mark *s)
{
    struct row *row = s->rows + s->cursor;
    uint64_t count = s->edge_count - s->first_edge;
    row->value = (uint32_t)s->first_edge;
    if (count == 1)
        row->value = s->edges[--s->edge_count];
    row->count = (row->count & IS_REACHED) | (uint32_t)count;
    s->first_edge = s->edge_count;
}

static void close_block(struct leakcase_mark *s)
{
    close_row(s);
    s->prints[s->cursor++] = (uint32_t)(s->print >> 32);
    s->print = 0;
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
        if (from < to && !take_words(s, bytes + (from - base), to - from, end - from))
            return 0;
        if (high > end)
            break;
        close_block(s);
    }
    return 1;
}

static inline const uint32_t *edges_of(const struct leakcase_mark *s, uint64_t chunk, uint32_t *count)
{
    const struct row *row = s->rows + chunk;
    *count = row->count & ~IS_REACHED;
    return *count == 1 ? &row->value : s->edges + row->value;
}

/* Of the last block pages may have been missing at its end: it refers to what was in the others. The
 * rows of those behind it are empty. */
void leakcase_mark_spread(struct leakcase_mark *s)
{
    uint32_t count;
    if (s->cursor < s->chunks)
        close_row(s);
    while (s->stacked) {
        const uint32_t *edges = edges_of(s, s->stack[--s->stacked], &count);
        for (uint32_t i = 0; i < count; i++)
            __builtin_prefetch(s->rows + edges[i], 1);
        for (uint32_t i = 0; i < count; i++)
            reach(s, edges[i]);
    }
    for (uint64_t chunk = 0; chunk < s->chunks; chunk++)
        if (s->rows[chunk].count & IS_REACHED)
            s->marks[chunk] = REACHED;
    for (uint64_t chunk = 0; chunk < s->chunks; chunk++) {
        if (s->marks[chunk] == REACHED)
            continue;
        const uint32_t *edges = edges_of(s, chunk, &count);
        for (uint32_t i = 0; i < count; i++)
            if (s->marks[edges[i]] == UNSEEN)
                s->marks[edges[i]] = REFERRED;
    }
}
