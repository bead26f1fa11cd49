"""The text of /proc/PID/maps and smaps, and of the small files that explain it.

See proc_pid_maps(5), proc_pid_smaps(5); show_map_vma and show_smap in fs/proc/task_mmu.c. Nothing
here raises, whatever the text.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import NamedTuple, Optional

DELETED = b" (deleted)"
#: No entry of smaps is longer; a text without the expected ends must not pile up.
_ENTRY_LIMIT_BYTES = 1 << 20

#: No address space is larger (64 PiB in kB); a larger figure is not one.
_FIGURE_LIMIT_KB = 1 << 46

#: The keys that are read, all in kB; the first two weigh a mapping.
FIGURES: tuple[bytes, ...] = (
    b"Rss:",
    b"Swap:",
    b"Pss:",
    b"Private_Dirty:",
    b"Private_Clean:",
    b"Shared_Dirty:",
    b"Shared_Clean:",
    b"Anonymous:",
    b"Referenced:",
    b"Locked:",
    b"AnonHugePages:",
    b"ShmemPmdMapped:",
    b"FilePmdMapped:",
    b"Shared_Hugetlb:",
    b"Private_Hugetlb:",
)


class MapLine(NamedTuple):
    """One line of /proc/PID/maps (the head of an entry of smaps)."""

    start: int
    end: int
    permissions: bytes
    device: bytes
    path: bytes


def parse_map_line(line: bytes) -> Optional[MapLine]:
    """A line of maps, or None where it is not one."""
    fields = line.split(None, 5)
    if len(fields) < 5 or len(fields[1]) != 4:
        return None
    low, _, high = fields[0].partition(b"-")
    try:
        start, end = int(low, 16), int(high, 16)
    except ValueError:
        return None
    if not 0 <= start < end <= 1 << 64:
        return None
    return MapLine(start, end, fields[1], fields[3], fields[5] if len(fields) > 5 else b"")


def without_deleted(path: bytes) -> bytes:
    """The path under which a file was mapped, unlinked since or not."""
    return path[: -len(DELETED)] if path.endswith(DELETED) else path


def raw_path(path: bytes) -> str:
    """A path of maps as the file system has it: there a newline is written as ``\\012``."""
    return os.fsdecode(path.replace(b"\\012", b"\n"))


class Entry(NamedTuple):
    """One mapping of smaps: its line, the values of `FIGURES`, and its VmFlags."""

    line: MapLine
    figures: tuple[int, ...]
    flags: bytes


class _Layout:
    """Where the figures are among the words of an entry.

    All entries of a kernel have the same keys in the same order, so the places are found once and
    only checked from then on: splitting a whole entry into words is many times faster than
    looking at each of its lines.
    """

    def __init__(self, fields: bytes) -> None:
        words = fields.split()
        names_at = [at for at, word in enumerate(words) if word.endswith(b":")]
        places = {words[at]: at + 1 for at in names_at}
        # Figures that this kernel does not have read the b"0" which `figures` appends.
        at_end = len(words)
        self.known = tuple(name in places for name in FIGURES)
        self._values = itemgetter(*(places.get(name, at_end) for name in FIGURES))
        self._names = itemgetter(0, 0, *names_at)
        self._expected = self._names(words) if words else None
        self._length = at_end

    def figures(self, fields: bytes) -> Optional[tuple[int, ...]]:
        """The values, or None where the entry has another layout, not even Rss, or no numbers."""
        words = fields.split()
        if len(words) != self._length or not self.known[0]:
            return None
        if self._names(words) != self._expected:
            return None
        words.append(b"0")
        try:
            figures = tuple(map(int, self._values(words)))
        except ValueError:
            return None
        return figures if max(figures) < _FIGURE_LIMIT_KB and min(figures) >= 0 else None


class SmapsParser:
    """Takes smaps in chunks, gives its entries; in constant memory, and it never raises."""

    def __init__(self) -> None:
        #: For each of `FIGURES`, whether every entry had it.
        self.known = (True,) * len(FIGURES)
        #: Entries that were not understood, a cut-off last one included.
        self.malformed = 0

    def entries(self, chunks: Iterable[bytes]) -> Iterator[Entry]:
        """The entries in the kernel's order. Each ends with its VmFlags (since Linux 3.8)."""
        rest = b""
        layout: Optional[_Layout] = None
        for chunk in chunks:
            rest += chunk
            cut = rest.rfind(b"\nVmFlags:")
            cut = rest.find(b"\n", cut + 1) if cut >= 0 else -1
            if cut < 0:
                if len(rest) > _ENTRY_LIMIT_BYTES:
                    self.malformed += 1
                    rest = b""
                continue
            # Between two splits stand the flags of one entry and all but the flags of the next.
            head, *bodies = rest[:cut].split(b"\nVmFlags:")
            rest = rest[cut + 1 :]
            for body in bodies:
                line_text, _, fields = head.partition(b"\n")
                flags, _, head = body.partition(b"\n")
                figures = layout.figures(fields) if layout is not None else None
                if figures is None:
                    layout = _Layout(fields)
                    figures = layout.figures(fields)
                    if figures is not None:
                        self.known = tuple(a and b for a, b in zip(self.known, layout.known))
                line = parse_map_line(line_text)
                if line is None or figures is None:
                    self.malformed += 1
                else:
                    yield Entry(line, figures, flags)
        if rest.strip():
            self.malformed += 1


def map_lines(chunks: Iterable[bytes]) -> Iterator[Optional[MapLine]]:
    """The lines of maps, None for one that is not understood."""
    rest = b""
    for chunk in chunks:
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        if len(rest) > _ENTRY_LIMIT_BYTES:
            rest = b"?"
        for text in lines:
            yield parse_map_line(text)
    if rest:
        yield parse_map_line(rest)


def parse_file_systems(lines: Iterable[bytes]) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """The devices of tmpfs and of hugetlbfs mounts, as maps spells them (``00:1a``).

    From /proc/PID/mountinfo, whose third column is major:minor in decimal (proc_pid_mountinfo(5)).
    """
    tmpfs: set[bytes] = set()
    huge: set[bytes] = set()
    for line in lines:
        fields = line.split()
        try:
            kind = fields[fields.index(b"-", 6) + 1]
            major, minor = fields[2].split(b":")
            device = b"%02x:%02x" % (int(major), int(minor))
        except (ValueError, IndexError):
            continue
        if kind in (b"tmpfs", b"ramfs"):
            tmpfs.add(device)
        elif kind == b"hugetlbfs":
            huge.add(device)
    return frozenset(tmpfs), frozenset(huge)


def parse_stack_limit(limits: bytes) -> Optional[int]:
    """The soft stack limit from /proc/PID/limits; None where there is none or it is unlimited."""
    for line in limits.split(b"\n"):
        if line.startswith(b"Max stack size"):
            fields = line[14:].split()
            if fields and fields[0].isdigit():
                return int(fields[0]) or None
    return None


def parse_thread_count(stat: bytes) -> Optional[int]:
    """The number of threads from /proc/PID/stat, field 20 (proc_pid_stat(5))."""
    fields = stat.rpartition(b")")[2].split()
    return int(fields[17]) if len(fields) > 17 and fields[17].isdigit() else None
