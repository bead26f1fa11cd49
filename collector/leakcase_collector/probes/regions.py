"""The target's mappings by kind, with what of them is resident: /proc/PID/smaps, else maps.

The kernel fills one page of text at a time and holds the target's mmap lock only for that
(seq_file; m_start and m_stop in fs/proc/task_mmu.c), so a long list is many short waits for the
target, except that the page tables of one large mapping are walked in one go.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Optional

from leakcase_bundle.records import Region, RegionSnapshot
from leakcase_bundle.strings import PathToken
from leakcase_collector.errors import LimitReached, NotPermitted, NotSupported
from leakcase_collector.system.clock import PAGE_BYTES, monotonic_ns
from leakcase_collector.system.elf import PT_LOAD, ElfFile

from .base import Cadence, Context, Prediction, Probe
from .region_groups import Group, GroupKey, RegionTally
from .region_kinds import MODULE_KINDS, ProcessFacts
from .region_text import (
    FIGURES,
    SmapsParser,
    map_lines,
    parse_file_systems,
    parse_stack_limit,
    parse_thread_count,
    raw_path,
    without_deleted,
)

if TYPE_CHECKING:
    from leakcase_collector.redact import Redactor

    from .subject import Subject

#: At begin and finish, between which growth is attributed; in between only the weightiest.
GROUPS_AT_ENDS, LARGE_AT_ENDS = 300, 16
GROUPS_BETWEEN, LARGE_BETWEEN = 32, 4
#: About 700,000 mappings of smaps; beyond it the snapshot says that it is not complete.
TEXT_LIMIT_BYTES = 512 << 20
_WEIGH = (0, 1)
_FIELDS = (
    "rss_bytes", "swap_bytes", "pss_bytes", "private_dirty_bytes", "private_clean_bytes",
    "shared_dirty_bytes", "shared_clean_bytes", "anonymous_bytes", "referenced_bytes",
    "locked_bytes",
)  # fmt: skip
_HUGE = slice(len(_FIELDS), len(FIGURES))

# Measured: the kernel's work for a mapping and for a page of it, then with ours.
_MAPPING_NS = 4_000
_PAGE_NS = 90
_MAPPING_CPU_NS = 12_000
_FIXED_CPU_NS = 2_000_000
#: Entries of smaps that fit into the page that the kernel fills at a time.
_MAPPINGS_IN_A_READ = 6


class _TimedChunks:
    """Chunks, and how long it took to get them: the kernel's part, without ours."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.read_ns = 0
        self.is_whole = True

    def __iter__(self) -> Iterator[bytes]:
        total = 0
        while True:
            started_ns = monotonic_ns()
            chunk = next(self._chunks, b"")
            self.read_ns += monotonic_ns() - started_ns
            if not chunk:
                return
            total += len(chunk)
            if total > TEXT_LIMIT_BYTES:
                self.is_whole = False
                return
            yield chunk


class Reading(NamedTuple):
    """One pass over the mappings. `known`: which of `FIGURES` the kernel offers; none of maps."""

    tally: RegionTally
    known: tuple[bool, ...]
    source: str
    taken_ns: int
    read_ns: int
    complete: bool


class RegionsProbe(Probe):
    """What the address space consists of, and what of it is resident, swapped, shared."""

    name = "regions"
    cadence = Cadence.PACED
    reads = "/proc/PID/smaps (maps where that is refused)"
    risk = "page faults and new mappings of the target wait while a part of the list is written"

    def __init__(self) -> None:
        self._snapshot = 0
        self._has_smaps = True
        #: What the last snapshot with that limit wrote: those at the ends are to be compared.
        self._written: dict[int, set[GroupKey]] = {}
        self._bss: dict[bytes, Optional[int]] = {}

    def predict(self, context: Context) -> Prediction:
        """From the number of mappings and of resident pages.

        The lock is held longest for the largest mapping, if all that is resident lies in it.
        """
        mappings, largest_bytes = 0, 0
        with suppress(NotPermitted, NotSupported):  # Then `begin` says so.
            for line in map_lines(context.system.read_chunks(f"/proc/{context.pid}/maps")):
                if line is not None:
                    mappings += 1
                    if not line.permissions.startswith(b"---"):
                        largest_bytes = max(largest_bytes, line.end - line.start)
        statm = context.system.read_bytes(f"/proc/{context.pid}/statm").split()
        resident_pages = int(statm[1]) if len(statm) > 1 else 0
        walked_pages = min(resident_pages, largest_bytes // PAGE_BYTES)
        return Prediction(
            _FIXED_CPU_NS + mappings * _MAPPING_CPU_NS + resident_pages * _PAGE_NS,
            lock_ns=_MAPPINGS_IN_A_READ * _MAPPING_NS + walked_pages * _PAGE_NS,
        )

    def begin(self, context: Context, taken_ns: int) -> None:
        self._take(context, GROUPS_AT_ENDS, LARGE_AT_ENDS)

    def sample(self, context: Context, taken_ns: int) -> None:
        self._take(context, GROUPS_BETWEEN, LARGE_BETWEEN)

    def finish(self, context: Context, taken_ns: int) -> None:
        self._take(context, GROUPS_AT_ENDS, LARGE_AT_ENDS)

    def _take(self, context: Context, limit: int, large_limit: int) -> None:
        facts = read_facts(context)._replace(bss_bytes=partial(self._bss_bytes, context))
        reading = self._read_smaps(context, facts) or _read_maps(context, facts)
        groups = reading.tally.groups(limit, self._written.get(limit, ()))
        folded = reading.tally.folded
        if not reading.tally.mappings:
            raise NotSupported(
                f"process {context.pid} shows no mappings: it is ending, or a kernel thread. "
                "Nothing is to be done; the rest of the capture is not affected."
            )
        context.emit(
            RegionSnapshot(
                self._snapshot,
                reading.taken_ns,
                reading.source,
                reading.tally.mappings,
                reading.read_ns,
                reading.complete,
                groups_folded=folded,
            )
        )
        for group in groups + reading.tally.large(large_limit):
            context.emit(region_record(self._snapshot, group, reading.known, context.redactor))
        if limit == GROUPS_AT_ENDS and folded:
            context.loss("regions", folded)
        self._written[limit] = {group.key for group in groups}
        self._snapshot += 1

    def _bss_bytes(self, context: Context, path: bytes) -> Optional[int]:
        """Of a module's file, read once; what may not be read stays unknown."""
        if path not in self._bss:
            with suppress(NotPermitted, NotSupported, LimitReached):
                self._bss[path] = _bss_of(context.subject, raw_path(without_deleted(path)))
        return self._bss.setdefault(path, None)

    def _read_smaps(self, context: Context, facts: ProcessFacts) -> Optional[Reading]:
        if not self._has_smaps:
            return None
        taken_ns = monotonic_ns()
        chunks = _TimedChunks(context.system.read_chunks(f"/proc/{context.pid}/smaps"))
        parser = SmapsParser()
        tally = RegionTally(facts, _WEIGH)
        try:
            for line, figures, flags in parser.entries(chunks):
                tally.add(line, figures, flags)
        except (NotPermitted, NotSupported) as error:
            context.gap(error, "smaps")
            self._has_smaps = False
            return None
        complete = chunks.is_whole and not parser.malformed
        return Reading(tally, parser.known, "smaps", taken_ns, chunks.read_ns, complete)


def _read_maps(context: Context, facts: ProcessFacts) -> Reading:
    taken_ns = monotonic_ns()
    chunks = _TimedChunks(context.system.read_chunks(f"/proc/{context.pid}/maps"))
    tally = RegionTally(facts)
    malformed = 0
    for line in map_lines(chunks):
        if line is None:
            malformed += 1
        else:
            tally.add(line, ())
    complete = chunks.is_whole and not malformed
    return Reading(tally, (), "maps", taken_ns, chunks.read_ns, complete)


def _bss_of(subject: Subject, path: str) -> Optional[int]:
    for module in subject.program_files():
        if path.endswith(module.path):  # maps has the target's root in front of it
            with subject.open_program_file(module) as file:
                segments = ElfFile(file).segments
            return sum(s.memory_bytes - s.file_bytes for s in segments if s.kind == PT_LOAD)
    return None


def read_facts(context: Context) -> ProcessFacts:
    """What the mappings alone do not say; what may not be read stays unknown."""
    system, pid = context.system, context.pid
    executable, mounts, limits, stat = "", b"", b"", b""
    with suppress(NotPermitted, NotSupported):
        executable = system.read_link(f"/proc/{pid}/exe")
    with suppress(NotPermitted, NotSupported, LimitReached):
        mounts = system.read_bytes(f"/proc/{pid}/mountinfo")
    with suppress(NotPermitted, NotSupported):
        limits = system.read_bytes(f"/proc/{pid}/limits")
    with suppress(NotPermitted, NotSupported):
        stat = system.read_bytes(f"/proc/{pid}/stat")
    tmpfs, huge_pages = parse_file_systems(mounts.split(b"\n"))
    return ProcessFacts(
        without_deleted(os.fsencode(executable)),
        tmpfs,
        huge_pages,
        parse_stack_limit(limits),
        parse_thread_count(stat),
    )


def region_record(
    snapshot: int, group: Group, known: tuple[bool, ...], redactor: Redactor
) -> Region:
    """The record of a group; figures that the kernel does not offer are absent."""
    key = group.key
    count, size_bytes, *figures = group.sums
    values = [1024 * value if has else None for value, has in zip(figures, known)]
    huge = [value for value in values[_HUGE] if value is not None]
    path: Optional[PathToken] = None
    if key.path:
        path = redactor.path(raw_path(key.path), is_module=key.kind in MODULE_KINDS)
    return Region(
        snapshot,
        key.kind,
        count,
        size_bytes,
        path=path,
        name=redactor.name(raw_path(key.name)) if key.name else None,
        writable=key.writable,
        executable=key.executable,
        shared=key.shared,
        start_address=group.start,
        huge_bytes=sum(huge) if huge else None,
        **dict(zip(_FIELDS, values)),
    )
