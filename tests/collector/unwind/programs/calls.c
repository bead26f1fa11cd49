/* Frames of all kinds, to be stepped through: deep calls, a callback of libc's, a stack that is
   aligned anew, one that grows by alloca, a signal handler, jumps through the PLT. */

#include <alloca.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static volatile long kept;

static void handler(int number)
{
    char text[64];
    snprintf(text, sizeof text, "signal %d", number);
    kept += (long)strlen(text);
}

static int by_value(const void *left, const void *right)
{
    static int calls;
    if (++calls == 3)
        raise(SIGUSR1);
    return *(const int *)left - *(const int *)right;
}

__attribute__((noinline)) static int sorted(int size)
{
    int numbers[32];
    for (int index = 0; index < size; index++)
        numbers[index] = size - index;
    qsort(numbers, (size_t)size, sizeof *numbers, by_value);
    return numbers[0];
}

__attribute__((noinline)) static int grown(int size)
{
    char *room = alloca((size_t)size + (size_t)kept % 3);
    memset(room, size, (size_t)size);
    return sorted(8) + room[size / 2];
}

__attribute__((noinline)) static int aligned(int size)
{
    volatile char room[64 + size] __attribute__((aligned(128)));
    room[size] = 1;
    return grown(size + 5) + room[size];
}

__attribute__((noinline)) static int deep(int depth)
{
    volatile char room[40];
    room[depth] = (char)depth;
    int found = depth ? deep(depth - 1) : aligned(17);
    return found + room[depth];
}

int main(void)
{
    signal(SIGUSR1, handler);
    for (int round = 0; round < 1000; round++) {
        /* From the vdso, and unlike clock_gettime without a loop that slow steps never end. */
        void *block = malloc(100 + (size_t)time(NULL) % 7);
        kept += deep(6);
        free(block);
    }
    return 0;
}
