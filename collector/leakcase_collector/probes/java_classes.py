"""What a JVM says when it is asked: objects by class, and what it allocated natively itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, Optional

from leakcase_bundle.records import ManagedClasses, ManagedNative
from leakcase_bundle.strings import SymbolToken
from leakcase_bundle.vocabulary import is_word
from leakcase_collector.errors import CollectorError, LeftOut, NotSupported
from leakcase_collector.system.clock import NS_PER_MS, monotonic_ns

from .base import Cadence, CaptureOptions, Context, Prediction, Probe

#: Told one by one, largest bytes first.
CLASSES_MAX = 256
_LIBRARY = re.compile(r"/libjvm\.so$")
_HISTOGRAM, _TRACKING = "GC.class_histogram -all", "VM.native_memory summary"
_NOT_TRACKED = "not enabled"
# Measured: a safepoint, and the walk over a page of the heap within it.
_STOP_NS, _PAGE_NS = 20 * NS_PER_MS, 4_000
_CPU_NS = 30 * NS_PER_MS
# The target's text: no part may match the end of a line, nor more digits than any figure has.
_ROW = re.compile(r"^[ \t]*[0-9]+:[ \t]+([0-9]{1,13})[ \t]+([0-9]{1,13})[ \t]+(\S+)", re.MULTILINE)
_PURPOSE = re.compile(
    r"^-[ \t]+(\S.*?) \(reserved=([0-9]{1,13})KB, committed=([0-9]{1,13})KB", re.MULTILINE
)
_PRIMITIVES = {
    "B": "byte", "C": "char", "D": "double", "F": "float", "I": "int", "J": "long", "S": "short",
    "Z": "boolean",
}  # fmt: skip


class ClassCount(NamedTuple):
    """All objects of one class."""

    name: str
    objects: int
    size_bytes: int


class JavaClassesProbe(Probe):
    """A JVM's class histogram, garbage included, and its Native Memory Tracking where it is on."""

    name = "java-classes"
    level = "attach"
    cadence = Cadence.ENDS
    reads = "the JVM's own answers to GC.class_histogram -all and VM.native_memory summary"
    needs = "root, or the target's user; a HotSpot JVM that handles SIGQUIT"
    risk = (
        "the JVM stands still while it counts its objects, and keeps one thread more, for such "
        "questions, from then on; no collection is caused"
    )
    stops_target = True

    def __init__(self) -> None:
        self._limit_seconds = 10.0
        self._is_deaf = False

    def configure(self, options: CaptureOptions) -> None:
        # What is asked waits for a safepoint, and the answer is longer than the pause.
        self._limit_seconds = 8.0 + options.max_pause_ns / 1e9

    def concerns(self, context: Context) -> bool:
        return _is_java(context)

    def predict(self, context: Context) -> Prediction:
        """From the anonymous pages, as if all of them were the Java heap's; nothing else stops."""
        if not _is_java(context):
            return Prediction(cpu_ns=NS_PER_MS)
        pages = context.subject.anonymous_pages()
        return Prediction(cpu_ns=_CPU_NS, stop_ns=_STOP_NS + pages * _PAGE_NS)

    def begin(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns)

    def finish(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns)

    def _take(self, context: Context, taken_ns: int) -> None:
        if self._is_deaf or not _is_java(context):
            return
        try:
            text = self._ask(context, _TRACKING)
            started_ns = monotonic_ns()
            counts = parse_histogram(self._ask(context, _HISTOGRAM))
            context.stopped(monotonic_ns() - started_ns)
        except CollectorError as error:
            context.gap(error, "jvm-attach")
            self._is_deaf = True  # each attempt may cost seconds, and a line in its output
            return
        _write_native(context, taken_ns, text)
        _write_classes(context, taken_ns, counts)

    def _ask(self, context: Context, command: str) -> str:
        # Only here: a capture that may not attach does without sockets and their cost.
        from leakcase_collector.system.jvm_attach import ask_jvm

        return ask_jvm(context.system, context.identity, command, self._limit_seconds)


def _is_java(context: Context) -> bool:
    return any(_LIBRARY.search(module.path) for module in context.subject.program_files())


def _write_native(context: Context, taken_ns: int, text: str) -> None:
    rows = list(parse_tracking(text))
    if rows:
        purposes, reserved, committed = (list(column) for column in zip(*rows))
        context.emit(ManagedNative(taken_ns, purposes, reserved, committed))
    elif _NOT_TRACKED in text:
        context.gap(
            NotSupported(
                "the JVM does not track what it allocates natively: start it with "
                "-XX:NativeMemoryTracking=summary for that."
            ),
            "native-memory-tracking",
        )


def _write_classes(context: Context, taken_ns: int, counts: list[ClassCount]) -> None:
    told: list[tuple[SymbolToken, ClassCount]] = []
    rest: list[ClassCount] = []
    for entry in counts:
        name: Optional[SymbolToken] = context.redactor.symbol(entry.name)
        if name is None or len(told) >= CLASSES_MAX:
            rest.append(entry)
        else:
            told.append((name, entry))
    if counts and not told:
        raise LeftOut("the names of Java's classes were left out, as --no-symbols asks.")
    context.emit(
        ManagedClasses(
            taken_ns,
            "jvm",
            True,
            [name for name, _ in told],
            [entry.objects for _, entry in told],
            [entry.size_bytes for _, entry in told],
            folded_classes=len(rest),
            folded_count=sum(entry.objects for entry in rest),
            folded_bytes=sum(entry.size_bytes for entry in rest),
        )
    )


def parse_histogram(text: str) -> list[ClassCount]:
    """The rows of a class histogram, largest bytes first; one class of two loaders is one row."""
    found: dict[str, tuple[int, int]] = {}
    for count, size, name in _ROW.findall(text):
        key = readable(name)
        before = found.get(key, (0, 0))
        found[key] = (before[0] + int(count), before[1] + int(size))
    rows = [ClassCount(name, count, size) for name, (count, size) in found.items()]
    return sorted(rows, key=lambda row: (-row.size_bytes, row.name))


def readable(name: str) -> str:
    """A class by its name in the language: ``[[Ljava.lang.String;`` is java.lang.String[][]."""
    depth = len(name) - len(name.lstrip("["))
    if not depth:
        return name
    element = name[depth:]
    if element.startswith("L") and element.endswith(";"):
        element = element[1:-1]
    return _PRIMITIVES.get(element, element) + "[]" * depth


def parse_tracking(text: str) -> Iterator[tuple[str, int, int]]:
    """Purpose, reserved and committed bytes, of a summary of Native Memory Tracking."""
    for name, reserved, committed in _PURPOSE.findall(text):
        word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        known = word if is_word("native_purpose", word) else "unknown"
        yield known, int(reserved) * 1024, int(committed) * 1024
