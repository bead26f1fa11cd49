"""Stacks of allocations: many copies of registers and stack, few true stacks, names for those told.

The kernel's key of a stack tells more stacks apart than there are, as by the depth at which a loop
calls: what is unwound alike is one. Raw copies stay in this file no longer than it takes to unwind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Protocol

from leakcase_bundle.records import CodeFrame, CodeStack
from leakcase_bundle.strings import PathToken
from leakcase_collector.unwind.modules import CodeModule
from leakcase_collector.unwind.unwinder import Frame, Unwinder, UnwoundStack

if TYPE_CHECKING:
    from leakcase_collector.redact import Redactor

#: What a compiler reads.
_SOURCE = re.compile(
    r"\.(?:py|pyw|pyx|pxd|pxi|[cm]?js|jsx|[cm]?ts|tsx|jl|lua|rb|php|java|kts?|scala|clj|groovy|cs|fs)$"
)
#: CPython's names of its own modules (Python/frozen.c), all of letters.
_FROZEN = re.compile(r"<frozen ([A-Za-z0-9_.]{1,64})>\Z")
#: True stacks that are told apart in one capture; a server has some hundreds.
STACKS_MAX = 4096


class Sample(Protocol):
    """What the kernel copied when a block was allocated: registers by their DWARF number."""

    @property
    def key(self) -> int: ...

    @property
    def registers(self) -> Sequence[int]: ...

    @property
    def sp(self) -> int: ...

    @property
    def stack(self) -> bytes: ...


class Place(NamedTuple):
    """A frame of any language, as it is told: equal ones are one record."""

    code: str
    path: Optional[str]
    build_id: Optional[str]
    address: Optional[int]
    function: Optional[str] = None
    file: Optional[str] = None
    line: Optional[int] = None
    #: Whether `address` follows a call, so that the name is that of the byte before it.
    after_call: bool = True


class Namer(Protocol):
    """Who knows the function of an address."""

    def name(self, module: Optional[CodeModule], place: Place) -> Optional[tuple[str, int]]:
        """The function's name, and how many bytes after its start the address is."""
        ...


class Weaver(Protocol):
    """Who puts the frames of an interpreted language where they belong among the native ones."""

    def weave(
        self, frames: Sequence[Place], sample: Any, name_of: Callable[[Place], Optional[str]]
    ) -> list[Place]:
        """All frames, innermost first; `name_of` tells the function of a native one."""
        ...


class Numbers(NamedTuple):
    """Of a stack and of a frame, unlike all others of the case."""

    stack: int = 0
    frame: int = 0


class StackTable:
    """The true stacks by number, and the numbers of the kernel's keys."""

    def __init__(
        self,
        unwinder: Unwinder,
        namer: Namer,
        redactor: Redactor,
        weaver: Optional[Weaver] = None,
        first: Numbers = Numbers(),  # noqa: B008  (immutable)
    ) -> None:
        """`first`: the numbers of the first stack and frame, where others came before."""
        self._first = first
        self._unwinder = unwinder
        self._namer = namer
        self._redactor = redactor
        self._weaver = weaver
        self._numbers: dict[int, int] = {}
        #: As unwound in code that is mapped as it was then.
        self._unwound: dict[UnwoundStack, int] = {}
        self._stacks: dict[tuple[tuple[Place, ...], str], int] = {}
        self._by_number: list[tuple[tuple[Place, ...], str]] = []
        self._places: dict[Place, Place] = {}
        self._modules: dict[tuple[Optional[str], Optional[str]], CodeModule] = {}
        self._told_frames: dict[Place, int] = {}
        self._told: set[int] = set()
        #: Samples that met a full table.
        self.folded = 0

    def learn(self, samples: Iterable[Sample]) -> None:
        """Unwind what is new."""
        for sample in samples:
            if sample.key not in self._numbers:
                number = self._number(sample)
                if number is not None:
                    self._numbers[sample.key] = number

    def _number(self, sample: Sample) -> Optional[int]:
        registers = dict(enumerate(sample.registers))
        unwound = self._unwinder.unwind(registers, sample.sp, sample.stack)
        if self._weaver is None:
            return self._number_of_native(unwound)
        places = self._weaver.weave(self._places_of(unwound), sample, self._function)
        return self._number_of(places, unwound.end)

    def _number_of_native(self, unwound: UnwoundStack) -> Optional[int]:
        """The places are made once: most keys unwind to a stack that is known."""
        known = self._unwound.get(unwound)
        if known is None:
            known = self._number_of(self._places_of(unwound), unwound.end)
            if known is not None and len(self._unwound) < STACKS_MAX:
                self._unwound[unwound] = known
        return known

    def add(self, key: int, unwound: UnwoundStack) -> None:
        """Take a stack that somebody else has unwound."""
        number = self._number_of_native(unwound)
        if number is not None:
            self._numbers[key] = number

    def forget_addresses(self) -> None:
        """Other code is mapped: the same addresses may be other places."""
        self._unwound.clear()

    def _places_of(self, unwound: UnwoundStack) -> list[Place]:
        return [self._place(frame) for frame in self._unwinder.frames(unwound)]

    def _number_of(self, places: Sequence[Place], end: str) -> Optional[int]:
        stack = (tuple(self._places.setdefault(place, place) for place in places), end)
        number = self._stacks.get(stack)
        if number is None:
            if len(self._stacks) >= STACKS_MAX:
                self.folded += 1
                return None
            number = self._stacks[stack] = self._first.stack + len(self._stacks)
            self._by_number.append(stack)
        return number

    def _place(self, frame: Frame) -> Place:
        module = frame.module
        if module is None:
            return Place(frame.code, None, None, frame.address, after_call=frame.after_call)
        self._modules[module.path, module.build_id] = module
        return Place(
            frame.code, module.path, module.build_id, frame.address, after_call=frame.after_call
        )

    def _named(self, place: Place) -> Optional[tuple[str, int]]:
        return self._namer.name(self._modules.get((place.path, place.build_id)), place)

    def _function(self, place: Place) -> Optional[str]:
        named = self._named(place)
        return None if named is None else named[0]

    @property
    def free_numbers(self) -> Numbers:
        """For a table that follows this one in the same case."""
        return Numbers(
            self._first.stack + len(self._by_number), self._first.frame + len(self._told_frames)
        )

    def number(self, key: int) -> Optional[int]:
        """The true stack of a key; None where its copy was lost."""
        return self._numbers.get(key)

    def short(self, numbers: Iterable[int]) -> int:
        """How many of these stacks do not reach their outer end."""
        return sum(
            1 for number in numbers if self._by_number[number - self._first.stack][1] != "root"
        )

    def records(self, numbers: Iterable[int]) -> list[Any]:
        """The records of those stacks that were not told yet, and of their frames."""
        out: list[Any] = []
        for number in sorted(set(numbers) - self._told):
            self._told.add(number)
            places, end = self._by_number[number - self._first.stack]
            frames = [self._frame(place, out) for place in places]
            out.append(CodeStack(number, frames, end))
        return out

    def _frame(self, place: Place, out: list[Any]) -> int:
        known = self._told_frames.get(place)
        if known is not None:
            return known
        number = self._told_frames[place] = self._first.frame + len(self._told_frames)
        redactor = self._redactor
        function, offset = place.function, None
        if function is None:
            named = self._named(place)
            function, offset = named if named is not None else (None, None)
        symbol = None if function is None else redactor.symbol(function)
        out.append(
            CodeFrame(
                number,
                place.code,
                None if place.path is None else redactor.path(place.path, is_module=True),
                redactor.build_id(place.build_id),
                # An address outside of all files is only of use while the process lives.
                place.address if place.path is not None else None,
                symbol,
                None if symbol is None else offset,
                None if place.file is None else _source(place.file, redactor),
                place.line,
            )
        )
        return number


def _source(file: str, redactor: Redactor) -> PathToken:
    """A source file's own name stays, as a module's does; of what is none, nothing: a program may
    compile text under any name. Modules within the interpreter are `frozen:os`."""
    frozen = _FROZEN.match(file)
    if frozen:
        return redactor.path(f"frozen:{frozen[1]}", is_module=True)
    return redactor.path(file, is_module=_SOURCE.search(file) is not None)


def sums(keyed: Mapping[int, Sequence[int]], table: StackTable) -> tuple[dict[int, list[int]], int]:
    """Figures of keys added up by true stack; and the first figure of keys that have no stack."""
    found: dict[int, list[int]] = {}
    lost = 0
    for key, figures in keyed.items():
        number = table.number(key)
        if number is None:
            lost += figures[0]
            continue
        total = found.setdefault(number, [0] * len(figures))
        for place, figure in enumerate(figures):
            total[place] += figure
    return found, lost
