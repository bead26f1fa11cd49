/* Opens files and pipes and closes neither. */
#include <fcntl.h>

#include "common.h"

#define FILES_PER_SECOND 3
#define PIPES_PER_SECOND 1
#define DESCRIPTORS_AT_MOST 4096

static NOINLINE bool open_file(void)
{
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC); /* LEAK */
    return file >= 0 || sample_limit_reached();
}

static NOINLINE bool open_pipe(void)
{
    int ends[2];
    return pipe2(ends, O_CLOEXEC) == 0 || sample_limit_reached();
}

/* The usual soft limit of 1024 would end a longer run early. */
static void allow_more_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        sample_die("getrlimit");
    limit.rlim_cur = limit.rlim_max < DESCRIPTORS_AT_MOST ? limit.rlim_max : DESCRIPTORS_AT_MOST;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        sample_die("setrlimit");
}

int main(int argc, char **argv)
{
    uint64_t files = 0, pipes = 0;
    sample_begin(argc, argv, "descriptor-leak");
    allow_more_descriptors();
    while (sample_tick()) {
        for (uint64_t due = sample_due(FILES_PER_SECOND, SECOND_NS); files < due && open_file();)
            files++;
        for (uint64_t due = sample_due(PIPES_PER_SECOND, SECOND_NS); pipes < due && open_pipe();)
            pipes++;
    }
    return sample_end(0, files + 2 * pipes);
}
