/* Calls its allocator a known number of times, once a byte has come in. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static void *volatile kept[1000];

int main(void)
{
    static char buffer[64];
    char byte;
    void *p;

    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    fputs("up\n", stdout);
    fflush(stdout);
    if (read(0, &byte, 1) != 1)
        for (;;)
            pause();
    for (int i = 0; i < 1000; i++)
        kept[i] = malloc(100 + i);
    for (int i = 0; i < 400; i++)
        free(kept[i]);
    for (int i = 0; i < 53; i++)
        kept[i] = calloc(3, 40);
    for (int i = 0; i < 61; i++)
        kept[400 + i] = realloc(kept[400 + i], 2000 + i);
    for (int i = 0; i < 29; i++)
        if (posix_memalign(&p, 64, 200) == 0)
            kept[100 + i] = p;
    for (int i = 0; i < 31; i++)
        kept[150 + i] = aligned_alloc(64, 640);
    for (int i = 0; i < 37; i++)
        kept[200 + i] = memalign(64, 333);
    for (int i = 0; i < 41; i++)
        free((void *)0 + (kept[0] == 0));
    for (int i = 0; i < 11; i++)
        kept[300 + i] = mmap(0, 8192, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 7; i++)
        munmap(kept[300 + i], 8192);
    fputs("done\n", stdout);
    fflush(stdout);
    return read(0, &byte, 1) < 0;
}
