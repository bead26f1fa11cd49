/* A file of the run's own that others can see by name: FOLDER/leakcase-sample-PID. */
#ifndef LEAKCASE_SAMPLES_NAMED_FILE_H
#define LEAKCASE_SAMPLES_NAMED_FILE_H

#include <fcntl.h>

#include "common.h"

static char named_file_path[64];

/* The sample has to unlink named_file_path at its end. */
static inline int named_file_create(const char *folder)
{
    snprintf(named_file_path, sizeof named_file_path, "%s/leakcase-sample-%d", folder,
             (int)getpid());
    int file = open(named_file_path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0)
        sample_die(named_file_path);
    return file;
}

#endif
