"""CPython's objects by type, counted from outside: which class it is that piles up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Optional

from leakcase_bundle.records import PythonCensus, PythonTypes
from leakcase_bundle.strings import SymbolToken
from leakcase_collector.errors import LeftOut, NoTime, NotSupported
from leakcase_collector.heap.cpython import Census, TypeCount, count_objects
from leakcase_collector.heap.cpython_runtime import PythonImage, python_image
from leakcase_collector.system.clock import NS_PER_MS, NS_PER_SECOND
from leakcase_collector.system.elf import ElfFile
from leakcase_collector.system.runtime import runtime_of

from .base import Cadence, Context, Prediction, Probe

if TYPE_CHECKING:
    from .subject import Subject

#: Told one by one, largest bytes first.
TYPES_MAX = 256
_LIBRARY = re.compile(r"/lib(python|pypy)[^/]*\.so[^/]*$")
_PYPY = re.compile(r"/libpypy[^/]*$|/pypy[^/]*$")
#: Of anonymous memory, on a 2 GHz-class core; at most what a census allows itself.
_CPU_NS_PER_PAGE = 40_000
_CPU_MAX_NS = 7 * NS_PER_SECOND
_NO_TIME = (
    "Python's small objects were not counted at some look: there are too many of them, or this "
    "host is too busy. What they take is part of the memory that is not explained then. Capture "
    "when the host is less busy."
)


def find_python(subject: Subject) -> Optional[PythonImage]:
    """The CPython in this process, None where there is none.

    NotSupported for a Python whose objects cannot be counted: PyPy, and CPython before 3.7.
    """
    inode = subject.program_inode()
    for module in subject.program_files():
        is_program = module.inode == inode
        if _PYPY.search(module.path):
            raise _other_python("it is PyPy")
        if not (is_program or _LIBRARY.search(module.path)):
            continue
        with subject.open_program_file(module) as file:
            elf = ElfFile(file)
            found = runtime_of(elf, module.path, is_program)
            if found is None or found.kind != "cpython":
                continue
            mappings = [m for m in subject.mappings() if m.inode == module.inode]
            image = python_image(elf, module.path, mappings, found.version)
            if image is None:
                raise _other_python(f"version {found.version or 'unknown'} does not export them")
            return image
    return None


def _other_python(why: str) -> NotSupported:
    return NotSupported(
        f"cannot count the objects of this Python: {why}. CPython 3.8 to 3.14 is covered; "
        "the rest of the capture is not affected."
    )


class PythonTypesProbe(Probe):
    """How many objects of which type there are in a CPython process, and what they take."""

    name = "python-types"
    level = "read-memory"
    cadence = Cadence.PACED
    reads = "headers of Python's objects in /proc/PID/mem; their values never leave the host"
    needs = "ptrace permission: root, or the target's user where kernel.yama.ptrace_scope is 0"
    risk = "nothing known: nothing stops, and pages that are swapped out stay so"

    def __init__(self) -> None:
        self._census = 0

    def concerns(self, context: Context) -> bool:
        return find_python(context.subject) is not None

    def predict(self, context: Context) -> Prediction:
        """From the resident anonymous pages; next to nothing where there is no Python."""
        if find_python(context.subject) is None:
            return Prediction(cpu_ns=5 * NS_PER_MS)
        pages = context.subject.anonymous_pages()
        return Prediction(min(20 * NS_PER_MS + pages * _CPU_NS_PER_PAGE, _CPU_MAX_NS))

    def begin(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns)

    def sample(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns)

    def finish(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns)

    def _take(self, context: Context, taken_ns: int) -> None:
        image = find_python(context.subject)
        if image is None:
            return
        with context.subject.memory() as memory:
            census = count_objects(memory, image)
        context.subject.require_alive()
        context.emit(self._totals(context, census, image, taken_ns))
        if not census.pools_in_time:
            context.gap(NoTime(_NO_TIME), None)
        number, self._census = self._census, self._census + 1
        self._write_types(context, number, census.types)

    def _totals(
        self, context: Context, census: Census, image: PythonImage, taken_ns: int
    ) -> PythonCensus:
        return PythonCensus(
            self._census,
            taken_ns,
            census.tracked_complete,
            census.lost_places,
            version=context.redactor.version(image.version),
            cpu_ns=census.cpu_ns,
            duration_ns=census.duration_ns,
            **(census.tracked._asdict() if census.tracked is not None else {}),
            **(census.pools._asdict() if census.pools is not None else {}),
        )

    def _write_types(self, context: Context, number: int, counts: list[TypeCount]) -> None:
        told: list[tuple[SymbolToken, TypeCount]] = []
        rest: list[TypeCount] = []
        for entry in counts:
            name = context.redactor.symbol(entry.name)
            if name is None or len(told) >= TYPES_MAX:
                rest.append(entry)
            else:
                told.append((name, entry))
        if not told:
            raise LeftOut(
                "the names of Python's types were left out, as --no-symbols asks; without it the "
                "case tells which of them pile up."
            )
        if rest:
            context.loss("types", len(rest))
        context.emit(
            PythonTypes(
                number,
                [name for name, _ in told],
                [entry.source for _, entry in told],
                [entry.objects for _, entry in told],
                [entry.size_bytes for _, entry in told],
                folded_types=len(rest),
                folded_count=sum(entry.objects for entry in rest),
                folded_bytes=sum(entry.size_bytes for entry in rest),
            )
        )
