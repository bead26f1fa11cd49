/*
 * What is kept between calls, and what user space sees of it: system/tracer_layout.py unpacks these
 * structures, and a test compares the sizes.
 */
#ifndef LEAKCASE_MAPS_H
#define LEAKCASE_MAPS_H

#include "kernel.h"
#include "python.h"

#define CALLS 24        /* numbers of the words in tracer_layout.CALLS; some to spare */
#define SIZE_CLASSES 64 /* by the position of the highest bit */
#define CODE_RANGES 64

/* Written by user space. */
struct control {
    __u32 armed_allocations; /* cleared by us when the cap is reached */
    __u32 armed_frees;
    __u64 min_bytes;
    __u64 max_bytes;
    __u64 event_cap;  /* allocations until we disarm ourselves; 0: no cap */
    __u64 namespace_device; /* of the pid namespace that `process` is a number in; 0: the root's */
    __u64 namespace_inode;
    __u32 process; /* whose calls count; 0: whoever calls */
    __u32 stack_bytes;
    __u32 key_chunks;
    __u32 generation; /* of arming: what a thread was in the middle of before is forgotten */
};

/* Written by us; in a cache line of its own, as each allocation writes it. */
struct progress {
    __u64 events; /* since armed */
    __u64 first_ns;
    __u64 last_ns;
    __u64 is_capped;
};

/* The executable mappings, ascending; those that are unused hold the highest number. */
struct code_ranges {
    __u64 lowest;
    __u64 span;
    __u64 starts[CODE_RANGES];
    __u64 ends[CODE_RANGES];
    __u64 pages[1024]; /* a bit for each page number modulo 65,536: most words need no more */
};

/* A block that was handed out. */
struct block {
    __u64 key;
    __u64 size;
    __u64 time_ns;
    __u32 thread;
    __u32 call;
};

/* A call that is under way in a thread, the outermost if it makes others. */
struct thread {
    __u64 stack_pointer; /* at the entry; 0: none is under way */
    __u64 size;
    __u64 argument; /* the block to give back, or where posix_memalign writes the address */
    struct block moved; /* what was known of the block to give back */
    __u32 call;
    __u32 has_moved;
    __u32 is_wanted;
    __u32 generation;
    struct python_frames python;
};

/* Of one key; what user space merges to stacks. */
struct site {
    __u64 allocations;
    __u64 allocated_bytes;
    __u64 freed;
    __u64 freed_bytes;
    __u64 sampled;
};

/* Per CPU, and added to atomically: a program can be preempted by another thread's. */
struct counters {
    __u64 calls[CALLS];
    __u64 sizes[SIZE_CLASSES];
    __u64 allocations;
    __u64 allocated_bytes;
    __u64 freed;
    __u64 freed_bytes;
    __u64 failed;
    __u64 nested;
    __u64 foreign;
    __u64 reissued;
    __u64 lost_live;
    __u64 lost_sites;
    __u64 lost_samples;
    __u64 lost_threads;
    __u64 passed_over; /* allocations of sizes that were not asked for */
};

/* On the ring; then the copy of the stack. */
struct sample {
    __u64 key;
    __u64 time_ns;
    __u64 size;
    __u64 address;
    __u32 thread;
    __u32 call;
    __u32 stack_bytes; /* copied */
    __u32 has_python;
    __u64 registers[33]; /* by DWARF numbers, DWARF_REGISTERS of them */
    struct python_frames python;
};

_Static_assert(sizeof(struct sample) == 840, "tracer_layout.SAMPLE");

MAP(control, BPF_MAP_TYPE_ARRAY, 4, sizeof(struct control), 1, 0);
MAP(progress, BPF_MAP_TYPE_ARRAY, 4, sizeof(struct progress), 1, 0);
MAP(code_ranges, BPF_MAP_TYPE_ARRAY, 4, sizeof(struct code_ranges), 1, 0);
MAP(blank_thread, BPF_MAP_TYPE_ARRAY, 4, sizeof(struct thread), 1, 0);
MAP(threads, BPF_MAP_TYPE_LRU_HASH, 4, sizeof(struct thread), 4096, 0);
MAP(live, BPF_MAP_TYPE_HASH, 8, sizeof(struct block), 65536, 0);
MAP(sites, BPF_MAP_TYPE_HASH, 8, sizeof(struct site), 16384, 0);
MAP(counters, BPF_MAP_TYPE_PERCPU_ARRAY, 4, sizeof(struct counters), 1, 0);
MAP(samples, BPF_MAP_TYPE_RINGBUF, 0, 0, 4194304, 0);
MAP(python_layout, BPF_MAP_TYPE_ARRAY, 4, sizeof(struct python_layout), 1, 0);
MAP(python_threads, BPF_MAP_TYPE_HASH, 4, 8, 4096, BPF_F_NO_PREALLOC);

/* The one element of an array. */
static __always_inline void *only(void *map)
{
    __u32 zero = 0;

    return bpf_map_lookup_elem(map, &zero);
}

#endif
