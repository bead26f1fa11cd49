"""The compiled programs that we bring along, as clang wrote them: an ELF file for each machine.

Sections are as collector/bpf/kernel.h makes them: ``uprobe/NAME`` holds a program, ``maps`` the
definitions that relocations point to, ``license`` the licence.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import NamedTuple, Protocol, cast

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.bpf import MapShape
from leakcase_collector.system.bpf_refusals import with_detail

#: Where `entry_fixed` of alloc.bpf.c has its cookie.
COOKIE_PLACE = 0x6C65616B63617365
_PREFIX = "uprobe/"
_ET_REL_BPF = (1, 247)
_SYMBOLS, _STRINGS, _RELOCATIONS = 2, 3, 9
_LOAD_64 = 0x18
#: BPF_PSEUDO_MAP_FD: the immediate of a 64-bit load is a map's descriptor.
_IS_MAP_FD = 1


class _Loader(Protocol):
    """What all of Python's import loaders that we meet can do (PEP 302)."""

    def get_data(self, path: str) -> bytes: ...


class Program(NamedTuple):
    """Instructions, and which of them load the address of which map."""

    instructions: bytes
    maps: tuple[tuple[int, str], ...]

    def linked(self, descriptors: Mapping[str, int], cookie: int = 0) -> bytes:
        """The instructions with the maps' descriptors, and the cookie where one is asked for."""
        code = bytearray(self.instructions)
        for offset, name in self.maps:
            code[offset + 1] = code[offset + 1] & 0x0F | _IS_MAP_FD << 4
            struct.pack_into("<i", code, offset + 4, descriptors[name])
        for offset in range(0, len(code) - 8, 8):
            low, high = struct.unpack_from("<I4xI", code, offset + 4)
            if code[offset] == _LOAD_64 and low | high << 32 == COOKIE_PLACE:
                struct.pack_into("<I4xI", code, offset + 4, cookie & 0xFFFFFFFF, cookie >> 32)
        return bytes(code)


class BpfObject(NamedTuple):
    programs: dict[str, Program]
    maps: dict[str, MapShape]
    licence: bytes


class _Section(NamedTuple):
    name: str
    type: int
    content: bytes
    link: int
    info: int


def load_object() -> BpfObject:
    """The object for this machine; NotSupported where we bring none."""
    machine = os.uname().machine
    # As pkgutil.get_data does, which works from a zip and in an ELF file too; importing pkgutil or
    # importlib.resources would cost 2 to 4 MB of memory.
    package = os.path.dirname(os.path.dirname(__file__))
    place = os.path.join(package, "_bpf", f"alloc-{machine}.o")
    try:
        content: bytes = cast(_Loader, globals()["__loader__"]).get_data(place)
    except OSError as error:
        raise with_detail(
            NotSupported(
                f"cannot trace on this machine ({machine}): no program for it is brought along. "
                "Do without tracing, or use bpftrace."
            ),
            "bpf-program",
        ) from error
    return parse_object(content)


def parse_object(content: bytes) -> BpfObject:
    """Our own file: no care is taken for damaged ones."""
    if struct.unpack_from("<HH", content, 16) != _ET_REL_BPF:
        raise ValueError("not a relocatable BPF file")
    sections = _sections(content)
    symbols = next(section for section in sections if section.type == _SYMBOLS)
    names = sections[symbols.link].content
    known = [struct.unpack_from("<IBBHQ", symbols.content, at) for at in
             range(0, len(symbols.content), 24)]  # fmt: skip
    maps_index = next(i for i, section in enumerate(sections) if section.name == "maps")
    map_names = {
        number: _string(names, name)
        for number, (name, _, _, index, _) in enumerate(known)
        if index == maps_index and name
    }
    maps = {
        map_names[number]: MapShape(*struct.unpack_from("<5I", sections[maps_index].content, value))
        for number, (*_, value) in enumerate(known)
        if number in map_names
    }
    programs = {}
    for index, section in enumerate(sections):
        if section.type == 1 and section.name.startswith(_PREFIX):
            places = tuple(
                (offset, map_names[info >> 32])
                for relocations in sections
                if relocations.type == _RELOCATIONS and relocations.info == index
                for offset, info in struct.iter_unpack("<QQ", relocations.content)
            )
            programs[section.name[len(_PREFIX) :]] = Program(section.content, places)
    licence = next(section.content for section in sections if section.name == "license")
    return BpfObject(programs, maps, licence.rstrip(b"\0"))


def _sections(content: bytes) -> list[_Section]:
    (table,) = struct.unpack_from("<Q", content, 40)
    entry_bytes, count, names_index = struct.unpack_from("<HHH", content, 58)
    heads = [
        struct.unpack_from("<IIQQQQII", content, table + index * entry_bytes)
        for index in range(count)
    ]
    names = content[heads[names_index][4] :][: heads[names_index][5]]
    return [
        _Section(_string(names, name), kind, content[offset : offset + size], link, info)
        for name, kind, _, _, offset, size, link, info in heads
    ]


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode("ascii")
