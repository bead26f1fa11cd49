/* Attaches System V shared memory segments and never detaches them. Each is marked for removal at
 * once, so that the kernel frees it with the process (shmctl(2), IPC_RMID). */
#include <sys/ipc.h>
#include <sys/shm.h>

#include "common.h"

#define SEGMENT_BYTES (23 * PAGE_BYTES)
#define SEGMENTS_PER_SECOND 3

static NOINLINE bool attach_segment(void)
{
    int id = shmget(IPC_PRIVATE, SEGMENT_BYTES, IPC_CREAT | 0600);
    if (id < 0)
        return sample_limit_reached();
    void *segment = shmat(id, NULL, 0); /* LEAK */
    shmctl(id, IPC_RMID, NULL);
    if (segment == (void *)-1)
        return sample_limit_reached();
    return sample_touch(segment, SEGMENT_BYTES);
}

int main(int argc, char **argv)
{
    uint64_t leaked = 0;
    sample_begin(argc, argv, "sysv-shm-leak");
    while (sample_tick())
        for (uint64_t due = sample_due(SEGMENTS_PER_SECOND, SECOND_NS);
             leaked < due && attach_segment();)
            leaked++;
    return sample_end(leaked * SEGMENT_BYTES, leaked);
}
