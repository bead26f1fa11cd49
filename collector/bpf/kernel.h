/*
 * What the programs use of the kernel: a few helpers by their numbers (include/uapi/linux/bpf.h),
 * maps, and the registers of user space as uprobes hand them over. No other header is needed, so
 * that what clang makes does not depend on the machine that it runs on.
 */
#ifndef LEAKCASE_KERNEL_H
#define LEAKCASE_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef long long __s64;

#define __always_inline inline __attribute__((always_inline))
#define PROGRAM(name) __attribute__((section("uprobe/" #name), used)) int name

enum {
    BPF_MAP_TYPE_HASH = 1,
    BPF_MAP_TYPE_ARRAY = 2,
    BPF_MAP_TYPE_PERCPU_ARRAY = 6,
    BPF_MAP_TYPE_LRU_HASH = 9,
    BPF_MAP_TYPE_RINGBUF = 27,
};
enum { BPF_ANY = 0, BPF_NOEXIST = 1 };
enum { BPF_F_NO_PREALLOC = 1 };
enum { BPF_RB_NO_WAKEUP = 1 };

/* Read by our own loader: system/bpf_object.py. */
struct map_definition {
    __u32 type;
    __u32 key_bytes;
    __u32 value_bytes;
    __u32 max_entries; /* the loader may set another number */
    __u32 flags;
};

#define MAP(name, type, key_bytes, value_bytes, max_entries, flags)                                \
    struct map_definition name __attribute__((section("maps"), used)) = {                          \
        type, key_bytes, value_bytes, max_entries, flags}

struct bpf_pidns_info {
    __u32 pid;
    __u32 tgid;
};

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value,
                                   __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static __u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*bpf_probe_read_user)(void *to, __u32 size, const void *from) = (void *)112;
static long (*bpf_get_ns_current_pid_tgid)(__u64 device, __u64 inode, struct bpf_pidns_info *to,
                                           __u32 size) = (void *)120;
static void *(*bpf_ringbuf_reserve)(void *ring, __u64 size, __u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *record, __u64 flags) = (void *)132;
static __u64 (*bpf_get_func_ip)(void *context) = (void *)173;       /* of a uprobe since 6.6 */
static __u64 (*bpf_get_attach_cookie)(void *context) = (void *)174; /* since 5.15 */

static __always_inline void add(__u64 *counter, __u64 amount)
{
    __sync_fetch_and_add(counter, amount);
}

/*
 * The context may be read at constant offsets only. Left to itself, clang makes one read at a
 * computed address of many like ones.
 */
#define READ_CONTEXT(value, context, field)                                                        \
    asm volatile("%0 = *(u64 *)(%1 + %2)"                                                          \
                 : "=r"(value)                                                                     \
                 : "r"(context), "i"(__builtin_offsetof(struct registers, field)))

#define REGISTER(number, field)                                                                    \
    case number:                                                                                   \
        READ_CONTEXT(value, context, field);                                                       \
        break

/*
 * The registers: struct pt_regs of arch/x86/include/uapi/asm/ptrace.h, struct user_pt_regs of
 * arch/arm64/include/uapi/asm/ptrace.h. `register_value` takes the machine's own numbering (that of
 * its instructions), `dwarf_register` that of the psABI's DWARF mapping.
 */
#if defined(__TARGET_ARCH_x86)

struct registers {
    __u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
    __u64 orig_ax, ip, cs, flags, sp, ss;
};

#define DWARF_REGISTERS 17
#define INSTRUCTION_POINTER(context) ((context)->ip)
#define STACK_POINTER(context) ((context)->sp)
#define RETURN_VALUE(context) ((context)->ax)
/* `ret` takes the return address off the stack. */
#define RETURN_POPS 8

static __always_inline __u64 register_value(const struct registers *context, __u32 number)
{
    __u64 value = 0;

    switch (number) {
        REGISTER(0, ax);
        REGISTER(1, cx);
        REGISTER(2, dx);
        REGISTER(3, bx);
        REGISTER(4, sp);
        REGISTER(5, bp);
        REGISTER(6, si);
        REGISTER(7, di);
        REGISTER(8, r8);
        REGISTER(9, r9);
        REGISTER(10, r10);
        REGISTER(11, r11);
        REGISTER(12, r12);
        REGISTER(13, r13);
        REGISTER(14, r14);
        REGISTER(15, r15);
    }
    return value;
}

static __always_inline void copy_registers(__u64 *to, const struct registers *context)
{
    to[0] = context->ax;
    to[1] = context->dx;
    to[2] = context->cx;
    to[3] = context->bx;
    to[4] = context->si;
    to[5] = context->di;
    to[6] = context->bp;
    to[7] = context->sp;
    to[8] = context->r8;
    to[9] = context->r9;
    to[10] = context->r10;
    to[11] = context->r11;
    to[12] = context->r12;
    to[13] = context->r13;
    to[14] = context->r14;
    to[15] = context->r15;
    to[16] = context->ip;
}

#elif defined(__TARGET_ARCH_arm64)

struct registers {
    __u64 x[31];
    __u64 sp, pc, pstate;
};

#define DWARF_REGISTERS 33
#define INSTRUCTION_POINTER(context) ((context)->pc)
#define STACK_POINTER(context) ((context)->sp)
#define RETURN_VALUE(context) ((context)->x[0])
#define RETURN_POPS 0

static __always_inline __u64 register_value(const struct registers *context, __u32 number)
{
    __u64 value = 0;

    switch (number) {
        REGISTER(0, x[0]);
        REGISTER(1, x[1]);
        REGISTER(2, x[2]);
        REGISTER(3, x[3]);
        REGISTER(4, x[4]);
        REGISTER(5, x[5]);
        REGISTER(6, x[6]);
        REGISTER(7, x[7]);
        REGISTER(8, x[8]);
        REGISTER(9, x[9]);
        REGISTER(10, x[10]);
        REGISTER(11, x[11]);
        REGISTER(12, x[12]);
        REGISTER(13, x[13]);
        REGISTER(14, x[14]);
        REGISTER(15, x[15]);
        REGISTER(16, x[16]);
        REGISTER(17, x[17]);
        REGISTER(18, x[18]);
        REGISTER(19, x[19]);
        REGISTER(20, x[20]);
        REGISTER(21, x[21]);
        REGISTER(22, x[22]);
        REGISTER(23, x[23]);
        REGISTER(24, x[24]);
        REGISTER(25, x[25]);
        REGISTER(26, x[26]);
        REGISTER(27, x[27]);
        REGISTER(28, x[28]);
        REGISTER(29, x[29]);
        REGISTER(30, x[30]);
    }
    return value;
}

static __always_inline void copy_registers(__u64 *to, const struct registers *context)
{
#pragma clang loop unroll(full)
    for (int number = 0; number < 31; number++)
        to[number] = context->x[number];
    to[31] = context->sp;
    to[32] = context->pc;
}

#else
#error "say -D__TARGET_ARCH_x86 or -D__TARGET_ARCH_arm64"
#endif

#endif
