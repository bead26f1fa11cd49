/*
 * Forgets a record of 900 bytes each millisecond and frees two others, as `keep_record` and `churn`;
 * a line on standard input is answered by how many records it has, once it has looked whether each
 * is as it was: else it ends.
 *
 *     keeps [private|confined]
 *
 * private: nobody but a privileged process may look into it (PR_SET_DUMPABLE in prctl(2)).
 * confined: any system call but the few that it makes itself ends it (seccomp(2)).
 */
#if __has_include(<linux/seccomp.h>) /* musl-gcc finds no headers of the kernel */
#include <linux/filter.h>
#include <linux/seccomp.h>
#endif
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RECORDS 200000
enum { BYTES = 900, STEP_MS = 1 };
static unsigned char *records[RECORDS];
static long kept;

__attribute__((noinline)) void keep_record(long number)
{
    unsigned char *record = malloc(BYTES);

    memset(record, (int)(number % 251), BYTES);
    records[kept++] = record;
}

__attribute__((noinline)) void churn(void)
{
    void *volatile first = malloc(300), *volatile second = calloc(3, 111);

    free(first);
    free(second);
}

static int is_whole(long number)
{
    for (int i = 0; i < BYTES; i++)
        if (records[number][i] != number % 251)
            return 0;
    return 1;
}

#ifdef SECCOMP_RET_KILL_PROCESS
#define LET(call)                                      \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (call), 0, 1), \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static int confine(void)
{
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        LET(SYS_read), LET(SYS_write), LET(SYS_ppoll),
#ifdef SYS_poll
        LET(SYS_poll),
#endif
        LET(SYS_newfstatat), LET(SYS_fstat), LET(SYS_brk), LET(SYS_mmap), LET(SYS_munmap),
        LET(SYS_restart_syscall), LET(SYS_exit_group),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof(steps) / sizeof(*steps), steps};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
}
#else
static int confine(void)
{
    return -1;
}
#endif

int main(int count, char **words)
{
    char line[64];

    if (count > 1 && strcmp(words[1], "private") == 0)
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    if (count > 1 && strcmp(words[1], "confined") == 0 && confine() != 0)
        return 2;
    while (kept < RECORDS) {
        struct pollfd input = {0, POLLIN, 0};

        keep_record(kept);
        churn();
        if (poll(&input, 1, STEP_MS) != 1)
            continue;
        if (!fgets(line, sizeof(line), stdin))
            return 0;
        for (long i = 0; i < kept; i++)
            if (!is_whole(i))
                return 1;
        printf("%ld\n", kept);
    }
    return 0;
}
