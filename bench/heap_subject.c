/*
 * A heap of known size, and a thread that notices when it stands still.
 *
 *   heap_subject MIB ordered|shuffled
 *
 * Blocks of 128 bytes, each of which refers to the next of one long list, by address or at random.
 * Every eighth was freed: those are what malloc_info(3) counts, one by one.
 * A line on standard input begins to measure and the next ends it: "longest stall, work done".
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BLOCK = 128 };

struct block {
    struct block *next;
    uint64_t content[BLOCK / 8 - 1];
};

static struct block *head;
static atomic_ullong longest_ns, rounds;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

/* 200 microseconds of work, then as much rest: it must not need a core for itself. */
static void *work(void *unused)
{
    (void)unused;
    uint64_t last = now_ns();
    for (;;) {
        uint64_t end = now_ns() + 200000, sum = 0;
        for (struct block *b = head; b && now_ns() < end; b = b->next)
            sum += b->content[0];
        __asm__ volatile("" : : "r"(sum));
        struct timespec rest = {0, 200000};
        nanosleep(&rest, NULL);
        uint64_t now = now_ns(), gap = now - last;
        if (gap > longest_ns)
            longest_ns = gap;
        last = now;
        rounds++;
    }
}

int main(int argc, char **argv)
{
    uint64_t random = 88172645463325252u;
    size_t count = strtoull(argv[1], NULL, 10) * ((1 << 20) / (BLOCK + 16)), kept = 0;
    struct block **all = malloc(count * sizeof *all);
    char line[64];
    if (argc < 3 || !all)
        return 1;
    for (size_t i = 0; i < count; i++) {
        if (!(all[i] = malloc(BLOCK)))
            return 1;
        memset(all[i], 1, BLOCK);
    }
    for (size_t i = 0; i < count; i++)
        if (i % 8 == 7)
            free(all[i]);
        else
            all[kept++] = all[i];
    count = kept;
    if (!strcmp(argv[2], "shuffled"))
        for (size_t i = count - 1; i > 0; i--) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            struct block *other = all[random % (i + 1)];
            all[random % (i + 1)] = all[i];
            all[i] = other;
        }
    for (size_t i = 0; i + 1 < count; i++)
        all[i]->next = all[i + 1];
    all[count - 1]->next = NULL;
    head = all[0];
    free(all);
    pthread_t thread;
    pthread_create(&thread, NULL, work, NULL);
    printf("%zu\n", count);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        longest_ns = rounds = 0;
        uint64_t begun = now_ns();
        if (!fgets(line, sizeof line, stdin))
            break;
        fprintf(stderr, "%llu %llu %llu\n", (unsigned long long)longest_ns,
                (unsigned long long)rounds, (unsigned long long)(now_ns() - begun));
        fflush(stderr);
    }
    return 0;
}
