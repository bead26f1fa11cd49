"""The reader's side of BPF's ring buffer: Documentation/bpf/ringbuf.rst of the kernel."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from typing import Optional

from leakcase_collector.system.bpf_refusals import refused

_PAGE_BYTES = mmap.PAGESIZE
#: Of a record's length word (include/uapi/linux/bpf.h).
_IS_BUSY, _IS_DISCARDED = 1 << 31, 1 << 30
_HEAD_BYTES = 8
#: Of the data, mapped at a time: all that is mapped counts as our memory, once it is.
_WINDOW_BYTES = 256 * 1024


class RingReader:
    """One reader of a ring; programs of all CPUs write to it.

    The first page holds our position, the second the writers', then come the data. The kernel would
    map the data twice in a row so that no record is broken; we map a part at a time, for the
    memory's sake, and put broken records together. `map_fd` must stay open.
    """

    def __init__(self, map_fd: int, ring_bytes: int) -> None:
        self._map_fd = map_fd
        self._mask = ring_bytes - 1
        self._window_bytes = min(_WINDOW_BYTES, ring_bytes)
        self._window: Optional[mmap.mmap] = None
        self._window_at = 0
        self._ours = self._theirs = None
        try:
            self._ours = mmap.mmap(map_fd, _PAGE_BYTES)
            self._theirs = mmap.mmap(map_fd, _PAGE_BYTES, prot=mmap.PROT_READ, offset=_PAGE_BYTES)
        except OSError as error:
            self.close()
            raise refused(error, "map the ring of samples", "bpf") from error

    def _map(self, at: int) -> mmap.mmap:
        """The part of the data that byte `at` is in."""
        start = at - at % self._window_bytes
        if self._window is None or start != self._window_at:
            if self._window is not None:
                self._window.close()
                self._window = None
            place = 2 * _PAGE_BYTES + start
            try:
                self._window = mmap.mmap(
                    self._map_fd, self._window_bytes, prot=mmap.PROT_READ, offset=place
                )
            except OSError as error:
                raise refused(error, "map the ring of samples", "bpf") from error
            self._window_at = start
        return self._window

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
        data = b""
        while len(data) < size:
            window, start = self._map((at + len(data)) & self._mask), at + len(data)
            start %= self._window_bytes
            data += window[start : start + size - len(data)]
        return data

    def close(self) -> None:
        for mapping in (self._ours, self._theirs, self._window):
            if mapping is not None:
                mapping.close()
        self._ours = self._theirs = self._window = None


def ring_size(wanted_bytes: int) -> int:
    """The next size that the kernel takes: a power of two, whole pages."""
    return max(os.sysconf("SC_PAGE_SIZE"), 1 << (wanted_bytes - 1).bit_length())
