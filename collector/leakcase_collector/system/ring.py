"""The reader's side of BPF's ring buffer: Documentation/bpf/ringbuf.rst of the kernel."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

from leakcase_collector.system.bpf_refusals import refused

_PAGE_BYTES = mmap.PAGESIZE
#: Of a record's length word (include/uapi/linux/bpf.h).
_IS_BUSY, _IS_DISCARDED = 1 << 31, 1 << 30
_HEAD_BYTES = 8


class RingReader:
    """One reader of a ring; programs of all CPUs write to it.

    The first page holds our position, the second the writers', then come the data. The kernel would
    map the data twice in a row so that no record is broken; we map them once, for the memory's
    sake, and put broken records together.
    """

    def __init__(self, map_fd: int, ring_bytes: int) -> None:
        self._mask = ring_bytes - 1
        self._ours = self._theirs = None
        try:
            self._ours = mmap.mmap(map_fd, _PAGE_BYTES)
            self._theirs = mmap.mmap(
                map_fd, _PAGE_BYTES + ring_bytes, prot=mmap.PROT_READ, offset=_PAGE_BYTES
            )
        except OSError as error:
            self.close()
            raise refused(error, "map the ring of samples", "bpf") from error

    def records(self) -> Iterator[bytes]:
        """What is complete now, as copies."""
        assert self._ours is not None and self._theirs is not None
        (at,) = struct.unpack_from("Q", self._ours)
        (end,) = struct.unpack_from("Q", self._theirs)
        while at < end:
            (word,) = struct.unpack("I", self._bytes(at, 4))
            if word & _IS_BUSY:
                return
            size = word & ~(_IS_BUSY | _IS_DISCARDED)
            record = None if word & _IS_DISCARDED else self._bytes(at + _HEAD_BYTES, size)
            at += (size + _HEAD_BYTES + 7) // 8 * 8
            struct.pack_into("Q", self._ours, 0, at)
            if record is not None:
                yield record

    def _bytes(self, at: int, size: int) -> bytes:
        assert self._theirs is not None
        start = at & self._mask
        data = self._theirs[_PAGE_BYTES + start : _PAGE_BYTES + min(start + size, self._mask + 1)]
        if len(data) < size:
            data += self._theirs[_PAGE_BYTES : _PAGE_BYTES + size - len(data)]
        return data

    def close(self) -> None:
        for mapping in (self._ours, self._theirs):
            if mapping is not None:
                mapping.close()
        self._ours = self._theirs = None


def ring_size(wanted_bytes: int) -> int:
    """The next size that the kernel takes: a power of two, whole pages."""
    return max(os.sysconf("SC_PAGE_SIZE"), 1 << (wanted_bytes - 1).bit_length())
