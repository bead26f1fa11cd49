"""The allocator's own words: its statistics function, called in the target at a safe point."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Optional

from leakcase_bundle.records import AllocatorArena, AllocatorWords
from leakcase_collector.errors import CollectorError, NotPermitted, NotSupported
from leakcase_collector.system.allocator import ModuleFacts, allocator_facts, allocators
from leakcase_collector.system.clock import NS_PER_MS, NS_PER_SECOND
from leakcase_collector.system.elf import ElfFile
from leakcase_collector.system.modules import MappedModule

from .base import Cadence, CaptureOptions, Context, Prediction, Probe
from .modules import MAX_MODULES

if TYPE_CHECKING:
    from leakcase_collector.attach.allocators import Question
    from leakcase_collector.attach.asking import Asked

ARENAS_TOLD = 64
_LARGEST = 1 << 56
# Measured: a stop with nothing to walk; a thread more; a page of heap, were it all small free
# blocks (malloc_info looks at each free block under its arena's lock).
_STOP_NS, _THREAD_NS, _PAGE_NS = 8 * NS_PER_MS, 200_000, 600
_CPU_NS = 40 * NS_PER_MS
_THREADS = re.compile(r"^Threads:\s+(\d+)$", re.MULTILINE)


class AllocatorStatisticsProbe(Probe):
    """What malloc_info, mallctl, MallocExtension or mi_process_info says, at start and end."""

    name = "allocator-statistics"
    level = "attach"
    cadence = Cadence.ENDS
    reads = "what the allocator's own statistics function answers when it is called in the target"
    needs = "ptrace permission, x86-64, an allocator in a library of its own, no seccomp filter"
    risk = (
        "all threads stand still, one of them runs the function; it is called only when no thread "
        "is at work in the allocator, but a damaged heap may end the call, and system calls that "
        "a stop interrupts (epoll_wait) may return EINTR, as after any SIGSTOP"
    )
    stops_target = True

    def __init__(self) -> None:
        self._look = 0
        self._limit_ns = 2 * NS_PER_SECOND

    def configure(self, options: CaptureOptions) -> None:
        self._limit_ns = options.max_pause_ns

    def predict(self, context: Context) -> Prediction:
        """From the threads, and the anonymous pages as if all of them were small free blocks."""
        status = context.system.read_text(f"/proc/{context.pid}/status")
        found = _THREADS.search(status)
        threads = int(found.group(1)) if found else 1
        stop_ns = _STOP_NS + threads * _THREAD_NS + context.subject.anonymous_pages() * _PAGE_NS
        return Prediction(cpu_ns=_CPU_NS + threads * _THREAD_NS, stop_ns=stop_ns)

    def toll(self) -> Optional[str]:
        return (
            "that stop at the start and at the end; where threads are busy in the allocator, "
            "up to six short ones each"
        )

    def begin(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns)

    def finish(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns)

    def _take(self, context: Context, taken_ns: int) -> None:
        from leakcase_collector.heap.arenas import HeapNotFound, HeapUnsound

        try:
            question = question_of(context)
            asked = self._ask(context, question)
        except (HeapNotFound, HeapUnsound) as error:
            context.gap(error, error.gap_detail)
            return
        except (NotSupported, NotPermitted) as error:
            context.gap(error, "not-askable")
            return
        for stop_ns in asked.stops_ns:
            context.stopped(stop_ns)
        context.subject.require_alive()
        if asked.refusal:
            context.gap(CollectorError(asked.sentence), asked.refusal)
            return
        records = words_of(self._look, taken_ns, asked)
        if not records:
            context.gap(CollectorError("the allocator's answer is not understood."), "not-askable")
        for record in records:
            context.emit(record)
        self._look += 1

    def _ask(self, context: Context, question: Question) -> Asked:
        # Only here: a capture that may not attach does without ctypes and its cost.
        from leakcase_collector.attach.asking import Asked, as_map, ask, whole_limit_seconds
        from leakcase_collector.system.apart import run_apart

        system, identity, limit_ns = context.system, context.identity, self._limit_ns
        target = context.subject
        answer = run_apart(
            lambda: as_map(ask(system, identity, question, limit_ns, target=target)),
            whole_limit_seconds(limit_ns),
        )
        return Asked(**answer)


def question_of(context: Context) -> Question:
    """What to ask of the allocator that malloc() reaches. NotSupported where it cannot be asked."""
    from leakcase_collector.attach.allocators import question_for

    subject = context.subject
    program = subject.program_inode()
    modules = {module.path: module for module in subject.program_files()[:MAX_MODULES]}
    facts: list[ModuleFacts] = []
    for module in modules.values():
        with suppress(NotSupported, NotPermitted), subject.open_program_file(module) as file:
            facts.append(allocator_facts(ElfFile(file), module, module.inode == program))
    found = next(iter(allocators(facts)), None)
    if found is None or not found.is_effective:
        raise NotSupported("no allocator was found in the process that could be asked.")
    if found.linkage == "static":
        raise NotSupported(
            f"the allocator ({found.kind}) is not asked: it is part of the program or of a library "
            "with other code, so that no moment can be proven to be safe."
        )
    return _asked_of(context, found.kind, modules[found.path], question_for)


def _asked_of(context: Context, kind: str, module: MappedModule, make: Any) -> Question:
    with context.subject.open_program_file(module) as file, context.subject.memory() as memory:
        question: Question = make(kind, ElfFile(file), module, memory, memory.mappings())
        return question


def words_of(look: int, taken_ns: int, asked: Asked) -> list[Any]:
    """The records of an answer; none where it is not understood."""
    common: dict[str, Any] = {
        "look": look,
        "taken_ns": taken_ns,
        "allocator": asked.allocator,
        "stopped_ns": sum(asked.stops_ns),
        "attempts": len(asked.stops_ns),
    }
    told = _TELLERS[asked.allocator](asked)
    if told is None:
        return []
    totals, arenas = told
    words = AllocatorWords(**common, **_possible(totals))
    return [words, *(AllocatorArena(look, number, **_possible(one)) for number, one in arenas)]


def _possible(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures that memory can have: what the process says is its own word."""
    return {
        name: None if value is not None and not 0 <= value < _LARGEST else value
        for name, value in figures.items()
    }


_Told = Optional[tuple[dict[str, Any], list[tuple[int, dict[str, Any]]]]]


def _glibc(asked: Asked) -> _Told:
    from leakcase_collector.attach.malloc_info import parse_malloc_info

    info = parse_malloc_info(asked.text)
    if info is None:
        return None
    free = sum(arena.free_bytes + arena.fast_bytes for arena in info.arenas)
    system = sum(arena.system_bytes for arena in info.arenas) + info.mapped_bytes
    totals = {
        "in_use_bytes": system - free,
        "free_bytes": free,
        "system_bytes": system,
        "mapped_chunks": info.mapped_chunks,
        "mapped_bytes": info.mapped_bytes,
    }
    largest = sorted(enumerate(info.arenas), key=lambda item: -item[1].system_bytes)[:ARENAS_TOLD]
    return totals, [(number, arena._asdict()) for number, arena in sorted(largest)]


def _jemalloc(asked: Asked) -> _Told:
    figures = asked.figures
    if "stats.allocated" not in figures:
        return None
    page = figures.get("arenas.page", 4096)
    names = {
        "in_use_bytes": "allocated", "active_bytes": "active", "metadata_bytes": "metadata",
        "resident_bytes": "resident", "system_bytes": "mapped", "retained_bytes": "retained",
    }  # fmt: skip
    totals: dict[str, Any] = {ours: figures.get(f"stats.{name}") for ours, name in names.items()}
    totals["profiler_built"] = _flag(figures.get("config.prof"))
    totals["profiler_on"] = _flag(figures.get("opt.prof"))
    arenas = []
    for number in range(figures.get("arenas.narenas", 0)):
        one = {
            name: figures[f"stats.arenas.{number}.{name}"]
            for name in ("small.allocated", "large.allocated", "pactive", "pdirty", "retained")
            if f"stats.arenas.{number}.{name}" in figures
        }
        if len(one) < 5:
            break
        arenas.append(
            (
                number,
                {
                    "in_use_bytes": one["small.allocated"] + one["large.allocated"],
                    "active_bytes": one["pactive"] * page,
                    "dirty_bytes": one["pdirty"] * page,
                    "retained_bytes": one["retained"],
                },
            )
        )
    return totals, arenas


def _flag(value: Optional[int]) -> Optional[bool]:
    return None if value is None else bool(value & 0xFF)


def _tcmalloc(asked: Asked) -> _Told:
    figures = asked.figures
    if "generic.current_allocated_bytes" not in figures:
        return None
    caches = sum(
        figures.get(f"tcmalloc.{name}_cache_free_bytes", 0)
        for name in ("central", "transfer", "thread")
    )
    return {
        "in_use_bytes": figures["generic.current_allocated_bytes"],
        "system_bytes": figures.get("generic.heap_size"),
        "free_bytes": figures.get("tcmalloc.pageheap_free_bytes", 0) + caches,
        "cached_bytes": caches,
        "retained_bytes": figures.get("tcmalloc.pageheap_unmapped_bytes"),
    }, []


def _mimalloc(asked: Asked) -> _Told:
    figures = asked.figures
    if "commit" not in figures:
        return None
    return {"system_bytes": figures["commit"], "peak_bytes": figures.get("peak_commit")}, []


_TELLERS = {
    "glibc": _glibc,
    "jemalloc": _jemalloc,
    "tcmalloc": _tcmalloc,
    "mimalloc": _mimalloc,
}
