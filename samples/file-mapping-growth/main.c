/* A mapped file on disk that is extended and written and never shrinks: a journal, say. */
#include "growing_map.h"
#include "named_file.h"

int main(int argc, char **argv)
{
    sample_begin(argc, argv, "file-mapping-growth");
    int file = named_file_create("/var/tmp");
    int status = run_growing_map(file, 5 * PAGE_BYTES, 13);
    unlink(named_file_path);
    return status;
}
