"""The heap of a runtime with a collector of its own, by the figures that it keeps in memory."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Optional

from leakcase_bundle.records import ManagedHeap
from leakcase_collector.errors import NotPermitted, NotSupported
from leakcase_collector.system.clock import NS_PER_MS
from leakcase_collector.system.elf import ElfFile
from leakcase_collector.system.modules import MappedModule
from leakcase_collector.system.runtime import runtime_of

from .base import Cadence, Context, Prediction, Probe

if TYPE_CHECKING:
    from leakcase_collector.heap.java_heap import JavaPlaces
    from leakcase_collector.heap.pages import ResidentPages
    from leakcase_collector.system.memory import Memory, MemoryMapping

    from .subject import Subject

_LIBRARY = re.compile(r"/lib(jvm|node)\.so[^/]*$")
_WITH_A_COLLECTOR = frozenset({"jvm", "go", "node"})
_CPU_NS = 20 * NS_PER_MS


class _Found(NamedTuple):
    """The runtime, and the file that it is in."""

    kind: str
    module: MappedModule


def _find(subject: Subject) -> Optional[_Found]:
    inode = subject.program_inode()
    for module in subject.program_files():
        is_program = module.inode == inode
        if is_program or _LIBRARY.search(module.path):
            with subject.open_program_file(module) as file:
                found = runtime_of(ElfFile(file), module.path, is_program)
            if found is not None and found.kind in _WITH_A_COLLECTOR:
                return _Found(found.kind, module)
    return None


class ManagedHeapProbe(Probe):
    """How large the heap of a JVM, of Go, or of Node is, how full, and how often collected."""

    name = "managed-heap"
    level = "read-memory"
    cadence = Cadence.PACED
    reads = "the runtime's own counters in /proc/PID/mem: none of its objects"
    needs = "ptrace permission: root, or the target's user where kernel.yama.ptrace_scope is 0"
    risk = "nothing known: nothing stops, and no collection is caused"

    def __init__(self) -> None:
        self._found: Optional[_Found] = None

    def predict(self, context: Context) -> Prediction:
        """Some pages of counters; for the JVM a table of some thousand entries, for Go its data."""
        return Prediction(cpu_ns=_CPU_NS)

    def begin(self, context: Context, taken_ns: int) -> None:
        self._found = _find(context.subject)
        self._take(context, taken_ns)

    def sample(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns)

    def finish(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns)

    def _take(self, context: Context, taken_ns: int) -> None:
        if self._found is None:
            return
        look = {"jvm": _java, "go": _go, "node": _node}[self._found.kind]
        with context.subject.memory() as memory:
            record = look(context, memory, self._found.module, taken_ns)
        context.subject.require_alive()
        if record is not None:
            context.emit(record)


def _java(
    context: Context, memory: Memory, module: MappedModule, taken_ns: int
) -> Optional[ManagedHeap]:
    from leakcase_collector.heap.java_counters import java_counters
    from leakcase_collector.heap.java_heap import resident_bytes
    from leakcase_collector.heap.pages import ResidentPages

    mappings = memory.mappings()
    pages = ResidentPages(memory)
    place, counters = _java_places(context, pages, module, mappings)
    resident = None if place is None else resident_bytes(memory, place, mappings)
    limit = None if place is None else place[1] - place[0]
    try:
        figures = java_counters(pages, mappings, counters)
    except NotSupported as error:
        context.gap(error, "hsperfdata")
        if place is None:
            return None
        return ManagedHeap(
            taken_ns, "jvm", "vm-structs", resident_bytes=resident, limit_bytes=limit
        )
    return ManagedHeap(
        taken_ns,
        "jvm",
        "hsperfdata",
        resident_bytes=resident,
        limit_bytes=limit,
        **figures._asdict(),
    )


def _java_places(
    context: Context, pages: ResidentPages, module: MappedModule, mappings: list[MemoryMapping]
) -> JavaPlaces:
    from leakcase_collector.heap.java_heap import JavaPlaces, java_places

    own = [mapping for mapping in mappings if mapping.inode == module.inode]
    try:
        with context.subject.open_program_file(module) as file:
            return java_places(ElfFile(file), own, pages)
    except (NotSupported, NotPermitted) as error:
        context.gap(error, "elf")
        return JavaPlaces(None, None)


def _go(
    context: Context, memory: Memory, module: MappedModule, taken_ns: int
) -> Optional[ManagedHeap]:
    from leakcase_collector.heap.go_heap import go_heap, resident_bytes

    mappings = memory.mappings()
    figures = go_heap(memory, mappings, module.inode)
    if figures is None:
        context.gap(
            NotSupported(
                "cannot tell how full Go's heap is: its runtime's counters were not found; they "
                "are known from Go 1.19 on. Import net/http/pprof, or print runtime.MemStats."
            ),
            "go-heap-stats",
        )
        return None
    return ManagedHeap(
        taken_ns,
        "go",
        "heap-stats",
        used_bytes=figures.used_bytes,
        committed_bytes=figures.committed_bytes,
        resident_bytes=resident_bytes(memory, mappings),
        metadata_bytes=figures.stack_bytes,
        collections=figures.collections,
    )


def _node(
    context: Context, memory: Memory, module: MappedModule, taken_ns: int
) -> Optional[ManagedHeap]:
    from leakcase_collector.heap.v8_heap import v8_heap

    figures = v8_heap(memory, memory.mappings())
    if figures is None:
        context.gap(
            NotSupported(
                "cannot tell how full V8's heap is: its pages are not of the form known of Node "
                "20. Start it with --inspect and take a heap snapshot there."
            ),
            "v8-pages",
        )
        return None
    return ManagedHeap(
        taken_ns,
        "node",
        "v8-pages",
        used_bytes=figures.used_bytes,
        kept_bytes=figures.kept_bytes,
        committed_bytes=figures.committed_bytes,
        resident_bytes=figures.resident_bytes,
    )
