// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Counts what one process takes from its allocator and gives back, by the stack that asks.
 *
 * An entry notes what is asked for; the return knows the address. The stack is looked at in the
 * return: there the instruction pointer is in the caller already, no frame is half made, and a call
 * that failed costs nothing. All accounting is done here, so that a free in another thread is exact
 * and user space need not keep up.
 *
 * Allocators call themselves (operator new calls malloc). The outermost call of a thread counts; a
 * call is inside another that is under way where its stack pointer is lower. That needs no depth,
 * which a missed return would leave wrong for good.
 */
#include "stack.h"

enum { /* numbers of the words in tracer_layout.CALLS */
    MALLOC, CALLOC, REALLOC, REALLOCARRAY, MEMALIGN, ALIGNED_ALLOC, POSIX_MEMALIGN, VALLOC, PVALLOC,
    FREE, OPERATOR_NEW, OPERATOR_DELETE, MMAP, MUNMAP, MREMAP, PYTHON_NEW, PYTHON_FREE,
};

/* The cookie of a probe: a call, and the registers that hold its arguments at that place. */
#define CALL(cookie) ((__u32)(cookie) & 31)
#define MAY_THROW(cookie) ((__u32)(cookie) & 32)
#define ARGUMENT(context, cookie, index)                                                           \
    register_value(context, (__u32)((cookie) >> (8 + 8 * (index))) & 31)

/* What the entry of a session says: 1 leaves the return alone. */
enum { WATCH_RETURN = 0, SKIP_RETURN = 1 };

#define THROWS_FROM_BYTES (64ULL << 20)
#define ERROR_EXISTS -17
#define MAP_FAILED_FROM -4095ULL
#define MAP_ANONYMOUS 0x20

/* The thread that calls, as user space counts it; 0 where it is not one of the target's. */
static __always_inline __u32 our_thread(const struct control *settings)
{
    struct bpf_pidns_info inner;
    __u64 both;

    if (settings->namespace_inode) {
        if (bpf_get_ns_current_pid_tgid(settings->namespace_device, settings->namespace_inode, &inner,
                                        sizeof(inner)))
            return 0;
        return inner.tgid == settings->process ? inner.pid : 0;
    }
    both = bpf_get_current_pid_tgid();
    if (settings->process && both >> 32 != settings->process)
        return 0;
    return (__u32)both;
}

static __always_inline void count_site_freed(const struct block *block)
{
    struct site *site = bpf_map_lookup_elem(&sites, &block->key);

    if (site) {
        add(&site->freed, 1);
        add(&site->freed_bytes, block->size);
    }
}

/* Takes a block out of `live`; its former content goes to `was`. 0 where it was not there. */
static __always_inline int take_out(__u64 address, struct block *was, struct counters *count)
{
    struct block *found = bpf_map_lookup_elem(&live, &address);

    if (!found)
        return 0;
    *was = *found;
    if (bpf_map_delete_elem(&live, &address))
        return 0;
    count_site_freed(was);
    add(&count->freed, 1);
    add(&count->freed_bytes, was->size);
    return 1;
}

static __always_inline int freed(const struct control *settings, struct counters *count, __u32 call,
                                 __u64 address)
{
    struct block was;

    if (!settings->armed_frees || !address)
        return SKIP_RETURN;
    add(&count->calls[call], 1);
    take_out(address, &was, count);
    return SKIP_RETURN;
}

static __always_inline int moves(__u32 call)
{
    return call == REALLOC || call == REALLOCARRAY || call == MREMAP;
}

static __always_inline int is_of_size(const struct control *settings, __u64 size)
{
    return size >= settings->min_bytes && size <= settings->max_bytes;
}

/* Whether a mapping is of a file; its flags may not have been said. */
static __always_inline int is_of_file(const struct registers *context, __u64 cookie)
{
    return (cookie >> 32 & 31) && !(ARGUMENT(context, cookie, 3) & MAP_ANONYMOUS);
}

/* How many bytes are asked for, and the one argument that the return needs. */
static __always_inline __u64 size_asked(const struct registers *context, __u64 cookie,
                                        __u64 *argument)
{
    __u64 first = ARGUMENT(context, cookie, 0);
    __u64 second = ARGUMENT(context, cookie, 1);

    *argument = first;
    switch (CALL(cookie)) {
    case CALLOC:
        return first * second;
    case REALLOCARRAY:
        return second * ARGUMENT(context, cookie, 2);
    case POSIX_MEMALIGN:
    case MREMAP:
        return ARGUMENT(context, cookie, 2);
    case REALLOC:
    case MEMALIGN:
    case ALIGNED_ALLOC:
    case MMAP:
        return second;
    }
    return first;
}

static __always_inline struct thread *slot_of(__u32 tid, struct counters *count)
{
    struct thread *slot = bpf_map_lookup_elem(&threads, &tid);
    void *blank;

    if (slot)
        return slot;
    blank = only(&blank_thread);
    if (!blank || bpf_map_update_elem(&threads, &tid, blank, BPF_NOEXIST))
        goto lost;
    slot = bpf_map_lookup_elem(&threads, &tid);
    if (slot)
        return slot;
lost:
    add(&count->lost_threads, 1);
    return 0;
}

/*
 * A call at the very place of the stack where another is under way was jumped to by it (a tail
 * call), unless it is the same function: then the other's return was missed.
 */
static __always_inline int is_inside(const struct thread *slot, __u64 stack, __u32 call,
                                     __u32 generation)
{
    if (!slot->stack_pointer || slot->generation != generation || stack > slot->stack_pointer)
        return 0;
    return stack < slot->stack_pointer || call != slot->call;
}

/* For its size, or because none are watched any more. */
static __always_inline int passed_over(const struct control *settings, struct counters *count)
{
    if (settings->armed_allocations)
        add(&count->passed_over, 1);
    return SKIP_RETURN;
}

static __always_inline int entered(const struct registers *context, __u64 cookie)
{
    struct control *settings = only(&control);
    struct counters *count = only(&counters);
    __u64 stack = STACK_POINTER(context), size, argument;
    __u32 call = CALL(cookie), tid;
    struct thread *slot;
    int is_wanted;

    if (!settings || !count || !(settings->armed_allocations | settings->armed_frees))
        return SKIP_RETURN;
    tid = our_thread(settings);
    if (!tid) {
        add(&count->foreign, 1);
        return SKIP_RETURN;
    }
    if (call == FREE || call == OPERATOR_DELETE || call == MUNMAP || call == PYTHON_FREE)
        return freed(settings, count, call, ARGUMENT(context, cookie, 0));
    size = size_asked(context, cookie, &argument);
    is_wanted = settings->armed_allocations &&
                (call == PYTHON_NEW || is_of_size(settings, size)); /* that shows at the return */
    if (call == MMAP && is_of_file(context, cookie))
        return SKIP_RETURN;
    /* Likely to fail; and an exception cannot pass a return that is watched. */
    if (MAY_THROW(cookie) && size >= THROWS_FROM_BYTES)
        return SKIP_RETURN;
    if (!is_wanted && !(moves(call) && settings->armed_frees))
        return passed_over(settings, count);
    slot = slot_of(tid, count);
    if (!slot)
        return SKIP_RETURN;
    if (is_inside(slot, stack, call, settings->generation)) {
        add(&count->nested, 1);
        return SKIP_RETURN;
    }
    slot->stack_pointer = stack;
    slot->size = size;
    slot->argument = argument;
    slot->call = call;
    slot->is_wanted = is_wanted;
    slot->generation = settings->generation;
    slot->has_moved = 0;
    if (moves(call) && argument)
        slot->has_moved = take_out(argument, &slot->moved, count);
    if (is_wanted || slot->has_moved)
        return WATCH_RETURN;
    slot->stack_pointer = 0; /* nobody will see it return */
    return passed_over(settings, count);
}

/* Puts back what a call did not move after all. */
static __always_inline void restore(const struct thread *slot, struct counters *count)
{
    struct block block = slot->moved;
    __u64 address = slot->argument;
    struct site *site = bpf_map_lookup_elem(&sites, &block.key);

    if (bpf_map_update_elem(&live, &address, &block, BPF_NOEXIST))
        add(&count->lost_live, 1);
    add(&count->freed, -1ULL);
    add(&count->freed_bytes, -block.size);
    if (site) {
        add(&site->freed, -1ULL);
        add(&site->freed_bytes, -block.size);
    }
}

static __always_inline void count_progress(struct control *settings, __u64 now)
{
    struct progress *seen = only(&progress);

    if (!seen)
        return;
    if (!seen->first_ns)
        seen->first_ns = now;
    seen->last_ns = now;
    add(&seen->events, 1);
    if (settings->event_cap && seen->events >= settings->event_cap &&
        settings->armed_allocations) {
        settings->armed_allocations = 0;
        seen->is_capped = 1;
    }
}

static __always_inline struct site *site_of(__u64 key, struct counters *count)
{
    struct site *site = bpf_map_lookup_elem(&sites, &key);
    struct site fresh = {};

    if (site)
        return site;
    bpf_map_update_elem(&sites, &key, &fresh, BPF_NOEXIST);
    site = bpf_map_lookup_elem(&sites, &key);
    if (!site)
        add(&count->lost_sites, 1);
    return site;
}

static __always_inline void insert(__u64 address, const struct block *block,
                                   struct counters *count)
{
    /* Before 6.4 the upper half of an answer may be anything. */
    int error = bpf_map_update_elem(&live, &address, block, BPF_NOEXIST);
    struct block was;

    if (error == ERROR_EXISTS) { /* its free was not seen */
        add(&count->reissued, 1);
        take_out(address, &was, count);
        error = bpf_map_update_elem(&live, &address, block, BPF_ANY);
    }
    if (error)
        add(&count->lost_live, 1);
}

/* The position of the highest bit; 0 for 0 too. */
static __always_inline __u32 size_class(__u64 size)
{
    __u32 at = 0;

#pragma clang loop unroll(full)
    for (__u32 step = 32; step; step >>= 1)
        if (size >> step) {
            size >>= step;
            at += step;
        }
    return at & (SIZE_CLASSES - 1);
}

static __always_inline __u64 python_key(struct thread *slot, __u32 tid)
{
    const struct python_layout *layout = only(&python_layout);

    if (!layout)
        return 0;
    return python_walk(layout, bpf_map_lookup_elem(&python_threads, &tid), tid, &slot->python);
}

static __always_inline __u64 address_given(const struct registers *context,
                                           const struct thread *slot)
{
    __u64 address = RETURN_VALUE(context);

    if (slot->call == POSIX_MEMALIGN) {
        if ((__u32)address ||
            bpf_probe_read_user(&address, sizeof(address), (const void *)slot->argument))
            return 0;
    } else if (address >= MAP_FAILED_FROM) {
        return 0;
    }
    return address;
}

static __always_inline int returned(struct registers *context, int has_python)
{
    struct control *settings = only(&control);
    struct counters *count = only(&counters);
    struct block block = {};
    struct thread *slot;
    struct site *site;
    __u64 address;
    __u32 tid;

    if (!settings || !count)
        return 0;
    tid = our_thread(settings);
    slot = bpf_map_lookup_elem(&threads, &tid);
    if (!tid || !slot || !slot->stack_pointer || slot->generation != settings->generation ||
        STACK_POINTER(context) != slot->stack_pointer + RETURN_POPS)
        return 0;
    slot->stack_pointer = 0;
    add(&count->calls[slot->call & 15], 1);
    address = address_given(context, slot);
    if (!address) {
        add(&count->failed, 1);
        if (slot->has_moved && slot->size)
            restore(slot, count);
        return 0;
    }
    if (!slot->is_wanted)
        return 0;
    if (slot->call == PYTHON_NEW) {
        slot->size = python_object_bytes(address);
        if (!slot->size || !is_of_size(settings, slot->size))
            return 0;
    }
    block.size = slot->size;
    block.time_ns = bpf_ktime_get_ns();
    block.thread = tid;
    block.call = slot->call;
    block.key = stack_key(context, settings->key_chunks);
    if (has_python)
        block.key = mixed(block.key, python_key(slot, tid));
    add(&count->allocations, 1);
    add(&count->allocated_bytes, block.size);
    add(&count->sizes[size_class(block.size)], 1);
    site = site_of(block.key, count);
    insert(address, &block, count);
    if (site) {
        add(&site->allocations, 1);
        add(&site->allocated_bytes, block.size);
        if (!site->sampled) {
            site->sampled = send_sample(context, &block, address, has_python ? slot : 0,
                                        settings->stack_bytes);
            if (!site->sampled)
                add(&count->lost_samples, 1);
        }
    }
    count_progress(settings, block.time_ns);
    return 0;
}

/*
 * A session is called at the entry and, where that asked for it, at the return; there the
 * instruction pointer is not that of the probe any more.
 */
static __always_inline int is_entry(struct registers *context)
{
    return INSTRUCTION_POINTER(context) == bpf_get_func_ip(context);
}

PROGRAM(session)(struct registers *context)
{
    if (is_entry(context))
        return entered(context, bpf_get_attach_cookie(context));
    return returned(context, 0);
}

PROGRAM(session_python)(struct registers *context)
{
    if (is_entry(context))
        return entered(context, bpf_get_attach_cookie(context));
    return returned(context, 1);
}

/* For all else an entry's answer is 0: others mean that the probe is to be removed. */
PROGRAM(entry)(struct registers *context)
{
    entered(context, bpf_get_attach_cookie(context));
    return 0;
}

/* Before 5.15 there are no cookies: the loader writes it here, one program for each probe. */
PROGRAM(entry_fixed)(struct registers *context)
{
    __u64 cookie;

    asm volatile("%0 = 0x6c65616b63617365 ll" : "=r"(cookie));
    entered(context, cookie);
    return 0;
}

PROGRAM(at_return)(struct registers *context)
{
    return returned(context, 0);
}

PROGRAM(at_return_python)(struct registers *context)
{
    return returned(context, 1);
}

/* Some of the helpers are for programs under a licence that the kernel calls compatible only. */
const char licence[] __attribute__((section("license"), used)) = "Dual MIT/GPL";
