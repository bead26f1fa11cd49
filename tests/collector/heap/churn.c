/* Threads that build, move and free lists without ever losing a block. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS = 16, SLOTS = 400 };
struct node {
    struct node *next;
    char content[];
};
static struct node *shared[THREADS][SLOTS];
static pthread_mutex_t locks[THREADS];

static void *work(void *argument)
{
    unsigned seed = 1 + (unsigned)(long)argument;
    for (;;) {
        unsigned to = rand_r(&seed) % THREADS, slot = rand_r(&seed) % SLOTS;
        size_t size = 16 + rand_r(&seed) % 900;
        struct node *made = malloc(sizeof *made + size), *gone;
        memset(made->content, (int)seed, size);
        pthread_mutex_lock(&locks[to]);
        gone = shared[to][slot];
        if (seed % 3) { /* in front of what is there */
            made->next = gone;
            gone = seed % 5 ? NULL : made->next;
            if (gone)
                made->next = NULL;
        } else {
            made->next = NULL;
        }
        shared[to][slot] = made;
        pthread_mutex_unlock(&locks[to]);
        while (gone) {
            struct node *next = gone->next;
            free(gone);
            gone = next;
        }
        if (seed % 64 == 0)
            usleep(1000);
    }
    return NULL;
}

int main(void)
{
    for (long i = 0; i < THREADS; i++)
        pthread_mutex_init(&locks[i], NULL);
    for (long i = 0; i < THREADS; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, work, (void *)i);
    }
    sleep(1);
    puts("ready");
    fflush(stdout);
    for (;;)
        pause();
}
