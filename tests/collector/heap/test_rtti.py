"""Type information of damaged and hostile programs: no class, no error, and no end of it."""

from __future__ import annotations

import random
import struct
from typing import Optional

import pytest

from leakcase_collector.errors import NotSupported
from leakcase_collector.heap.rtti import ClassNames, module_ranges
from leakcase_collector.system.memory import MemoryMapping

BASE = 0x7F00_0000_0000
SIZE = 1 << 16
KIND_NAME = b"N10__cxxabiv120__si_class_type_infoE\0"


def mapping(start: int, end: int, path: bytes, flags: str = "r--", inode: int = 7) -> MemoryMapping:
    readable, writable, executable = (flag != "-" for flag in flags)
    return MemoryMapping(
        start, end, readable, writable, executable, True, start - BASE, b"08:01", inode, path
    )


MAPPINGS = [
    mapping(BASE, BASE + SIZE, b"/lib/libfoo.so", "r-x"),
    mapping(BASE + SIZE, BASE + SIZE + 4096, b"", "rw-", inode=0),
]


class Image:
    """A module's memory, of which each part may be in RAM or not."""

    pointer_bytes = 8

    def __init__(self) -> None:
        self.content = bytearray(SIZE)
        self.is_resident = True

    def put(self, offset: int, *words: int) -> int:
        struct.pack_into(f"={len(words)}Q", self.content, offset, *words)
        return BASE + offset

    def put_text(self, offset: int, text: bytes) -> int:
        self.content[offset : offset + len(text)] = text
        return BASE + offset

    def put_class(self, name: bytes, top: int = 0) -> int:
        """Type information of one class, and its table's address."""
        kind = self.put(0x100, 0, self.put_text(0x200, KIND_NAME))
        kind_table = self.put(0x300, 0, kind, 0) + 16
        information = self.put(0x400, kind_table, self.put_text(0x1000, name))
        return self.put(0x500, top & (1 << 64) - 1, information, BASE + 0x10) + 16

    def mappings(self) -> list[MemoryMapping]:
        return MAPPINGS

    def read(self, address: int, size: int) -> bytes:
        if not BASE <= address <= BASE + SIZE - size:
            raise NotSupported("not mapped")
        return bytes(self.content[address - BASE : address - BASE + size])

    def read_into(self, address: int, view: memoryview) -> int:
        raise AssertionError("not used")

    def resident_runs(self, start: int, end: int) -> list[tuple[int, int]]:
        return [(start, end)] if self.is_resident else []

    def read_file(self, part: MemoryMapping, offset: int, size: int) -> Optional[bytes]:
        return bytes(self.content[offset : offset + size]) if part.path else None


def name_of(image: Image, table: int) -> Optional[str]:
    return ClassNames(image, MAPPINGS, image.read_file).name_of(table)


def test_a_class_is_named_from_memory_and_where_pages_are_not_in_ram_from_its_file() -> None:
    image = Image()
    table = image.put_class(b"N4acme7SessionE\0")
    assert name_of(image, table) == "N4acme7SessionE"
    image.is_resident = False
    assert name_of(image, table) == "N4acme7SessionE"


def test_the_star_of_a_name_that_is_an_identity_is_no_part_of_it() -> None:
    image = Image()
    assert name_of(image, image.put_class(b"*N12_GLOBAL__N_16HiddenE\0")) == (
        "N12_GLOBAL__N_16HiddenE"
    )


@pytest.mark.parametrize(
    "name",
    (b"\0", b"password=hunter2\0", b"N4acme\xffE\0", b"PKc\0", b"7Session" + b"a" * 6000, b"7 a\0"),
)
def test_what_is_no_name_of_a_class_is_not_told(name: bytes) -> None:
    image = Image()
    assert name_of(image, image.put_class(name)) is None


def test_a_table_of_a_base_within_another_object_names_no_object_of_its_own() -> None:
    image = Image()
    assert name_of(image, image.put_class(b"7Session\0", top=-16)) is None


def test_what_points_outside_at_itself_or_between_words_is_no_class() -> None:
    image = Image()
    table = image.put_class(b"7Session\0")
    itself = image.put(0x800, 0, BASE + 0x810, BASE + 0x810) + 16
    beyond = image.put(0x900, 0, 1 << 46) + 16
    at_the_end = BASE + SIZE - 8
    for wrong in (0, 8, table + 1, itself, beyond, at_the_end, BASE, BASE + SIZE + 16, 1 << 63):
        assert name_of(image, wrong) is None


def test_no_memory_makes_it_fail() -> None:
    source = random.Random(3)
    for _ in range(5):
        image = Image()
        image.put_class(b"7Session\0")
        for offset in range(0x600, SIZE, 8):
            image.put(offset, source.choice((0, BASE + 8 * source.randrange(SIZE // 8))))
        names = ClassNames(image, MAPPINGS, image.read_file)
        for offset in range(0, SIZE, 8):
            assert names.name_of(BASE + offset) in (None, "7Session")


def test_only_programs_and_libraries_with_their_bss_are_where_classes_may_be() -> None:
    found = module_ranges(
        [
            mapping(0x1000, 0x2000, b"/usr/bin/prog", "r--"),
            mapping(0x2000, 0x3000, b"/usr/bin/prog", "r-x"),
            mapping(0x3000, 0x4000, b"/usr/bin/prog", "rw-"),
            mapping(0x4000, 0x5000, b"", "rw-", inode=0),
            mapping(0x5000, 0x6000, b"", "rw-", inode=0),
            mapping(0x8000, 0x9000, b"[heap]", "rw-", inode=0),
            mapping(0xA000, 0xB000, b"/var/lib/data", "rw-", inode=8),
        ]
    )
    assert found == [(0x1000, 0x5000)]
