/*
 * The Python functions that are being executed, read from CPython's own list of frames at an event.
 *
 * User space says where things stand (they differ by version: Include/internal/pycore_frame.h and
 * Include/cpython/pystate.h of CPython) and which thread of the kernel has which PyThreadState.
 * Everything is read with bpf_probe_read_user, so that a wrong address costs frames, nothing else.
 *
 * Include after the types __u8 to __u64 and bpf_probe_read_user are known.
 */
#ifndef LEAKCASE_PYTHON_H
#define LEAKCASE_PYTHON_H

#define PYTHON_FRAMES 24 /* kept of a stack, the innermost */
#define PYTHON_STEPS 48  /* visited; frames that stand for C calls are not kept */
#define PYTHON_ABSENT 0xffff
#define PYTHON_PART 128 /* a power of two: an offset is held in it by its bits alone */

/* All zero: there is no Python. Written by PythonLayout.for_kernel(). */
struct python_layout {
    __u64 current_thread;   /* user address of a pointer to the running thread state */
    __u64 instruction_mask; /* 32 bits where it is an index (f_lasti), 64 where it is an address */
    __u16 thread_number;    /* in a thread state: the kernel's number of the thread; 0: not known */
    __u16 descriptor_number; /* not 0: thread_number leads to the C library's descriptor of the */
                             /* thread, and in that the number is here (3.10 and before) */
    __u16 thread_frame;     /* in a thread state: pointer to the innermost frame, or to a cframe */
    __u16 cframe_frame;     /* in a cframe: pointer to the innermost frame; PYTHON_ABSENT: no cframe */
    __u16 frame_from;       /* the part of a frame that is read, and its size */
    __u16 frame_bytes;
    __u16 frame_previous;   /* from here on: within that part */
    __u16 frame_code;
    __u16 frame_instruction;
    __u16 frame_owner;      /* one byte, read where there is none as well */
    __u16 frame_is_entry;   /* one byte, read where there is none as well */
    __u16 unused;
    __u8 entry_mask;        /* 1 in 3.11, where frame_is_entry says so; else 0 */
    __u8 every_frame_is_entry; /* 1 in 3.10 and before: each frame has a C call of its own; else 0 */
    __u8 has_shims;         /* 1 since 3.12: frames that stand for a call from C */
    __u8 shim_owner;        /* whose owner is this one */
    __u32 armed;
};

struct python_frame {
    __u64 code; /* address of the code object; bit 0: the outermost frame of one C call */
    __u64 instruction;
};

struct python_frames {
    __u32 count;
    __u32 truncated; /* 1: there are more frames further out */
    struct python_frame frames[PYTHON_FRAMES];
    __u8 part[PYTHON_PART + 8]; /* of the frame that is looked at */
};

_Static_assert(sizeof(struct python_layout) == 48, "PythonLayout.for_kernel() packs 48 bytes");
_Static_assert(sizeof(struct python_frames) == 528, "frames_of_sample(), SAMPLE");

/* What stands at an address; 0 where it cannot be read: the helper clears what it could not fill. */
static __always_inline __u64 python_word(__u64 address)
{
    __u64 word = 0;

    bpf_probe_read_user(&word, sizeof(word), (const void *)address);
    return word;
}

/* A field of the frame that is looked at. */
static __always_inline __u64 python_field(volatile struct python_frames *out, __u32 offset)
{
    return *(volatile __u64 *)(out->part + (offset & (PYTHON_PART - 1)));
}

static __always_inline __u8 python_byte(volatile struct python_frames *out, __u32 offset)
{
    return out->part[offset & (PYTHON_PART - 1)];
}

/* Multiplication by an odd constant and a shift, as in the finishing steps of common hashes. */
static __always_inline __u64 python_mix(__u64 key, __u64 word)
{
    key = (key ^ word) * 0x9e3779b97f4a7c15ULL;
    return key ^ key >> 29;
}

/*
 * What an object takes, by its type (PyTypeObject of 3.8 to 3.14, Include/cpython/object.h), without
 * the collector's head before it. 0 for one that the collector does not track: how it is freed is
 * not seen.
 */
static __always_inline __u64 python_object_bytes(__u64 object)
{
    __u64 type = python_word(object + 8), items = 0;
    __u64 item_bytes = python_word(type + 40);

    if (!(python_word(type + 168) & 1 << 14)) /* Py_TPFLAGS_HAVE_GC */
        return 0;
    if (item_bytes)
        items = python_word(object + 16); /* ob_size */
    return python_word(type + 32) + (item_bytes & 0xffff) * (items & 0xffffffff);
}

/*
 * The innermost frame of a thread: of the thread state that user space found for it, else of the one
 * that runs now, should it say that it is this thread's (a thread that started a moment ago).
 */
static __always_inline __u64 python_innermost(const struct python_layout *layout,
                                              const __u64 *known, __u32 tid)
{
    __u64 thread, number, frame;

    if (known) {
        thread = *known;
    } else {
        if (!layout->current_thread || !layout->thread_number)
            return 0;
        thread = python_word(layout->current_thread);
        number = python_word(thread + layout->thread_number);
        if (layout->descriptor_number)
            number = (__u32)python_word(number + layout->descriptor_number);
        if (!thread || number != tid)
            return 0;
    }
    frame = python_word(thread + layout->thread_frame);
    if (frame && layout->cframe_frame != PYTHON_ABSENT)
        frame = python_word(frame + layout->cframe_frame);
    return frame;
}

/*
 * Writes the frames of thread `tid` to `out`, innermost first; `known` is its thread state in the
 * target, or null. Returns a hash of them, 0 where there are none.
 *
 * `out` lies in a map: the verifier follows no values in there, so that each turn of the loop looks
 * the same to it. With the count in a register it saw more states than its limit of a million.
 */
static __always_inline __u64 python_walk(const struct python_layout *layout, const __u64 *known,
                                         __u32 tid, volatile struct python_frames *out)
{
    __u64 frame, hash = 0;
    int step;

    out->count = 0;
    out->truncated = 0;
    if (!layout->armed)
        return 0;
    frame = python_innermost(layout, known, tid);
    for (step = 0; step < PYTHON_STEPS && frame; step++) {
        __u32 index = out->count;

        /* One read a frame: each costs as much as all else. What fails leaves zeros, the end. */
        bpf_probe_read_user((void *)out->part, layout->frame_bytes & (PYTHON_PART - 1),
                            (const void *)(frame + layout->frame_from));
        if (layout->has_shims && python_byte(out, layout->frame_owner) == layout->shim_owner) {
            index--;
            if (index < PYTHON_FRAMES)
                out->frames[index].code |= 1;
        } else {
            __u64 code = python_field(out, layout->frame_code) & ~7ULL;
            __u64 instruction = python_field(out, layout->frame_instruction);

            if (index >= PYTHON_FRAMES)
                break;
            instruction &= layout->instruction_mask;
            code |= python_byte(out, layout->frame_is_entry) & layout->entry_mask;
            code |= layout->every_frame_is_entry;
            hash = python_mix(python_mix(hash, code), instruction);
            out->frames[index].code = code;
            out->frames[index].instruction = instruction;
            out->count = index + 1;
        }
        frame = python_field(out, layout->frame_previous);
    }
    out->truncated = frame != 0;
    return hash;
}

#endif
