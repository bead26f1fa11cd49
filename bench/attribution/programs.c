/* Programs whose leaking function is known, for `make attribution`.
 *
 *     programs CASE SEED [--seconds N]
 *
 * Each keeps up about 20,000 allocations and frees a second, nearly all of them innocent, and
 * forgets blocks in functions named leak_…; what caches keep is made in cache_insert. The blocks of
 * the innocent (churn_…) have the same sizes. Built -O2 -fomit-frame-pointer and stripped of all
 * but its symbols. At its end it says how many bytes each function forgot.
 */
#include <pthread.h>
#include <sys/wait.h>

#include "../../samples/common.h"

#define PER_TICK 400
#define SLOTS 20011
#define KEPT_MAX (1 << 22)
#define BLOCK_BYTES 56

static uint64_t random_state;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* What the functions forgot, in blocks; the bytes are chunks. */
static struct {
    const char *name;
    uint64_t blocks, chunk_bytes;
} truths[8];

static void forgot(size_t site, const char *name, size_t request)
{
    truths[site].name = name;
    truths[site].blocks++;
    truths[site].chunk_bytes = CHUNK_BYTES(request);
}

/* The program's own work on each of its blocks: some 8 us, so that it uses a quarter of a core. */
static void compute(void)
{
    uint64_t value = random_state;
    for (int i = 0; i < 6000; i++)
        value = value * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    __asm__ volatile("" : : "r"(value) : "memory");
}

/* Something that tells one record from another, as real ones have: a number, a time, a link. */
struct entry {
    uint64_t number, time_ns;
    struct entry *next;
    uint64_t uses, last_use_ns, words[2];
};

static NOINLINE struct entry *fill(struct entry *entry, struct entry *next)
{
    static uint64_t number;
    if (entry == NULL) {
        sample_limit_reached();
        return NULL;
    }
    entry->number = __atomic_add_fetch(&number, 1, __ATOMIC_RELAXED);
    entry->time_ns = sample_clock_ns();
    entry->next = next;
    entry->uses = 0;
    entry->last_use_ns = 0;
    entry->words[0] = 0x1122334455667788;
    entry->words[1] = 0;
    return entry;
}

/* --- the innocent --------------------------------------------------------------------------- */

static void *slots[SLOTS];

static NOINLINE void *churn_small(void)
{
    return fill(malloc(sizeof(struct entry)), NULL);
}

static NOINLINE void *churn_zeroed(void)
{
    return fill(calloc(1, sizeof(struct entry)), NULL);
}

static NOINLINE void *churn_text(void)
{
    char *text = malloc(BLOCK_BYTES);
    if (text != NULL)
        snprintf(text, BLOCK_BYTES, "request %llu of this run", (unsigned long long)next_random());
    return text;
}

static NOINLINE void *churn_zeros(void)
{
    return calloc(1, BLOCK_BYTES);
}

/* Replaces `count` blocks; the victims die before their successors are born. */
static NOINLINE void churn(size_t count, bool only_zeros)
{
    size_t victims[PER_TICK];
    for (size_t i = 0; i < count; i++) {
        victims[i] = next_random() % SLOTS;
        free(slots[victims[i]]);
        slots[victims[i]] = NULL;
    }
    for (size_t i = 0; i < count; i++) {
        void **slot = &slots[victims[i]];
        if (*slot != NULL)
            continue;
        compute();
        switch (only_zeros ? 3 : victims[i] % 3) {
        case 0: *slot = churn_small(); break;
        case 1: *slot = churn_zeroed(); break;
        case 2: *slot = churn_text(); break;
        default: *slot = churn_zeros(); break;
        }
    }
}

/* --- those that forget ---------------------------------------------------------------------- */

static NOINLINE void leak_small(void)
{
    if (fill(malloc(sizeof(struct entry)), NULL) != NULL)
        forgot(0, "leak_small", sizeof(struct entry));
}

#define SITE(number, name)                                                                       \
    static NOINLINE void name(void)                                                              \
    {                                                                                            \
        if (fill(malloc(sizeof(struct entry)), NULL) != NULL)                                    \
            forgot(number, #name, sizeof(struct entry));                                         \
    }
SITE(0, leak_half)
SITE(1, leak_third)
SITE(2, leak_seventh)
SITE(3, leak_twentieth)

static NOINLINE void leak_calloc(void)
{
    if (fill(calloc(2, sizeof(struct entry)), NULL) != NULL)
        forgot(0, "leak_calloc", 2 * sizeof(struct entry));
}

/* Of a size of its own, as most leaks are. */
static NOINLINE void leak_odd(void)
{
    if (fill(malloc(4 * sizeof(struct entry)), NULL) != NULL)
        forgot(0, "leak_odd", 4 * sizeof(struct entry));
}

static NOINLINE void leak_realloc(void)
{
    struct entry *small = fill(malloc(sizeof(struct entry)), NULL);
    struct entry *larger = realloc(small, 4 * sizeof(struct entry));
    if (larger == NULL)
        sample_limit_reached();
    else
        forgot(0, "leak_realloc", 4 * sizeof(struct entry));
}

static NOINLINE void leak_zeros(void)
{
    void *block = calloc(1, BLOCK_BYTES);
    if (block == NULL)
        sample_limit_reached();
    else
        forgot(0, "leak_zeros", BLOCK_BYTES);
    __asm__ volatile("" : : "r"(block) : "memory");
}

static struct entry *list;

static NOINLINE void leak_list(void)
{
    struct entry *made = fill(malloc(sizeof(struct entry)), list);
    if (made == NULL)
        return;
    list = made;
    forgot(0, "leak_list", sizeof(struct entry));
}

static struct entry **kept;
static size_t kept_count;

static NOINLINE void leak_mutated(void)
{
    struct entry *made = fill(malloc(sizeof(struct entry)), NULL);
    if (made == NULL || kept_count == KEPT_MAX)
        return;
    kept[kept_count++] = made;
    forgot(0, "leak_mutated", sizeof(struct entry));
}

/* What is kept is also used: three of its words change again and again. */
static NOINLINE void use_kept(void)
{
    for (size_t i = 0; i < kept_count; i++) {
        kept[i]->uses++;
        kept[i]->last_use_ns = sample_clock_ns();
        kept[i]->words[1] = next_random();
    }
}

/* --- caches --------------------------------------------------------------------------------- */

static NOINLINE struct entry *cache_insert(void)
{
    return fill(malloc(sizeof(struct entry)), NULL);
}

/* At 2,000 entries a second each lives for 10 s, exactly (first in, first out) or on average. */
#define CACHE_PER_TICK 40
#define CACHE_ENTRIES 20000
static struct entry *cache[CACHE_ENTRIES];

static NOINLINE void cache_tick(bool is_random)
{
    static size_t oldest;
    for (size_t i = 0; i < CACHE_PER_TICK; i++) {
        size_t place = is_random ? next_random() % CACHE_ENTRIES : oldest++ % CACHE_ENTRIES;
        free(cache[place]);
        cache[place] = cache_insert();
    }
}

static void cache_fill(void)
{
    for (size_t i = 0; i < CACHE_ENTRIES; i++)
        cache[i] = cache_insert();
}

/* --- threads that free what others made ----------------------------------------------------- */

#define RING 4096
static void *ring[RING];
static int thread_count;

static NOINLINE void *worker_request(void)
{
    return fill(malloc(sizeof(struct entry)), NULL);
}

static NOINLINE void leak_in_thread(void)
{
    if (fill(malloc(sizeof(struct entry)), NULL) != NULL)
        __atomic_add_fetch(&truths[0].blocks, 1, __ATOMIC_RELAXED);
}

/* Each puts its block where another's was, and frees that; some of its own it forgets. */
static void *worker(void *seed)
{
    uint64_t state = (uintptr_t)seed * UINT64_C(2654435761) + 1;
    uint64_t done = 0, per_second = 20000 / (uint64_t)thread_count;
    while (!sample_asked_to_stop && sample.ended == NULL) {
        uint64_t due = (sample_clock_ns() - sample.start_ns) / 1000 * per_second / 1000000;
        for (; done < due; done++) {
            state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            free(__atomic_exchange_n(&ring[(state >> 33) % RING], worker_request(),
                                     __ATOMIC_ACQ_REL));
            compute();
            if (done % 50 == 0)
                leak_in_thread();
        }
        usleep(2000);
    }
    return NULL;
}

static void run_threads(uint64_t seed)
{
    pthread_t threads[16];
    truths[0].name = "leak_in_thread";
    truths[0].chunk_bytes = CHUNK_BYTES(sizeof(struct entry));
    for (int i = 0; i < thread_count; i++)
        if (pthread_create(&threads[i], NULL, worker, (void *)(uintptr_t)(seed * 100 + i)) != 0)
            sample_die("pthread_create");
    while (sample_tick())
        continue;
    for (int i = 0; i < thread_count; i++)
        pthread_join(threads[i], NULL);
}

/* --- one loop for all others ---------------------------------------------------------------- */

enum what { SMALL, SITES, CALLOC, REALLOC, LIST, MUTATED, ZEROS, RARE, ODD, FIFO, RANDOM };

static void leak_once(enum what what)
{
    switch (what) {
    case CALLOC: leak_calloc(); break;
    case REALLOC: leak_realloc(); break;
    case LIST: leak_list(); break;
    case MUTATED: leak_mutated(); break;
    case ZEROS: leak_zeros(); break;
    case ODD: leak_odd(); break;
    case SITES: {
        uint64_t draw = next_random() % 100;
        if (draw < 50)
            leak_half();
        else if (draw < 80)
            leak_third();
        else if (draw < 95)
            leak_seventh();
        else
            leak_twentieth();
        break;
    }
    default: leak_small(); break;
    }
}

static void run(enum what what)
{
    bool is_cache = what == FIFO || what == RANDOM, is_rare = what == RARE || what == ODD;
    uint64_t leaks = 0;
    if (is_cache)
        cache_fill();
    if (what == MUTATED && (kept = calloc(KEPT_MAX, sizeof *kept)) == NULL)
        sample_die("calloc");
    while (sample_tick()) {
        churn(PER_TICK, what == ZEROS);
        if (is_cache)
            cache_tick(what == RANDOM);
        else
            for (uint64_t due = sample_due(is_rare ? 5 : 400, SECOND_NS); leaks < due; leaks++)
                leak_once(what);
        if (what == MUTATED && sample.tick % 25 == 0)
            use_kept();
    }
}

static int end(void)
{
    printf("{\"leaked\":{");
    for (size_t i = 0, told = 0; i < sizeof truths / sizeof truths[0]; i++)
        if (truths[i].name != NULL)
            printf("%s\"%s\":%llu", told++ ? "," : "", truths[i].name,
                   (unsigned long long)(truths[i].blocks * truths[i].chunk_bytes));
    printf("},\"ended\":\"%s\"}\n", sample.ended == NULL ? "none" : sample.ended);
    return fflush(stdout);
}

/* A server that hands its work to processes of its own: the last one is watched. */
static void fork_workers(int argc, char **argv, uint64_t seed)
{
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        if (child < 0)
            sample_die("fork");
        if (child == 0) {
            random_state += (uint64_t)i * 7919 + seed;
            sample_begin(argc, argv, "forked");
            run(SMALL);
            exit(i == 2 ? end() : 0);
        }
    }
    while (wait(NULL) > 0)
        continue;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"small",   "sites", "calloc", "realloc", "list",
                                        "mutated", "zeros", "rare",   "odd",     "fifo",
                                        "random"};
    if (argc < 3)
        return 2;
    const char *name = argv[1];
    uint64_t seed = strtoull(argv[2], NULL, 10);
    random_state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    argv[2] = argv[0];
    if (strcmp(name, "forked") == 0) {
        fork_workers(argc - 2, argv + 2, seed);
        return 0;
    }
    sample_begin(argc - 2, argv + 2, name);
    if (strncmp(name, "threads", 7) == 0) {
        thread_count = atoi(name + 7);
        run_threads(seed);
        return end();
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0) {
            run((enum what)i);
            return end();
        }
    return 2;
}
