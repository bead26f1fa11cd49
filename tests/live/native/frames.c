/* A small native library as Python services load them: it sums up a frame in a buffer of its own.
   frames_sum_and_forget is the same with the bug of never freeing the buffer. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A prime; glibc takes 5,024 bytes for it. */
enum { BUFFER_BYTES = 5003 };

static uint8_t *copy_frame(const uint8_t *frame, size_t length)
{
    uint8_t *buffer = malloc(BUFFER_BYTES);
    if (buffer == NULL)
        abort();
    memset(buffer, 0x5a, BUFFER_BYTES);
    memcpy(buffer, frame, length < BUFFER_BYTES ? length : BUFFER_BYTES);
    return buffer;
}

static uint32_t sum(const uint8_t *buffer)
{
    uint32_t total = 1;
    for (size_t i = 0; i < BUFFER_BYTES; i++)
        total = total * 31 + buffer[i];
    return total;
}

uint32_t frames_sum(const uint8_t *frame, size_t length)
{
    uint8_t *buffer = copy_frame(frame, length);
    uint32_t total = sum(buffer);
    free(buffer);
    return total;
}

uint32_t frames_sum_and_forget(const uint8_t *frame, size_t length)
{
    return sum(copy_frame(frame, length)); /* LEAK */
}
