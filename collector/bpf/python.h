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

/* All zero: there is no Python. Written by PythonLayout.for_kernel(). */
struct python_layout {
    __u64 current_thread;    /* user address of a pointer to the running thread state; 0: not known */
    __u16 thread_native_id;  /* in a thread state: the kernel's number of the thread; 0: not there */
    __u16 thread_frame;      /* in a thread state: pointer to the innermost frame, or to a cframe */
    __u16 cframe_frame;      /* in a cframe: pointer to the innermost frame; PYTHON_ABSENT: no cframe */
    __u16 frame_previous;
    __u16 frame_code;
    __u16 frame_instruction;
    __u16 frame_owner;       /* one byte; PYTHON_ABSENT before 3.11 */
    __u16 frame_is_entry;    /* one byte, 3.11 only, else PYTHON_ABSENT */
    __u8 instruction_bytes;  /* 4: index from the code's start; 8: address */
    __u8 shim_owner;         /* owner of a frame that stands for a call from C; 0xff: there are none */
    __u8 every_frame_is_entry; /* 3.10 and before: each frame has a C call of its own */
    __u8 armed;
    __u32 unused;
};

struct python_frame {
    __u64 code; /* address of the code object; bit 0: the outermost frame of one C call */
    __u64 instruction;
};

struct python_frames {
    __u32 count;
    __u32 truncated; /* 1: there are more frames further out */
    struct python_frame frames[PYTHON_FRAMES];
};

_Static_assert(sizeof(struct python_layout) == 32, "PythonLayout.for_kernel() packs 32 bytes");
_Static_assert(sizeof(struct python_frames) == 8 + 16 * PYTHON_FRAMES, "frames_of_sample()");

/* What stands at an address; 0 where it cannot be read. */
static __always_inline __u64 python_word(__u64 address)
{
    __u64 word = 0;

    if (bpf_probe_read_user(&word, sizeof(word), (const void *)address))
        return 0;
    return word;
}

static __always_inline __u8 python_byte(__u64 address)
{
    __u8 byte = 0;

    if (bpf_probe_read_user(&byte, sizeof(byte), (const void *)address))
        return 0;
    return byte;
}

/* Multiplication by an odd constant and a shift, as in the finishing steps of common hashes. */
static __always_inline __u64 python_mix(__u64 key, __u64 word)
{
    key = (key ^ word) * 0x9e3779b97f4a7c15ULL;
    return key ^ key >> 29;
}

/*
 * The innermost frame of a thread: of the thread state that user space found for it, else of the one
 * that runs now, should it say that it is this thread's (a thread that started a moment ago).
 */
static __always_inline __u64 python_innermost(const struct python_layout *layout,
                                              const __u64 *known, __u32 tid)
{
    __u64 thread, frame;

    if (known) {
        thread = *known;
    } else {
        if (!layout->current_thread || !layout->thread_native_id)
            return 0;
        thread = python_word(layout->current_thread);
        if (!thread || python_word(thread + layout->thread_native_id) != tid)
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
 */
static __always_inline __u64 python_walk(const struct python_layout *layout, const __u64 *known,
                                         __u32 tid, struct python_frames *out)
{
    __u64 code = 0, instruction = 0, frame, hash = 0;
    __u32 count = 0;
    int step;

    out->count = 0;
    out->truncated = 0;
    if (!layout->armed)
        return 0;
    frame = python_innermost(layout, known, tid);
    for (step = 0; step < PYTHON_STEPS && frame; step++) {
        __u8 is_shim = 0;

        if (layout->frame_owner != PYTHON_ABSENT)
            is_shim = python_byte(frame + layout->frame_owner) == layout->shim_owner;
        /* Whether a frame is its call's outermost shows at the next one only, at a shim. */
        if (is_shim)
            code |= code != 0;
        if (code) {
            if (count >= PYTHON_FRAMES)
                break;
            out->frames[count].code = code;
            out->frames[count].instruction = instruction;
            count++;
            hash = python_mix(python_mix(hash, code), instruction);
            code = 0;
        }
        if (!is_shim) {
            code = python_word(frame + layout->frame_code) & ~7ULL;
            instruction = python_word(frame + layout->frame_instruction);
            if (layout->instruction_bytes == 4)
                instruction &= 0xffffffff;
            if (layout->every_frame_is_entry)
                code |= code != 0;
            if (layout->frame_is_entry != PYTHON_ABSENT)
                code |= code && python_byte(frame + layout->frame_is_entry);
        }
        frame = python_word(frame + layout->frame_previous);
    }
    if (code && !frame && count < PYTHON_FRAMES) {
        out->frames[count].code = code;
        out->frames[count].instruction = instruction;
        count++;
        hash = python_mix(python_mix(hash, code), instruction);
        code = 0;
    }
    out->count = count;
    out->truncated = code != 0 || frame != 0;
    return hash;
}

#endif
