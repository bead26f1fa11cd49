/*
 * A program that allocates blocks of a kind when it is told to, and says where they are. Lines of
 * standard input are commands; an answer is one line.
 *   make KIND COUNT BYTES   the addresses; a kind of contents is one of fill()
 *   again KIND              frees all of them and hands the same places out again, filled anew
 *   free STEP               frees every STEP-th
 *   write                   changes what a living object changes: counters and states, not its name
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 4096 };

static char in_buffer[1 << 12], out_buffer[1 << 16];
static uint64_t *blocks[MOST];
static long count, bytes, serial;

static void fill(uint64_t *block, const char *kind)
{
    long words = bytes / 8;
    memset(block, 0, (size_t)bytes);
    serial++;
    if (strcmp(kind, "zeros") == 0)
        return;
    if (strcmp(kind, "text") == 0) {
        snprintf((char *)block, (size_t)bytes, "request %ld of customer %ld", serial, serial * 7919);
        return;
    }
    for (long i = 0; i < words; i++) /* what all have in common: tables, sizes, states */
        block[i] = 0x5a5a0000u + (uint64_t)i;
    if (strcmp(kind, "alike") == 0)
        return;
    block[3] = (uint64_t)serial;
    block[4] = (uint64_t)(uintptr_t)block;
    block[5] = (uint64_t)serial * 2654435761u;
}

static void make(const char *kind)
{
    for (long i = 0; i < count; i++) {
        blocks[i] = malloc((size_t)bytes);
        fill(blocks[i], kind);
        printf("%lx ", (unsigned long)blocks[i]);
    }
}

static void answer(const char *line)
{
    char kind[16];
    long step;
    if (sscanf(line, "make %15s %ld %ld", kind, &count, &bytes) == 3) {
        make(kind);
    } else if (sscanf(line, "again %15s", kind) == 1) {
        for (long i = 0; i < count; i++)
            free(blocks[i]);
        make(kind);
    } else if (sscanf(line, "free %ld", &step) == 1) {
        for (long i = 0; i < count; i += step)
            free(blocks[i]);
    } else if (strcmp(line, "write\n") == 0) {
        for (long i = 0; i < count; i++) {
            blocks[i][0] = (uint64_t)(uintptr_t)blocks[(i + 1) % count];
            blocks[i][1]++;
            blocks[i][5] = (uint64_t)i;
        }
    }
    printf("\n");
}

int main(void)
{
    char line[128];
    setvbuf(stdin, in_buffer, _IOFBF, sizeof in_buffer);
    setvbuf(stdout, out_buffer, _IOFBF, sizeof out_buffer);
    while (fgets(line, sizeof line, stdin) != NULL) {
        answer(line);
        fflush(stdout);
    }
    return 0;
}
