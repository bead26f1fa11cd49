/*
 * One step of the walk over the chunks of glibc's malloc: the twin of heap/step.py, which explains
 * it. The same steps over the same state, so that both give the same numbers; a test compares them.
 *
 * C11, freestanding but for memcpy. The window is bytes that another process may have been writing
 * while they were read: every address is checked against the window before it is looked at.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { MORE, DONE, FULL };
enum { HEADER = 16, MIN_CHUNK = 32, HOPS = 6, LOOK_AHEAD = 0x310, TORN_LISTS = 2 };
#define COUNTED UINT64_C(65536)
#define GROWTH (UINT64_C(1) << 30)
#define PREV_INUSE UINT64_C(1)
#define FLAGS UINT64_C(7)

/* WalkState of heap/walk_state.py. */
struct leakcase_walk {
    uint64_t position, end, top_end;
    uint64_t forbidden;
    uint64_t pending, pending_bytes, pending_is_tcache;
    uint64_t lost;
    uint64_t listed_from_bytes;
    uint64_t found_top, found_top_bytes, closing_bytes, lost_bytes, resyncs;
    uint64_t in_use_chunks, in_use_bytes, free_chunks, free_bytes;
    uint64_t listed, spans, tcaches, capacity, page_bytes;
};

struct lists {
    uint64_t *counts, *listed, *spans, *tcaches;
};

struct window {
    const unsigned char *bytes;
    uint64_t base, end;
};

/* struct tcache_perthread_struct by the size of its chunk: TCACHES of heap/layout.py. */
static const struct tcache {
    uint64_t chunk;
    unsigned count_bytes, lists;
    bool is_slots;
} tcaches[] = {{0x250, 1, 64, false}, {0x290, 2, 64, false}, {0x300, 2, 76, true}};

static inline uint64_t word(const struct window *w, uint64_t address)
{
    uint64_t value;
    memcpy(&value, w->bytes + (address - w->base), sizeof value);
    return value;
}

static inline uint64_t head(const struct window *w, uint64_t p)
{
    return word(w, p + 8);
}

static inline uint64_t size_at(const struct leakcase_walk *s, const struct window *w, uint64_t p)
{
    uint64_t h = head(w, p), size = h & ~FLAGS;
    if (h & s->forbidden || size < MIN_CHUNK)
        return 0;
    if (size > s->end - p &&
        !(s->top_end == s->end && h & PREV_INUSE && size - (s->end - p) <= GROWTH &&
          (p + size) % s->page_bytes == 0))
        return 0;
    return size;
}

static inline bool is_top(const struct leakcase_walk *s, uint64_t p, uint64_t size)
{
    return p < s->top_end && s->top_end <= p + size;
}

static inline bool fits_before(const struct window *w, uint64_t p, uint64_t previous)
{
    return !previous || head(w, p) & PREV_INUSE || word(w, p) == previous;
}

static bool closes(const struct leakcase_walk *s, const struct window *w, uint64_t p)
{
    uint64_t size = head(w, p) & ~FLAGS;
    if (size == HEADER && p + 32 <= s->end && p + 32 <= w->end) {
        uint64_t following = head(w, p + HEADER), next = following & ~FLAGS;
        return (next == 0 || next == HEADER) && following & PREV_INUSE;
    }
    return size == 0 && p + HEADER == s->end;
}

static uint64_t is_tcache(const struct window *w, uint64_t p, uint64_t size)
{
    for (size_t k = 0; k < sizeof tcaches / sizeof *tcaches; k++) {
        const struct tcache *t = &tcaches[k];
        if (size != t->chunk || p + size > w->end)
            continue;
        const unsigned char *at = w->bytes + (p + HEADER - w->base);
        uint64_t entries[76], used = 0, unaligned = 0;
        unsigned counts[76], most = 0, torn = 0;
        memcpy(entries, at + t->count_bytes * t->lists, 8 * t->lists);
        for (unsigned i = 0; i < t->lists; i++) {
            uint16_t wide = at[i];
            if (t->count_bytes == 2)
                memcpy(&wide, at + 2 * i, 2);
            counts[i] = wide;
            most = counts[i] > most ? counts[i] : most;
            used |= entries[i];
            unaligned |= entries[i] & 15;
        }
        if (!most || !used || unaligned)
            return 0;
        for (unsigned i = 0; i < t->lists; i++)
            torn += (counts[i] == (t->is_slots ? most : 0)) != (entries[i] == 0);
        return torn <= TORN_LISTS;
    }
    return 0;
}

static bool is_chain(const struct leakcase_walk *s, const struct window *w, uint64_t q)
{
    uint64_t previous = 0;
    for (int hop = 0; hop < HOPS; hop++) {
        if (q == s->end)
            return hop > 0;
        if (q + HEADER > w->end)
            return hop > 1;
        if (!fits_before(w, q, previous))
            return false;
        uint64_t size = size_at(s, w, q);
        if (!size)
            return hop > 0 && closes(s, w, q);
        if (is_top(s, q, size))
            return hop > 0;
        previous = size;
        q += size;
    }
    return true;
}

static bool resync(struct leakcase_walk *s, const struct window *w)
{
    uint64_t q = s->position > w->base ? s->position : w->base;
    for (; q + HEADER <= w->end && q < s->end; q += 16) {
        if (is_chain(s, w, q)) {
            s->lost_bytes += q - s->lost;
            s->resyncs++;
            s->lost = 0;
            s->position = q;
            return true;
        }
    }
    return false;
}

static void settle(struct leakcase_walk *s, const struct lists *l, const struct window *w, uint64_t p)
{
    uint64_t chunk = s->pending, size = s->pending_bytes;
    if (!chunk)
        return;
    if (head(w, p) & PREV_INUSE) {
        s->in_use_chunks++;
        s->in_use_bytes += size;
        if (size < COUNTED)
            l->counts[size >> 4]++;
        if (size >= s->listed_from_bytes) {
            l->listed[2 * s->listed] = chunk;
            l->listed[2 * s->listed++ + 1] = size;
        }
        if (s->pending_is_tcache)
            l->tcaches[s->tcaches++] = chunk;
        return;
    }
    s->free_chunks++;
    s->free_bytes += size;
    uint64_t page = s->page_bytes;
    uint64_t low = (chunk + 48 + page - 1) / page * page, high = (chunk + size) / page * page;
    if (low < high) {
        l->spans[2 * s->spans] = low;
        l->spans[2 * s->spans++ + 1] = high;
    }
}

static void one_step(struct leakcase_walk *s, const struct lists *l, const struct window *w)
{
    uint64_t p = s->position, size = size_at(s, w, p);
    if (!size || !fits_before(w, p, s->pending ? s->pending_bytes : 0)) {
        if (!size && closes(s, w, p)) {
            settle(s, l, w, p);
            uint64_t closing = s->end - p < 2 * HEADER ? s->end - p : 2 * HEADER;
            s->closing_bytes += closing;
            s->position = p + closing;
        } else {
            s->lost = s->pending ? s->pending : p;
        }
        s->pending = 0;
        return;
    }
    settle(s, l, w, p);
    if (is_top(s, p, size)) {
        s->found_top = p;
        s->found_top_bytes = s->top_end - p;
        s->position = s->top_end;
        s->pending = 0;
        return;
    }
    s->pending = p;
    s->pending_bytes = size;
    s->pending_is_tcache = is_tcache(w, p, size);
    s->position = p + size;
}

static int finish(struct leakcase_walk *s)
{
    uint64_t lost = s->lost ? s->lost : s->pending;
    if (lost)
        s->lost_bytes += s->end - lost;
    s->lost = s->pending = 0;
    return DONE;
}

int leakcase_walk(struct leakcase_walk *s, uint64_t *counts, uint64_t *listed, uint64_t *spans,
                  uint64_t *found, const unsigned char *bytes, uint64_t base, uint64_t length,
                  int is_last)
{
    const struct lists l = {counts, listed, spans, found};
    const struct window w = {bytes, base, base + (length & ~FLAGS)};
    const uint64_t margin = is_last ? HEADER : LOOK_AHEAD;
    for (;;) {
        if (s->position >= s->end)
            return finish(s);
        if (s->lost && !resync(s, &w)) {
            uint64_t next = w.end & ~UINT64_C(15);
            s->position = next > s->position ? next : s->position;
            return MORE;
        }
        if (s->listed >= s->capacity || s->spans >= s->capacity || s->tcaches >= s->capacity)
            return FULL;
        if (s->position + margin > w.end)
            return MORE;
        one_step(s, &l, &w);
    }
}
