/* A thread that stands inside malloc, for as long as one likes.

   The page to which malloc would write next is taken away; the handler of the fault, which thus
   interrupts malloc half-way, waits for a line, gives the page back and lets malloc go on. With
   the argument "threads" there is a second thread, so that malloc holds its arena's lock. With
   "stack" the handler runs on a stack of its own. */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char *page;
static char other[65536];

static void wait_inside(int number)
{
    char letter;
    (void)number;
    if (write(1, "inside\n", 7) != 7 || read(0, &letter, 1) != 1)
        _exit(2);
    if (mprotect(page, 4096, PROT_READ | PROT_WRITE))
        _exit(3);
}

static void *idle(void *unused)
{
    for (;;)
        pause();
    return unused;
}

int main(int count, char **words)
{
    struct sigaction action = {.sa_handler = wait_inside};
    stack_t stack = {.ss_sp = other, .ss_size = sizeof other};
    pthread_t thread;
    char letter;
    for (int i = 1; i < count; i++) {
        if (!strcmp(words[i], "threads"))
            pthread_create(&thread, NULL, idle, NULL);
        if (!strcmp(words[i], "stack")) {
            action.sa_flags = SA_ONSTACK;
            sigaltstack(&stack, NULL);
        }
    }
    sigaction(SIGSEGV, &action, NULL);
    setvbuf(stdout, NULL, _IONBF, 0);
    free(malloc(100));
    if (write(1, "outside\n", 8) != 8 || read(0, &letter, 1) != 1)
        return 2;
    /* The next block of 8,192 bytes comes from the top, whose new header lies behind it. */
    char *last = malloc(8192);
    page = (char *)(((uintptr_t)last + 8192 + 8192 + 8) & ~(uintptr_t)4095);
    if (mprotect(page, 4096, PROT_NONE))
        return 4;
    char *block = malloc(8192);
    memset(block, 1, 8192);
    free(block);
    free(last);
    if (write(1, "done\n", 5) != 5 || read(0, &letter, 1) != 1)
        return 2;
    return 0;
}
