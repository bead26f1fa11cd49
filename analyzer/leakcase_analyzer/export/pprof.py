"""A profile for pprof: its protocol buffer, written by hand (profile.proto of google/pprof).

What is needed of protocol buffers is little: numbers as varints, and everything else as bytes with
their length in front (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence

from leakcase_analyzer.code_names import basename, place
from leakcase_analyzer.export.weighted import Weighted
from leakcase_analyzer.trace_looks import UNKNOWN_FRAME, Frame

#: As Go's heap profiles call them, so that every viewer knows them; the last is shown at first.
SAMPLE_TYPES = (
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
)
COMMENT = "leakcase: inuse is what stayed of the blocks that were followed"
_LARGEST = (1 << 63) - 1


def pprof_bytes(stacks: Sequence[Weighted], wall_ns: int) -> bytes:
    """The profile, compressed, and the same bytes for the same case."""
    return gzip.compress(_Profile().encode(stacks, wall_ns), mtime=0)


class _Profile:
    """Numbers strings, functions, modules and frames while samples are written."""

    def __init__(self) -> None:
        self._strings = {"": 0}
        self._functions: dict[tuple[int, int, int], int] = {}
        self._modules: dict[tuple[int, int], int] = {}
        self._frames: dict[Frame, int] = {}
        self._locations: list[bytes] = []

    def encode(self, stacks: Sequence[Weighted], wall_ns: int) -> bytes:
        """profile.proto's Profile."""
        types = b"".join(self._value_type(1, *one) for one in SAMPLE_TYPES)
        samples = b"".join(_field(2, self._sample(one)) for one in stacks)
        comment, shown = self._string(COMMENT), self._string(SAMPLE_TYPES[-1][0])
        period = self._value_type(11, "space", "bytes")
        return b"".join(
            (
                types,
                samples,
                *(
                    _field(3, _numbers((1, number), (5, name), (6, build), (7, 1)))
                    for (name, build), number in self._modules.items()
                ),
                *(_field(4, one) for one in self._locations),
                *(
                    _field(5, _numbers((1, number), (2, name), (3, symbol), (4, file)))
                    for (name, symbol, file), number in self._functions.items()
                ),
                *(_field(6, text.encode("utf-8", "replace")) for text in self._strings),
                _numbers((9, min(max(0, wall_ns), _LARGEST))),
                period,
                _numbers((12, 1), (13, comment), (14, shown)),
            )
        )

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _value_type(self, field: int, kind: str, unit: str) -> bytes:
        return _field(field, _numbers((1, self._string(kind)), (2, self._string(unit))))

    def _sample(self, one: Weighted) -> bytes:
        places = [self._location(frame) for frame in one.frames or (UNKNOWN_FRAME,)]
        figures = (one.made_blocks, one.made_bytes, one.stayed_blocks, one.stayed_bytes)
        values = [min(figure, _LARGEST) for figure in figures]
        return _field(1, _packed(places)) + _field(2, _packed(values))

    def _location(self, frame: Frame) -> int:
        if frame in self._frames:
            return self._frames[frame]
        number = self._frames[frame] = len(self._frames) + 1
        line = _numbers((1, self._function(frame)), (2, frame.line or 0))
        figures = _numbers((1, number), (2, self._module(frame)), (3, frame.address or 0))
        self._locations.append(figures + _field(4, line))
        return number

    def _function(self, frame: Frame) -> int:
        name = self._string(place(frame))
        file = self._string(frame.file or "")
        key = (name, self._string(frame.symbol or place(frame)), file)
        return self._functions.setdefault(key, len(self._functions) + 1)

    def _module(self, frame: Frame) -> int:
        if frame.module is None:
            return 0
        key = (self._string(basename(frame.module)), self._string(frame.build_id or ""))
        return self._modules.setdefault(key, len(self._modules) + 1)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _numbers(*fields: tuple[int, int]) -> bytes:
    """Fields that are numbers; 0 is what a missing one is, and is not written."""
    return b"".join(_varint(field << 3) + _varint(number) for field, number in fields if number)


def _packed(numbers: Iterable[int]) -> bytes:
    return b"".join(map(_varint, numbers))


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content
