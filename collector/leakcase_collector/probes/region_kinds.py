"""What a mapping is: from one line of /proc/PID/maps to a word of the vocabulary ``region_kind``.

Pure functions over text; see proc_pid_maps(5) and show_map_vma in the kernel's fs/proc/task_mmu.c.
Some kinds need more than the line itself: an arena or a stack shows by its neighbours, and whether
a file is a library shows by another mapping of it that is executable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Optional

from .region_text import DELETED, MapLine, without_deleted

#: glibc's HEAP_MAX_SIZE on 64-bit machines (malloc/arena.c); on 32-bit ones it is 1 MiB, and an
#: arena there is called anonymous.
ARENA_BYTES = 64 << 20
#: glibc's guards are one page, the JVM's 16 KiB; a page is at most 64 KiB.
_GUARD_MAX_BYTES = 64 << 10
#: Beyond this it is worth opening a module's file to know how large its .bss is.
_SURELY_BSS_BYTES = 256 << 10
#: PTHREAD_STACK_MIN on x86-64 (and the unit in which stacks are asked for).
_STACK_UNIT_BYTES = 16 << 10
#: glibc keeps the stacks of ended threads up to this much (nptl/allocatestack.c).
_STACK_CACHE_BYTES = 40 << 20

#: The kinds of mappings of the program and its libraries, from `file_kind`.
MODULE_KINDS = frozenset(("program-code", "program-data", "library-code", "library-data"))

#: Kinds that are known only when all mappings have been read; `file_kind` and `stack_sizes` tell.
FILE, BSS, STACK_CANDIDATE = "?file", "?bss", "?stack"

_BRACKETS: Mapping[bytes, str] = {
    b"[heap]": "main-heap",
    b"[stack]": "main-stack",
    b"[vdso]": "vdso",
    b"[vsyscall]": "vdso",
    b"[vectors]": "vdso",
    b"[sigpage]": "vdso",
    b"[uprobes]": "other",
}
_GPU_PREFIXES = (
    b"/dev/nvidia",
    b"/dev/dri/",
    b"/dev/kfd",
    b"/dev/accel/",
    b"/dev/mali",
    b"/dev/kgsl",
    b"/dmabuf:",
    # Buffer objects of DRM drivers that live in shmem (drm_gem_object_init; i915_gem_shmem.c).
    b"/drm mm object",
    b"/i915",
    b"anon_inode:i915.gem",
)


class ProcessFacts(NamedTuple):
    """What the mappings alone do not say."""

    executable: bytes = b""
    tmpfs_devices: frozenset[bytes] = frozenset()
    huge_page_devices: frozenset[bytes] = frozenset()
    stack_limit_bytes: Optional[int] = None
    threads: Optional[int] = None
    #: How much memory a module's file asks for behind its data (.bss), by its path as maps has it;
    #: None where that is not known.
    bss_bytes: Optional[Callable[[bytes], Optional[int]]] = None


class Named(NamedTuple):
    """A mapping that has a path: its kind, and what of the path identifies it."""

    kind: str
    path: bytes = b""
    name: bytes = b""
    deleted: bool = False


# --- mappings with a path or a name -----------------------------------------------------------


def classify_named(line: MapLine, facts: ProcessFacts) -> Named:
    """The kind of a mapping that has something in its last column."""
    path = line.path
    if path.startswith(b"["):
        return _bracketed(line)
    if path.startswith(_GPU_PREFIXES):
        return Named("gpu-device", without_deleted(path) if path.startswith(b"/dev/") else b"")
    if path.startswith(b"anon_inode:"):
        return Named("io-uring" if b"io_uring" in path else "other")
    if not path.startswith(b"/"):
        return Named("other")  # "socket:[4711]": a packet socket's ring
    return _file(line, facts)


def _bracketed(line: MapLine) -> Named:
    path = line.path
    known = _BRACKETS.get(path)
    if known is not None:
        return Named(known)
    # Up to Linux 4.4 the kernel itself found stacks, by the threads' stack pointers; Android and
    # glibc (tunable glibc.mem.decorate_maps) name theirs, with the thread's id.
    if path.startswith((b"[stack:", b"[anon:stack_and_tls", b"[anon: glibc: pthread")):
        return Named("thread-stack")
    if path.startswith(b"[anon: glibc: malloc arena"):
        return Named("arena-heap")
    if path.startswith(b"[vvar"):
        return Named("vdso")
    if path.startswith(b"[anon_shmem:"):
        return Named("shared-anonymous", name=path[12:-1])
    if path.startswith(b"[anon:"):
        # PR_SET_VMA_ANON_NAME (Linux 5.17): the program's own name for the region.
        kind = "jit-code" if line.permissions[2:3] == b"x" else "anonymous"
        if line.permissions.startswith(b"---"):
            kind = "reserved"
        return Named(kind, name=path[6:-1].strip())
    return Named("other")


def _file(line: MapLine, facts: ProcessFacts) -> Named:
    deleted = line.path.endswith(DELETED)
    path = without_deleted(line.path)
    shared = line.permissions[3:4] == b"s"
    if path == b"/dev/zero":
        # A shared anonymous mapping is an unlinked file of this name; a private mapping of the
        # device is plain anonymous memory (mm/shmem.c, drivers/char/mem.c).
        return Named("shared-anonymous" if shared else "anonymous")
    if path.startswith(b"/SYSV") and deleted:
        return Named("sysv-shared-memory")
    if path.startswith(b"/memfd:"):
        # Runtimes map one memfd twice, writable and executable, to keep W^X.
        executable = line.permissions[2:3] == b"x"
        return Named("jit-code" if executable else "memfd", name=path[7:])
    if path.startswith(b"/anon_hugepage") or line.device in facts.huge_page_devices:
        return Named("huge-pages")
    if line.device in facts.tmpfs_devices or path.startswith(b"/dev/shm/"):
        # Executable: a library that someone put there; its memory is shmem all the same.
        return Named("tmpfs-file", path)
    if path.startswith(b"/dev/"):
        return Named("device", path)
    if path == b"/[aio]":
        return Named("other")
    return Named(FILE, path, deleted=deleted)


def file_kind(
    path: bytes,
    modules: AbstractSet[bytes],
    executable: bytes,
    *,
    writable: bool,
    shared: bool,
    deleted: bool,
) -> str:
    """The kind of a mapping of a file on disk; `modules` are the files with executable mappings.

    A module's read-only parts, constants included, are its code; a module that was deleted (an
    upgrade) is a module still.
    """
    if path in modules and not shared:
        owner = "program" if path == executable else "library"
        return f"{owner}-data" if writable else f"{owner}-code"
    if deleted:
        return "deleted-file"
    return "shared-file" if shared else "file-data"


# --- anonymous mappings -----------------------------------------------------------------------


def classify_anonymous(
    previous: Optional[MapLine],
    line: MapLine,
    following: Optional[MapLine],
    flags: bytes,
    facts: ProcessFacts,
) -> str:
    """The kind of a mapping without a path, from its neighbours in the list.

    `flags` are the VmFlags of smaps, empty where there is only maps. Since Linux 6.7 every mapping
    made with MAP_STACK has ``nh``.
    """
    permissions = line.permissions
    if permissions[3:4] == b"s":
        return "shared-anonymous"
    if permissions.startswith(b"---"):
        return "reserved"
    if permissions[2:3] == b"x":
        return "jit-code"
    if permissions[1:2] != b"w":
        return "anonymous"
    if is_arena_heap(line, following, flags):
        return "arena-heap"
    if previous is not None and previous.end == line.start:
        if is_guard(previous) and is_stack_size(line, previous, facts):
            return STACK_CANDIDATE
        if previous.permissions[1:4] == b"w-p" and previous.path.startswith(b"/"):
            return BSS if _can_be_bss(line, previous.path, facts) else "anonymous"
    # glibc 2.42 on Linux 6.13 guards its stacks inside the mapping (MADV_GUARD_INSTALL), so that
    # neighbouring stacks become one mapping.
    stack_bytes = facts.stack_limit_bytes
    if b" nh" in flags and stack_bytes and (line.end - line.start) % stack_bytes == 0:
        return STACK_CANDIDATE
    return "anonymous"


def _can_be_bss(line: MapLine, path: bytes, facts: ProcessFacts) -> bool:
    """Whether a mapping right behind a module's data is no larger than that module's .bss.

    The kernel joins what an allocator maps there with it: then most of it is none of the module's.
    """
    size = line.end - line.start
    if size <= _SURELY_BSS_BYTES or facts.bss_bytes is None:
        return True
    own = facts.bss_bytes(path)
    return own is None or size <= own + _SURELY_BSS_BYTES


def is_arena_heap(line: MapLine, following: Optional[MapLine], flags: bytes) -> bool:
    """Whether a writable mapping looks like a heap of a glibc thread arena (malloc/arena.c).

    Such a heap begins at a multiple of 64 MiB, and what malloc has not asked for yet is without
    access up to the next one. A full heap has no such rest; it is known by the flag ``nr``, for
    arenas are mapped with MAP_NORESERVE (which vm.overcommit_memory = 2 ignores), and without
    flags it passes as anonymous: a buffer of 64 MiB that the kernel put right below an arena is
    aligned, too. Wrong for whoever else reserves aligned 64 MiB: Go does, so the addresses where
    it does (runtime/malloc.go, arena hints) are left out; a JVM's metaspace is aligned like that
    one time in 16.
    """
    start, end = line.start, line.end
    if start % ARENA_BYTES or ((start >> 32) & 0xFF == 0xC0 and start >> 40 < 0x7F):
        return False
    if (end - start) % ARENA_BYTES == 0:
        return b" nr" in flags
    # Full heaps right below are one mapping with this one.
    border = end + -end % ARENA_BYTES
    return (
        following is not None
        and following.start == end
        and not following.path
        and following.permissions == b"---p"
        and border <= following.end
    )


def is_guard(line: MapLine) -> bool:
    """Whether a mapping can be the guard below a stack."""
    return (
        line.permissions == b"---p" and not line.path and line.end - line.start <= _GUARD_MAX_BYTES
    )


def is_stack_size(line: MapLine, guard: MapLine, facts: ProcessFacts) -> bool:
    """Whether a mapping above a guard is of a size that stacks have.

    Stacks are asked for in round sizes, with or without the guard, and no smaller than
    PTHREAD_STACK_MIN. The kernel joins a stack with an equal mapping right above it: such a one
    is still a stack where that is the larger part of it, else it is what lay above.
    """
    size = line.end - line.start
    if size < _STACK_UNIT_BYTES:
        return False
    limit = facts.stack_limit_bytes
    if limit and size >= limit:
        return size < 2 * limit
    return size % _STACK_UNIT_BYTES == 0 or (line.end - guard.start) % _STACK_UNIT_BYTES == 0


def stack_sizes(
    candidates: Mapping[int, int], threads: Optional[int], stack_limit_bytes: Optional[int]
) -> set[int]:
    """Which of the sizes (size to number of candidates) are stacks.

    A program that guards its own buffers has more guarded mappings than threads. So no more are
    called stacks than there can be: one for each thread but the first, and those that glibc keeps
    for reuse. The soft stack limit's size goes first, then the most frequent ones. Errors: a few
    guarded buffers pass as stacks where there is room; stacks are not seen where a program makes
    them without a guard.
    """
    limit = stack_limit_bytes or 8 << 20
    accepted: set[int] = set()
    taken = 0
    order = sorted(candidates, key=lambda size: (size < limit, -candidates[size], size))
    for size in order:
        kept_for_reuse = min(_STACK_CACHE_BYTES // size, 16)
        room = None if threads is None else threads - 1 + kept_for_reuse
        if room is None or taken + candidates[size] <= room:
            accepted.add(size)
            taken += candidates[size]
    return accepted
