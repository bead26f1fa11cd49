/* Reads once through a mapped file of a fixed size. Its pages become resident one after the other,
 * as in a leak, but never more than the file has: the mapping's size is the bound. */
#include <sys/mman.h>

#include "named_file.h"

#define FILE_BYTES ((size_t)97 << 20)
#define PAGES_PER_SECOND 251

int main(int argc, char **argv)
{
    size_t read_bytes = 0;
    sample_begin(argc, argv, "mapped-file-scan");
    int file = named_file_create("/var/tmp");
    const volatile char *map = MAP_FAILED;
    /* The file is one hole: reading it fills the page cache, and writes nothing to the disk. */
    if (ftruncate(file, FILE_BYTES) == 0)
        map = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, file, 0);
    while (sample_tick() && map != MAP_FAILED) {
        size_t due_bytes = (size_t)sample_due(PAGES_PER_SECOND, SECOND_NS) * PAGE_BYTES;
        for (; read_bytes < due_bytes && read_bytes < FILE_BYTES; read_bytes += PAGE_BYTES)
            (void)map[read_bytes];
    }
    unlink(named_file_path);
    if (map == MAP_FAILED)
        sample_die("cannot map a file in /var/tmp");
    return sample_end(0, 0);
}
