"""What the heap's blocks are: C++ objects by class, text, zeros, pointers; contents stay here."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Optional

from leakcase_bundle.records import HeapClasses, HeapLabels
from leakcase_bundle.strings import SymbolToken
from leakcase_collector.errors import LeftOut, NotPermitted, NotSupported
from leakcase_collector.system.clock import NS_PER_MS, NS_PER_SECOND, monotonic_ns

from .base import Cadence, Context, Prediction, Probe

if TYPE_CHECKING:
    from leakcase_collector.heap.census import Budget
    from leakcase_collector.heap.objects import ClassCount, LabelCount, Objects
    from leakcase_collector.system.files import TargetFile
    from leakcase_collector.system.memory import Memory, MemoryMapping

    from .subject import Subject

#: Told one by one, most objects first.
CLASSES_MAX = 256
_WALL_LIMIT_NS = 10 * NS_PER_SECOND
_BYTES_LIMIT = 64 << 30
#: Of memory without known blocks, which is looked at word by word; beyond it a sample is.
_WORDS_LIMIT_BYTES = {"native": 2 << 30, "python": 128 << 20}
# Measured on a 2 GHz-class core: the sample's contents, and the walk over a page by each twin.
_START_CPU_NS = 100 * NS_PER_MS
_PAGE_CPU_NS = {"native": 3_000, "python": 35_000}


class HeapLabelsProbe(Probe):
    """What the blocks in use are: C++ classes counted, and a sample labelled by its contents."""

    name = "heap-labels"
    level = "read-memory"
    cadence = Cadence.ONCE
    reads = (
        "the first words of malloc's blocks and the contents of some, in /proc/PID/mem; only "
        "counts and the names of C++ classes are kept"
    )
    needs = "ptrace permission: root, or the target's user where kernel.yama.ptrace_scope is 0"
    risk = "nothing known: nothing stops, and pages that are swapped out stay so"

    def __init__(self) -> None:
        self._look = 0

    def predict(self, context: Context) -> Prediction:
        """From the resident anonymous pages, as if all of them were the heap's."""
        pages = context.subject.anonymous_pages()
        return Prediction(min(_START_CPU_NS + pages * _PAGE_CPU_NS[_method()], _WALL_LIMIT_NS))

    def begin(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns)

    def finish(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns)

    def _take(self, context: Context, taken_ns: int) -> None:
        # Only here: a capture that may not read memory does without ctypes and its cost.
        from leakcase_collector.heap.census import Budget

        budget = Budget(_BYTES_LIMIT, _WALL_LIMIT_NS)
        started_ns = monotonic_ns()
        found = _look(context, budget)
        if found is None:
            return
        context.subject.require_alive()
        cost = (budget.read_bytes, monotonic_ns() - started_ns)
        number, self._look = self._look, self._look + 1
        if found.labels is not None:
            context.emit(labels_record(number, taken_ns, found.labels, _method(), *cost))
        _write_classes(context, number, taken_ns, found, cost)


def _look(context: Context, budget: Budget) -> Optional[Objects]:
    """What was found, or None and a gap that says which of the reasons there is none."""
    from leakcase_collector.heap.arenas import HeapUnsound
    from leakcase_collector.heap.census import HeapInconsistent

    try:
        opened = context.subject.memory()
    except (NotPermitted, NotSupported) as error:
        context.gap(error, "mem")
        return None
    files = ModuleFiles(context.subject)
    try:
        with opened as memory:
            return _objects(memory, budget, files)
    except (HeapUnsound, HeapInconsistent) as error:
        context.gap(error, error.gap_detail)
        return None
    finally:
        files.close()


def _objects(memory: Memory, budget: Budget, files: ModuleFiles) -> Objects:
    """By blocks under glibc's malloc, by words under another one."""
    from leakcase_collector.heap.arenas import HeapNotFound
    from leakcase_collector.heap.objects import look_at_words, look_into_blocks
    from leakcase_collector.heap.picks import best_pick
    from leakcase_collector.heap.rtti import ClassNames
    from leakcase_collector.heap.steps import best_step

    mappings = memory.mappings()
    names = ClassNames(memory, mappings, files.read)
    new_pick = partial(best_pick, names.ranges)
    try:
        return look_into_blocks(memory, budget, best_step()[1], new_pick, names)
    except HeapNotFound:
        limit_bytes = _WORDS_LIMIT_BYTES[_method()]
        return look_at_words(memory, budget, new_pick(), names, mappings, limit_bytes)


def _method() -> str:
    from leakcase_collector.heap.steps import best_step

    return best_step()[0]


class ModuleFiles:
    """The target's programs and libraries, for what of them is not in RAM."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._open: dict[int, Optional[TargetFile]] = {}

    def read(self, mapping: MemoryMapping, offset: int, size: int) -> Optional[bytes]:
        """`size` bytes of a mapping's file; None where it cannot be had."""
        if mapping.inode not in self._open:
            self._open[mapping.inode] = self._opened(mapping.inode)
        file = self._open[mapping.inode]
        return None if file is None else file.read_at(offset, size)

    def _opened(self, inode: int) -> Optional[TargetFile]:
        for module in self._subject.program_files():
            if module.inode == inode:
                try:
                    return self._subject.open_program_file(module)
                except (NotPermitted, NotSupported):
                    return None
        return None

    def close(self) -> None:
        for file in self._open.values():
            if file is not None:
                file.close()


def labels_record(
    number: int,
    taken_ns: int,
    labels: list[LabelCount],
    method: str,
    read_bytes: Optional[int],
    duration_ns: Optional[int],
) -> HeapLabels:
    """The labels of each class of size."""

    def column(label: str) -> list[int]:
        return [one.labels[label] for one in labels]

    return HeapLabels(
        number,
        taken_ns,
        [one.class_bytes for one in labels],
        [one.chunks for one in labels],
        [one.size_bytes for one in labels],
        [one.sampled for one in labels],
        object_chunks=column("object"),
        text_chunks=column("text"),
        pointer_chunks=column("pointer"),
        entropy_chunks=column("entropy"),
        zero_chunks=column("zero"),
        method=method,
        read_bytes=read_bytes,
        duration_ns=duration_ns,
    )


def _write_classes(
    context: Context, number: int, taken_ns: int, found: Objects, cost: tuple[int, int]
) -> None:
    told: list[tuple[SymbolToken, ClassCount]] = []
    rest: list[ClassCount] = []
    for entry in found.classes:
        name = context.redactor.symbol(entry.name)
        if name is None or len(told) >= CLASSES_MAX:
            rest.append(entry)
        else:
            told.append((name, entry))
    if rest and not told:
        raise LeftOut(
            "the names of C++ classes were left out, as --no-symbols asks; without it the case "
            "tells which of them pile up."
        )
    if rest:
        context.loss("types", len(rest))
    has_blocks = found.labels is not None
    context.emit(
        HeapClasses(
            number,
            taken_ns,
            "blocks" if has_blocks else "words",
            found.exact,
            [name for name, _ in told],
            [entry.objects for _, entry in told],
            [entry.class_bytes for _, entry in told] if has_blocks else None,
            [entry.size_bytes for _, entry in told] if has_blocks else None,
            folded_names=len(rest),
            folded_count=sum(entry.objects for entry in rest),
            read_bytes=cost[0],
            duration_ns=cost[1],
        )
    )
