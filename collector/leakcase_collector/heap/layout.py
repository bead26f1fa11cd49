"""How the structures of glibc's malloc differ between its versions.

Offsets were taken from the declarations in malloc/malloc.c and malloc/arena.c, version by version.
Nothing here trusts a version's number: a layout counts when the structure that it describes is
found to hold together (`arenas`, `cached`).
"""

from __future__ import annotations

from typing import NamedTuple

WORD_BYTES = 8
#: MALLOC_ALIGNMENT, and CHUNK_HDR_SZ: prev_size and size with its flags.
ALIGNMENT = HEADER_BYTES = 16
#: MINSIZE; only the closing chunks of a full heap ("fenceposts") are smaller.
MIN_CHUNK_BYTES = 32
PREV_INUSE, IS_MMAPPED, NON_MAIN_ARENA = 1, 2, 4
SIZE_MASK = ~7
#: NBINS - 1 pairs of fd and bk; bin 0 does not exist.
BIN_PAIRS = 127
#: HEAP_MAX_SIZE on 64-bit machines, to which every heap of a further arena is aligned.
HEAP_ALIGNMENT = 64 << 20
#: A top is not believed to have grown by more while its arena was walked.
GROWTH_BYTES = 1 << 30
#: The longest run of bytes that must be seen together: see `TCACHES`.
LOOK_AHEAD_BYTES = 0x310


class ArenaLayout(NamedTuple):
    """struct malloc_state, by the offset of its bins; what follows the bins is always the same."""

    bins_offset: int
    #: fastbinsY[10]; None where there are none.
    fastbins_offset: int | None

    @property
    def top_offset(self) -> int:
        return self.bins_offset - 2 * WORD_BYTES

    @property
    def next_offset(self) -> int:
        """Behind binmap[4]; then next_free, attached_threads, system_mem and its maximum."""
        return self.bins_offset + 2 * BIN_PAIRS * WORD_BYTES + 16

    @property
    def size_bytes(self) -> int:
        return self.next_offset + 5 * WORD_BYTES


#: 2.27 inserted have_fastchunks; 2.43 took the fastbins away; 2.23 added attached_threads.
ARENA_LAYOUTS = (ArenaLayout(0x70, 0x10), ArenaLayout(0x18, None), ArenaLayout(0x68, 0x08))
FASTBINS = 10

#: sizeof (heap_info): 2.35 added pagesize. An arena follows the first heap's at once.
HEAP_INFO_BYTES = (0x30, 0x20)


class TcacheLayout(NamedTuple):
    """struct tcache_perthread_struct, known by the size of the chunk that holds it.

    `is_slots`: since 2.42 the counts tell how many more chunks a list would take, not how many it
    holds.
    """

    chunk_bytes: int
    count_bytes: int
    lists: int
    is_slots: bool

    @property
    def entries_offset(self) -> int:
        return self.count_bytes * self.lists


TCACHES = (
    TcacheLayout(0x250, 1, 64, False),  # 2.26 to 2.29
    TcacheLayout(0x290, 2, 64, False),  # 2.30 to 2.41
    TcacheLayout(0x300, 2, 76, True),  # since 2.42; the last twelve lists are for larger chunks
)
#: Lists of one size each; the size of list i is `MIN_CHUNK_BYTES` + i * `ALIGNMENT`.
EXACT_LISTS = 64
#: A thread may be at work on a list while it is read.
TORN_LISTS = 2


def list_chunk_bytes(index: int) -> int:
    """The chunk size of tcache list (below `EXACT_LISTS`) or fastbin `index`."""
    return MIN_CHUNK_BYTES + index * ALIGNMENT
