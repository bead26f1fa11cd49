/* A file in /dev/shm (tmpfs, so its pages are shared memory) that is extended and never shrinks. */
#include "growing_map.h"
#include "named_file.h"

int main(int argc, char **argv)
{
    sample_begin(argc, argv, "tmpfs-growth");
    int file = named_file_create("/dev/shm");
    int status = run_growing_map(file, 19 * PAGE_BYTES, 5);
    unlink(named_file_path);
    return status;
}
