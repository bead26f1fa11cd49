/*
 * Calls its allocator as it is told on standard input, and says how often it did what: the truth
 * that a tracer is measured by. Between commands it allocates nothing.
 *
 *     counted THREADS
 *
 * mix N: N operations in each thread at once, on blocks that all of them share; busy: for ever.
 * leak N SIZE: N blocks that are never freed; churn N SIZE: freed at once. wrapped N: leaked by a
 * function of its own.
 * deep N: one block at each depth to N. wide: one block, below a frame of 40 KB; hollow: below one
 * of 20 KB that it never writes to.
 * failing: a realloc that cannot succeed. emptied: a realloc to nothing.
 * maps N: mmap and mremap, every second one munmap, and a file that is mapped.
 * fork: a child that allocates. exec: the program anew.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MALLOC, CALLOC, REALLOC, REALLOCARRAY, MEMALIGN, ALIGNED, POSIX, VALLOC, FREE, KINDS };
static const char *names[] = {"malloc",   "calloc",        "realloc",        "reallocarray",
                              "memalign", "aligned-alloc", "posix-memalign", "valloc", "free"};

#define SLOTS 512
static _Atomic(uint64_t *) slots[SLOTS];
static atomic_long calls[KINDS];
static sem_t begin, end;
static int operations, forever;

static void count(int kind) { atomic_fetch_add(&calls[kind], 1); }

static void give_back(void *block)
{
    if (block) {
        count(FREE);
        free(block);
    }
}

static uint64_t *take(int kind, size_t size, uint64_t *old)
{
    void *block = NULL;
    count(kind);
    switch (kind) {
    case MALLOC: block = malloc(size); break;
    case CALLOC: block = calloc(size / 8, 8); size = size / 8 * 8; break;
    case REALLOC: block = realloc(old, size); break;
    case REALLOCARRAY: block = reallocarray(old, size / 16, 16); size = size / 16 * 16; break;
    case MEMALIGN: block = memalign(64, size); break;
    case ALIGNED: block = aligned_alloc(64, size); break;
    case POSIX: if (posix_memalign(&block, 128, size)) abort(); break;
    case VALLOC: block = valloc(size); break;
    }
    *(uint64_t *)block = size;
    return block;
}

static void mix(unsigned seed)
{
    for (int i = 0; i < operations || forever; i++) {
        int kind = rand_r(&seed) % KINDS;
        _Atomic(uint64_t *) *slot = &slots[rand_r(&seed) % SLOTS];
        size_t size = 16 + rand_r(&seed) % 500;
        uint64_t *old = atomic_exchange(slot, NULL);
        if (kind == FREE) {
            give_back(old);
            continue;
        }
        if (kind != REALLOC && kind != REALLOCARRAY) {
            give_back(old);
            old = NULL;
        }
        give_back(atomic_exchange(slot, take(kind, size, old)));
    }
}

static void *work(void *number)
{
    for (;;) {
        sem_wait(&begin);
        mix((unsigned)(uintptr_t)number);
        sem_post(&end);
    }
    return NULL;
}

__attribute__((noinline)) void *leak(size_t size)
{
    char *block = malloc(size);
    block[0] = 1;
    return block;
}

__attribute__((noinline)) void *wrapper(size_t size)
{
    char *block = malloc(size);
    block[0] = 1;
    return block;
}

__attribute__((noinline)) int deep(int depth)
{
    volatile char here[64];
    here[0] = 1;
    if (depth)
        return deep(depth - 1) + here[0];
    leak(100);
    return here[0];
}

__attribute__((noinline)) int wide(void)
{
    volatile char here[40000];
    for (unsigned i = 0; i < sizeof(here); i++)
        here[i] = 1;
    leak(100);
    return here[0];
}

__attribute__((noinline)) int hollow(void)
{
    volatile char here[20000];
    here[0] = 1;
    leak(100);
    return here[0];
}

static void tell(void)
{
    uint64_t blocks = 0, bytes = 0, sum = 0;
    for (int i = 0; i < SLOTS; i++) {
        uint64_t *block = atomic_load(&slots[i]);
        if (block) {
            blocks++;
            bytes += *block;
            sum ^= (uint64_t)(uintptr_t)block;
        }
    }
    printf("{");
    for (int kind = 0; kind < KINDS; kind++)
        printf("\"%s\": %ld, ", names[kind], atomic_load(&calls[kind]));
    printf("\"blocks\": %lu, \"bytes\": %lu, \"sum\": %lu}\n", blocks, bytes, sum);
}

static void maps(int number)
{
    int file = open("/proc/self/exe", O_RDONLY);
    mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    for (int i = 0; i < number; i++) {
        char *map = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        map = mremap(map, 8192, 65536, MREMAP_MAYMOVE);
        if (i % 2)
            munmap(map, 65536);
    }
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 1, first = 0, second = 0;
    char line[64], word[16];

    setvbuf(stdout, NULL, _IONBF, 0);
    setvbuf(stdin, NULL, _IONBF, 0);
    sem_init(&begin, 0, 0);
    sem_init(&end, 0, 0);
    for (int i = 0; i < threads; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, work, (void *)(uintptr_t)(i + 1));
    }
    puts("ready");
    while (fgets(line, sizeof(line), stdin)) {
        first = second = 0;
        if (sscanf(line, "%15s %d %d", word, &first, &second) < 1)
            continue;
        if (!strcmp(word, "mix") || !strcmp(word, "busy")) {
            operations = first;
            forever = word[0] == 'b';
            for (int i = 0; i < threads; i++)
                sem_post(&begin);
            for (int i = 0; i < threads && !forever; i++)
                sem_wait(&end);
        } else if (!strcmp(word, "leak")) {
            for (int i = 0; i < first; i++)
                leak(second);
        } else if (!strcmp(word, "churn")) {
            for (int i = 0; i < first; i++)
                free(leak(second));
        } else if (!strcmp(word, "wrapped")) {
            for (int i = 0; i < first; i++)
                wrapper(100);
        } else if (!strcmp(word, "failing")) {
            uint64_t *block = leak(100);
            if (realloc(block, SIZE_MAX / 2))
                abort();
        } else if (!strcmp(word, "emptied")) {
            void *block = leak(100);
            block = realloc(block, 0);
        } else if (!strcmp(word, "maps")) {
            maps(first);
        } else if (!strcmp(word, "deep")) {
            for (int i = 0; i < first; i++)
                deep(i);
        } else if (!strcmp(word, "wide")) {
            wide();
        } else if (!strcmp(word, "hollow")) {
            hollow();
        } else if (!strcmp(word, "fork")) {
            int status;
            pid_t child = fork();
            if (!child) {
                for (int i = 0; i < 1000; i++)
                    free(leak(50));
                _exit(0);
            }
            waitpid(child, &status, 0);
            printf("%d\n", status);
            continue;
        } else if (!strcmp(word, "exec")) {
            execv("/proc/self/exe", argv);
        }
        tell();
    }
}
