/*
 * A program that knows what it has from malloc, and says so. One mode, named by its argument, is
 * set up before it answers "ready"; then each line of standard input is a command, each answer ends
 * with a line ".". Input and output have static buffers: asking changes nothing.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { THREADS_MAX = 16, SLOTS_MAX = 4096, KEPT_MAX = 1 << 20 };

static char out_buffer[1 << 16], in_buffer[1 << 12];
static int threads, slots;
static atomic_bool stopping;
static atomic_long live_bytes[THREADS_MAX], live_chunks[THREADS_MAX], operations[THREADS_MAX];
static atomic_long errors, ready;
static void *kept[KEPT_MAX];
static long kept_count;

static size_t chunk_size(void *block)
{
    return malloc_usable_size(block) + sizeof(size_t);
}

/* idle: each thread leaves blocks of known sizes; what was freed in between is in every list. */
static void *idle_part(void *unused)
{
    enum { MANY = 3001, SOME = 503, LARGE = 701 };
    void *small[MANY], *tiny[MANY], *middle[SOME], *large[LARGE];
    (void)unused;
    for (int i = 0; i < MANY; i++) {
        small[i] = malloc(200);
        tiny[i] = malloc(40);
        memset(small[i], i, 200);
    }
    for (int i = 0; i < SOME; i++)
        middle[i] = malloc(3000);
    for (int i = 0; i < LARGE; i++) /* 70 MB, more than one heap of an arena; touched at its ends */
        large[i] = malloc(100000);
    for (int i = 0; i < MANY; i += 3) {
        free(small[i]);
        free(tiny[i]);
    }
    for (int i = 1; i < SOME; i += 5)
        free(middle[i]);
    for (int i = 2; i < LARGE; i += 7)
        free(large[i]);
    ready++;
    pause();
    return NULL;
}

static void say_idle(void)
{
    printf("208 %d\n48 %d\n3008 %d\n100016 %d\n", threads * (3001 - 1001), threads * (3001 - 1001),
           threads * (503 - 101), threads * (701 - 100));
}

static void idle(void)
{
    pthread_t thread;
    for (int i = 0; i < threads; i++)
        pthread_create(&thread, NULL, idle_part, NULL);
    while (ready < threads)
        usleep(1000);
    for (int i = 0; i < 7; i++)
        kept[kept_count++] = malloc(300000 + i * 5000);
    kept[kept_count++] = memalign(64, 400000);
    kept[kept_count++] = memalign(4096, 500000);
    kept[kept_count++] = memalign(1 << 16, 600000);
}

/* churn: blocks come and go; each is checked when it goes. */
static void *churn_part(void *number)
{
    int me = (int)(intptr_t)number;
    static _Thread_local unsigned char *block[SLOTS_MAX];
    static _Thread_local size_t length[SLOTS_MAX];
    uint64_t random = 88172645463325252u + me * 7919;
    while (!stopping) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        int i = random % slots;
        if (block[i]) {
            if (block[i][0] != (unsigned char)i || block[i][length[i] - 1] != (unsigned char)i)
                errors++;
            live_bytes[me] -= chunk_size(block[i]);
            live_chunks[me]--;
            free(block[i]);
        }
        /* Sizes that differ little: the sum of all that live hardly moves while it is counted. */
        length[i] = (i % 16 ? 16 : 5000) + (random >> 32) % 1000;
        block[i] = malloc(length[i]);
        memset(block[i], i, length[i]);
        live_bytes[me] += chunk_size(block[i]);
        live_chunks[me]++;
        if (++operations[me] == 4 * slots)
            ready++;
        if (operations[me] % 64 == 0) /* who reads must get a turn, too */
            usleep(300);
    }
    return NULL;
}

static pthread_t churning[THREADS_MAX];

static void churn(void)
{
    for (int i = 0; i < threads; i++)
        pthread_create(&churning[i], NULL, churn_part, (void *)(intptr_t)i);
    while (ready < threads)
        usleep(1000);
}

static void stop(void)
{
    long done = 0;
    stopping = true;
    for (int i = 0; i < threads; i++) {
        pthread_join(churning[i], NULL);
        done += operations[i];
    }
    printf("operations %ld\nerrors %ld\n", done, (long)errors);
}

/* spike: one block in eight of 40 MB stays; the rest is free, and resident. */
static void spike(void)
{
    for (int i = 0; i < 40000; i++) {
        kept[i] = malloc(i % 40 ? 1000 : 5000);
        memset(kept[i], 1, i % 40 ? 1000 : 5000);
    }
    kept_count = 40000;
    for (int i = 0; i < 40000; i++)
        if (i % 80) {
            free(kept[i]);
            kept[i] = NULL;
        }
}

/* atoi and sscanf of newer headers are symbols that older libraries lack. */
static long number(const char *text)
{
    long value = 0;
    while (*text >= '0' && *text <= '9')
        value = 10 * value + (*text++ - '0');
    return value;
}

static long resident_bytes(void)
{
    char text[128] = "";
    int file = open("/proc/self/statm", O_RDONLY);
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    return length > 0 ? number(strchr(text, ' ') + 1) * sysconf(_SC_PAGESIZE) : 0;
}

static void trim(void)
{
    long before = resident_bytes();
    malloc_trim(0);
    printf("given_back %ld\n", before - resident_bytes());
}

/* untouched: blocks of which hardly a page was ever written, and free memory given back. */
static void untouched(void)
{
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    for (int i = 0; i < 50; i++)
        kept[kept_count++] = malloc(1000003);
    for (int i = 0; i < 50; i += 2)
        free(kept[i]);
    malloc_trim(0);
}

/* blocked: the heap cannot grow in place, so that malloc goes on elsewhere. */
static void blocked(void)
{
    for (int i = 0; i < 500; i++)
        kept[kept_count++] = malloc(1000);
    mmap(sbrk(0), 1 << 16, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    for (int i = 0; i < 4500; i++)
        kept[kept_count++] = malloc(1000);
}

/* damaged: a block that was written beyond its end, again and again. */
static void damaged(void)
{
    for (int i = 0; i < 20000; i++)
        kept[kept_count++] = malloc(200);
    for (int i = 0; i < 19000; i += 2)
        memset(kept[i], 0x41, 240);
}

static void say_kept(void)
{
    long bytes = 0, count = 0;
    for (long i = 0; i < kept_count; i++)
        if (kept[i]) {
            bytes += chunk_size(kept[i]);
            count++;
        }
    printf("chunks %ld\nbytes %ld\n", count, bytes);
}

static void say_live(void)
{
    long bytes = 0, chunks = 0;
    for (int i = 0; i < threads; i++) {
        bytes += live_bytes[i];
        chunks += live_chunks[i];
    }
    printf("bytes %ld\nchunks %ld\n", bytes, chunks);
}

static void say_info(void)
{
    malloc_info(0, stdout);
}

static const struct {
    const char *name;
    void (*run)(void);
} modes[] = {{"idle", idle}, {"churn", churn}, {"spike", spike}, {"untouched", untouched},
             {"blocked", blocked}, {"damaged", damaged}},
  commands[] = {{"idle", say_idle}, {"live", say_live}, {"stop", stop}, {"trim", trim},
                {"kept", say_kept}, {"info", say_info}};

int main(int count, char **arguments)
{
    char line[64];
    setvbuf(stdout, out_buffer, _IOFBF, sizeof out_buffer);
    setvbuf(stdin, in_buffer, _IOFBF, sizeof in_buffer);
    threads = count > 2 ? (int)number(arguments[2]) : 0;
    slots = count > 3 ? (int)number(arguments[3]) : 0;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (strcmp(modes[i].name, arguments[1]) == 0)
            modes[i].run();
    puts("ready\n.");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
            if (strcmp(commands[i].name, line) == 0)
                commands[i].run();
        puts(".");
        fflush(stdout);
    }
    return 0;
}
