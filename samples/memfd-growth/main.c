/* Shared memory in a memfd that is extended and never shrinks. */
#include "growing_map.h"

int main(int argc, char **argv)
{
    sample_begin(argc, argv, "memfd-growth");
    int file = memfd_create("frames", MFD_CLOEXEC);
    if (file < 0)
        sample_die("memfd_create");
    return run_growing_map(file, 13 * PAGE_BYTES, 7);
}
