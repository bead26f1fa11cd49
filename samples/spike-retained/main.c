/* Holds much for a moment and then frees all but every 31st block. The survivors lie scattered, so
 * glibc gives nothing back: the process stays large with a nearly empty heap. Traffic goes on
 * afterwards within the freed room.
 *
 * On SIGUSR1 it trims its heap, and prints in one line what was resident before and after. */
#include <malloc.h>

#include "common.h"

#define BLOCKS 80021
#define BLOCK_BYTES 1009
#define RISE_NS (2 * SECOND_NS)
#define FALL_NS (3 * SECOND_NS)
#define SURVIVOR_EVERY 31
#define TRAFFIC_BLOCKS 101
#define TRAFFIC_BYTES 4001

static char *blocks[BLOCKS];
static volatile sig_atomic_t asked_to_trim;

static void on_sigusr1(int signal_number)
{
    (void)signal_number;
    asked_to_trim = 1;
}

/* As smaps counts it, page by page; what statm shows may lag behind (proc_pid_smaps(5)). */
static unsigned long long anonymous_bytes(void)
{
    char line[256];
    unsigned long long kilobytes = 0;
    FILE *rollup = fopen("/proc/self/smaps_rollup", "r");
    if (rollup == NULL)
        sample_die("smaps_rollup");
    while (fgets(line, sizeof line, rollup) != NULL)
        if (sscanf(line, "Anonymous: %llu kB", &kilobytes) == 1)
            break;
    fclose(rollup);
    return kilobytes * 1024;
}

static void trim(void)
{
    unsigned long long before = anonymous_bytes();
    malloc_trim(0);
    printf("{\"before_bytes\":%llu,\"after_bytes\":%llu}\n", before, anonymous_bytes());
    fflush(stdout);
}

static bool rise(void)
{
    static size_t held;
    size_t due = sample_time_ns() < RISE_NS ? sample_due(BLOCKS, RISE_NS) : BLOCKS;
    for (; held < due; held++) {
        blocks[held] = malloc(BLOCK_BYTES);
        if (blocks[held] == NULL)
            return sample_limit_reached();
        sample_touch(blocks[held], BLOCK_BYTES);
    }
    return true;
}

/* The last block survives as well, or glibc would trim the top of the heap. */
static void fall(void)
{
    for (size_t i = 0; i < BLOCKS - 1; i++)
        if (i % SURVIVOR_EVERY != 0) {
            free(blocks[i]);
            blocks[i] = NULL;
        }
}

static bool traffic(void)
{
    char *passing[TRAFFIC_BLOCKS];
    for (size_t i = 0; i < TRAFFIC_BLOCKS; i++) {
        passing[i] = malloc(TRAFFIC_BYTES);
        if (passing[i] == NULL)
            return sample_limit_reached();
        sample_touch(passing[i], TRAFFIC_BYTES);
    }
    for (size_t i = 0; i < TRAFFIC_BLOCKS; i++)
        free(passing[i]);
    return true;
}

int main(int argc, char **argv)
{
    struct sigaction on_trim;
    memset(&on_trim, 0, sizeof on_trim);
    on_trim.sa_handler = on_sigusr1;
    on_trim.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &on_trim, NULL);
    sample_begin(argc, argv, "spike-retained");
    while (sample_tick() && rise()) {
        if (asked_to_trim) {
            asked_to_trim = 0;
            trim();
        }
        if (sample_time_ns() == FALL_NS)
            fall();
        if (sample_time_ns() > FALL_NS)
            traffic();
    }
    return sample_end(0, 0);
}
