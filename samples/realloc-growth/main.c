/* One vector that only grows: records are appended at a steady rate, and realloc makes room for
 * half as many again whenever it is full. What is resident grows with the records written, because
 * glibc moves a block of this size by mremap, without touching the new room. */
#include "common.h"

#define RECORD_BYTES 97
#define RECORDS_PER_SECOND 4001
#define ROOM_AT_FIRST 20011

static char *records;
static size_t records_used, records_room;

static NOINLINE bool append_record(void)
{
    if (records_used == records_room) {
        size_t room = records_room == 0 ? ROOM_AT_FIRST : records_room + records_room / 2;
        char *moved = realloc(records, room * RECORD_BYTES); /* LEAK */
        if (moved == NULL)
            return sample_limit_reached();
        records = moved;
        records_room = room;
    }
    return sample_touch(records + records_used++ * RECORD_BYTES, RECORD_BYTES);
}

int main(int argc, char **argv)
{
    sample_begin(argc, argv, "realloc-growth");
    while (sample_tick()) {
        uint64_t due = sample_due(RECORDS_PER_SECOND, SECOND_NS);
        while (records_used < due && append_record())
            continue;
    }
    return sample_end(records_used * RECORD_BYTES, records_used);
}
