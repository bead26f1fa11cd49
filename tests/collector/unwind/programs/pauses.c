/* Waits at the end of a known chain of calls, in the main thread and in one more. */

#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

static volatile int kept;

__attribute__((noinline)) static void deep(int depth)
{
    volatile char room[100];
    room[depth] = 1;
    if (depth)
        deep(depth - 1);
    else
        for (;;)
            pause();
    kept += room[depth];
}

static void *other(void *unused)
{
    deep(4);
    return unused;
}

int main(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, other, NULL) != 0)
        return 1;
    puts("ready");
    fflush(stdout);
    deep(9);
    return 0;
}
