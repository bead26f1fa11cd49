/* Threads that notice whatever happens to them, and functions to be called in them.

   It prints "name address" for each function, then a "." line. "report" answers with what each
   thread has counted: rounds, and the wrongs that it saw. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <immintrin.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct seen {
    volatile uint64_t rounds, wrongs, longest_ns;
};
static struct seen registers, sleeper, poller, reader, ticker;
static pid_t registers_tid, sleeper_tid, poller_tid, reader_tid;
static int channel[2];

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Fills registers, spins, and looks whether all are as they were: flags, SSE and x87, too. */
static int registers_keep(void)
{
    uint64_t wrong;
    static const uint64_t pattern[2] = {0x0123456789abcdefu, 0xfedcba9876543210u};
    __asm__ volatile(
        "movdqu %[pattern], %%xmm0\n\t"
        "movdqa %%xmm0, %%xmm7\n\t"
        "movdqa %%xmm0, %%xmm15\n\t"
        "fldpi\n\t"
        "mov $0x1111, %%rax\n\t"
        "mov $0x2222, %%rcx\n\t"
        "mov $0x3333, %%rdx\n\t"
        "mov $0x4444, %%rsi\n\t"
        "mov $0x5555, %%rdi\n\t"
        "mov $0x8888, %%r8\n\t"
        "mov $0x9999, %%r9\n\t"
        "mov $0xaaaa, %%r10\n\t"
        "mov $0xbbbb, %%r11\n\t"
        "mov $0xcccc, %%r12\n\t"
        "mov $0xdddd, %%r13\n\t"
        "mov $0xeeee, %%r14\n\t"
        "mov $200000, %%r15\n\t"
        "movq $0x7777, -64(%%rsp)\n\t" /* the red zone */
        "stc\n\t"
        "1: dec %%r15\n\t" /* leaves the carry flag alone */
        "jnz 1b\n\t"
        "jnc 2f\n\t"
        "cmp $0x1111, %%rax\n\t"
        "jne 2f\n\t"
        "cmp $0x2222, %%rcx\n\t"
        "jne 2f\n\t"
        "cmp $0x3333, %%rdx\n\t"
        "jne 2f\n\t"
        "cmp $0x4444, %%rsi\n\t"
        "jne 2f\n\t"
        "cmp $0x5555, %%rdi\n\t"
        "jne 2f\n\t"
        "cmp $0x8888, %%r8\n\t"
        "jne 2f\n\t"
        "cmp $0x9999, %%r9\n\t"
        "jne 2f\n\t"
        "cmp $0xaaaa, %%r10\n\t"
        "jne 2f\n\t"
        "cmp $0xbbbb, %%r11\n\t"
        "jne 2f\n\t"
        "cmp $0xcccc, %%r12\n\t"
        "jne 2f\n\t"
        "cmp $0xdddd, %%r13\n\t"
        "jne 2f\n\t"
        "cmp $0xeeee, %%r14\n\t"
        "jne 2f\n\t"
        "cmpq $0x7777, -64(%%rsp)\n\t"
        "jne 2f\n\t"
        "movdqu %[pattern], %%xmm1\n\t"
        "pcmpeqb %%xmm1, %%xmm0\n\t"
        "pcmpeqb %%xmm1, %%xmm7\n\t"
        "pcmpeqb %%xmm1, %%xmm15\n\t"
        "pand %%xmm7, %%xmm0\n\t"
        "pand %%xmm15, %%xmm0\n\t"
        "pmovmskb %%xmm0, %%eax\n\t"
        "cmp $0xffff, %%eax\n\t"
        "jne 2f\n\t"
        "fldpi\n\t"
        "fcomip %%st(1), %%st\n\t"
        "jne 2f\n\t"
        "mov $0, %%rax\n\t"
        "jmp 3f\n\t"
        "2: mov $1, %%rax\n\t"
        "3: fstp %%st(0)\n\t"
        : "=a"(wrong)
        : [pattern] "m"(pattern)
        : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0",
          "xmm1", "xmm7", "xmm15", "cc", "memory");
    return (int)wrong;
}

static void *keep_registers(void *unused)
{
    registers_tid = gettid();
    for (;;) {
        registers.wrongs += (uint64_t)registers_keep();
        registers.rounds++;
    }
    return unused;
}

static void *sleep_whole(void *unused)
{
    sleeper_tid = gettid();
    for (;;) {
        struct timespec t = {0, 150000000};
        uint64_t before = now_ns();
        int failed = clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
        sleeper.wrongs += failed != 0 || now_ns() - before < 150000000u;
        sleeper.rounds++;
    }
    return unused;
}

static void *poll_in_time(void *unused)
{
    poller_tid = gettid();
    for (;;) {
        uint64_t before = now_ns(), took;
        int ready = poll(NULL, 0, 120);
        took = now_ns() - before;
        poller.wrongs += ready != 0 || took < 120000000u;
        poller.rounds++;
    }
    return unused;
}

static void *read_all(void *unused)
{
    char letter;
    reader_tid = gettid();
    for (;;) {
        ssize_t count = read(channel[0], &letter, 1);
        reader.wrongs += count != 1 || letter != 'x';
        reader.rounds++;
    }
    return unused;
}

/* How long it was ever held up: the pause, as the program itself sees it. */
static void *tick(void *unused)
{
    uint64_t last = now_ns();
    for (;;) {
        uint64_t now = now_ns();
        if (now - last > ticker.longest_ns)
            ticker.longest_ns = now - last;
        last = now;
        ticker.rounds++;
        usleep(1000);
    }
    return unused;
}

uint64_t add_eight(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
                   uint64_t g, uint64_t h)
{
    __m128 x = _mm_set1_ps((float)a); /* spoils vector registers, and needs an aligned stack */
    volatile __m128 kept[2] = {x, x};
    (void)kept;
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h;
}
uint64_t wait_for_ever(void)
{
    for (;;)
        pause();
}
uint64_t work(uint64_t milliseconds)
{
    uint64_t until = now_ns() + milliseconds * 1000000u;
    while (now_ns() < until)
        ;
    return 7;
}
uint64_t crash(void)
{
    return *(volatile uint64_t *)8;
}

static volatile sig_atomic_t handled;
static void handle(int number)
{
    (void)number;
    handled++;
}

static void report(void)
{
    printf("registers %lu %lu\n", registers.rounds, registers.wrongs);
    printf("sleeper %lu %lu\n", sleeper.rounds, sleeper.wrongs);
    printf("poller %lu %lu\n", poller.rounds, poller.wrongs);
    printf("reader %lu %lu\n", reader.rounds, reader.wrongs);
    printf("ticker %lu %lu\n", ticker.rounds, ticker.longest_ns);
    printf("handled %d 0\n.\n", (int)handled);
    fflush(stdout);
}

int main(void)
{
    char line[64];
    pthread_t thread;
    void *(*parts[])(void *) = {keep_registers, sleep_whole, poll_in_time, read_all, tick};
    struct sigaction on_fault = {.sa_handler = handle}, on_tick = {.sa_handler = handle};
    sigset_t ticks;
    on_tick.sa_flags = SA_RESTART;
    sigaction(SIGSEGV, &on_fault, NULL);
    sigaction(SIGALRM, &on_tick, NULL);
    sigemptyset(&ticks);
    sigaddset(&ticks, SIGALRM);
    if (pipe(channel))
        return 1;
    pthread_sigmask(SIG_BLOCK, &ticks, NULL);
    for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++)
        pthread_create(&thread, NULL, parts[i], NULL);
    pthread_sigmask(SIG_UNBLOCK, &ticks, NULL);
    while (!(registers.rounds && sleeper_tid && poller_tid && reader_tid && ticker.rounds))
        usleep(1000);
    printf("add_eight %lu\nwait_for_ever %lu\nwork %lu\ncrash %lu\n", (uint64_t)add_eight,
           (uint64_t)wait_for_ever, (uint64_t)work, (uint64_t)crash);
    printf("main %d\nregisters %d\nsleeper %d\npoller %d\nreader %d\n.\n", gettid(), registers_tid,
           sleeper_tid, poller_tid, reader_tid);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "write\n") && write(channel[1], "x", 1) != 1)
            return 1;
        if (!strcmp(line, "forget\n"))
            ticker.longest_ns = 0;
        if (!strcmp(line, "handler\n")) {
            struct sigaction now;
            sigaction(SIGSEGV, NULL, &now);
            printf("kept %d\n", now.sa_handler == handle);
        }
        if (!strcmp(line, "alarms\n")) {
            struct itimerspec each = {{0, 2000000}, {0, 2000000}};
            timer_t timer;
            struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
            if (timer_create(CLOCK_MONOTONIC, &event, &timer) ||
                timer_settime(timer, 0, &each, NULL))
                return 1;
        }
        report();
    }
    return 0;
}
