/*
 * A number for the stack at hand, cheap enough for each call, and a copy of it for the first call
 * with that number. User space unwinds the copies and so finds which numbers are one stack.
 */
#ifndef LEAKCASE_STACK_H
#define LEAKCASE_STACK_H

#include "maps.h"

#define CHUNK_BYTES 256 /* of the 512 bytes of stack that a program has */
#define CHUNK_WORDS (CHUNK_BYTES / 8)
#define MOST_CHUNKS 8
#define COPY_BYTES 1024

/* Multiplication by 2^64 over the golden ratio, then the high half folded into the low. */
static __always_inline __u64 mixed(__u64 key, __u64 word)
{
    key = (key ^ word) * 0x9e3779b97f4a7c15ULL;
    return key ^ key >> 32;
}

/* So that the verifier knows, whatever clang found out: older ones lose count of what is added. */
#define BELOW_64(number) asm volatile("%0 &= 63" : "+r"(number))
#define BELOW_1024(number) asm volatile("%0 &= 1023" : "+r"(number))

/*
 * Whether `word` points into code. One bit for each page (some share one) rules out most; a binary
 * search settles the rest. Its steps have no branches: the verifier would follow both ways of each.
 */
static __always_inline int is_code(const struct code_ranges *code, __u64 word)
{
    __u64 page = word >> 12, at = 0, next;

    if (word - code->lowest >= code->span)
        return 0;
    if (!(code->pages[(page >> 6) & 1023] >> (page & 63) & 1))
        return 0;
#pragma clang loop unroll(full)
    for (__u64 step = CODE_RANGES / 2; step; step >>= 1) {
        next = at + step;
        BELOW_64(next);
        at += ((code->starts[next] - word - 1) >> 63) * step;
    }
    BELOW_64(at);
    return word >= code->starts[at] && word < code->ends[at];
}

/*
 * A hash of the return address and of what else points into code in the first bytes of the stack,
 * with its place: return addresses, and what is left of older ones. The chunks are those of the
 * page, so that none reaches beyond a page that can be read into one that cannot.
 */
static __always_inline __u64 stack_key(const struct registers *context, __u32 chunks)
{
    const struct code_ranges *code = only(&code_ranges);
    __u64 stack = STACK_POINTER(context), address = stack;
    __u64 key = mixed(0, INSTRUCTION_POINTER(context));
    __u64 words[CHUNK_WORDS];
    __u32 chunk, at;

    if (!code)
        return key;
    for (chunk = 0; chunk < MOST_CHUNKS; chunk++) {
        __u32 bytes = ((CHUNK_BYTES - 1 - (__u32)(address & (CHUNK_BYTES - 1))) & ~7U) + 8;

        if (chunk >= chunks)
            break;
        if (chunk == 0)
            __builtin_memset(words, 0, sizeof(words));
        if (bytes > CHUNK_BYTES || bpf_probe_read_user(words, bytes, (const void *)address))
            break;
#pragma clang loop unroll(disable)
        for (at = 0; at < CHUNK_WORDS; at++)
            if (is_code(code, words[at]))
                key = mixed(key, words[at] ^ (address - stack + at * 8) << 48);
        address += bytes;
    }
    return key;
}

/*
 * Copies nearly `size` bytes from `from` on, and says how many: to the last that could be read. Each
 * piece lies within one page. Pages that were never touched cannot be read and are zeros to the
 * program too; a wide frame may have some, so that the stack goes on behind them.
 */
static __always_inline __u32 copy_stack(__u8 *to, __u64 from, __u32 size)
{
    __u64 first = (COPY_BYTES - 1 - (from & (COPY_BYTES - 1))) & ~7ULL, end;

    BELOW_1024(first);
    first += 8;
    if (bpf_probe_read_user(to, first, (const void *)from))
        return 0;
    end = first;
#pragma clang loop unroll(disable)
    for (__u64 done = 0; done + 2 * COPY_BYTES <= size; done += COPY_BYTES)
        if (!bpf_probe_read_user(to + first + done, COPY_BYTES,
                                 (const void *)(from + first + done)))
            end = first + done + COPY_BYTES;
    return end;
}

#define SEND(BYTES)                                                                                \
    struct {                                                                                       \
        struct sample head;                                                                        \
        __u8 stack[BYTES];                                                                         \
    } *record = bpf_ringbuf_reserve(&samples, sizeof(*record), 0);                                 \
    if (!record)                                                                                   \
        return 0;                                                                                  \
    fill(&record->head, context, block, address, thread);                                          \
    record->head.stack_bytes = copy_stack(record->stack, STACK_POINTER(context), BYTES);           \
    bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);                                                  \
    return 1

static __always_inline void fill(struct sample *sample, const struct registers *context,
                                 const struct block *block, __u64 address,
                                 const struct thread *thread)
{
    sample->key = block->key;
    sample->time_ns = block->time_ns;
    sample->size = block->size;
    sample->address = address;
    sample->thread = block->thread;
    sample->call = block->call;
    copy_registers(sample->registers, context);
    sample->has_python = thread != 0;
    if (thread)
        __builtin_memcpy(&sample->python, &thread->python, sizeof(sample->python));
}

/* False where the ring has no room. The size of a record has to be known to the verifier. */
static __always_inline int send_sample(const struct registers *context, const struct block *block,
                                       __u64 address, const struct thread *thread, __u32 bytes)
{
    if (bytes >= 32768) {
        SEND(32768);
    }
    if (bytes >= 16384) {
        SEND(16384);
    }
    if (bytes >= 8192) {
        SEND(8192);
    }
    SEND(4096);
}

#endif
