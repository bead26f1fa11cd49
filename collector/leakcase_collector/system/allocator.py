"""Which memory allocator a process uses: whose malloc its calls reach, and which others are there.

`allocator_facts` reads one module's file, `allocators` judges all of them together, as the dynamic
loader would: the first module in its search order that defines malloc serves every caller
(ld.so(8), LD_PRELOAD; System V gABI, "Shared Object Dependencies").
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple, TypeVar

from leakcase_collector.system.elf import ElfFile
from leakcase_collector.system.elf_strings import find_strings, search_strings
from leakcase_collector.system.elf_symbols import defined_dynamic_symbols, defined_static_symbols
from leakcase_collector.system.modules import MappedModule

# Names that only one allocator defines; je_ is jemalloc's own prefix, _rjem_ that of Rust's crate.
_DYNAMIC = {
    "mallctl": "jemalloc",
    "je_mallctl": "jemalloc",
    "_rjem_mallctl": "jemalloc",
    "tc_malloc": "tcmalloc",
    "TCMallocInternalMalloc": "tcmalloc",
    "mi_malloc": "mimalloc",
    "gnu_get_libc_version": "glibc",
    "__dls3": "musl",
}
# Linked in statically: local names too. musl: mallocng, its old malloc, and malloc before 1.2.
_STATIC = {
    **{name: kind for name, kind in _DYNAMIC.items() if kind not in ("glibc", "musl")},
    "je_malloc": "jemalloc",
    "_rjem_malloc": "jemalloc",
    "_int_malloc": "glibc",
    "__libc_malloc_impl": "musl",
    "__malloc_donate": "musl",
    "__expand_heap": "musl",
}
# Strings that survive strip: messages, and musl's table of printf prefixes (src/stdio/vfprintf.c).
_STRINGS = {
    b"<jemalloc>: ": "jemalloc",
    b"TCMALLOC_": "tcmalloc",
    b"mimalloc: error": "mimalloc",
    b"malloc(): corrupted top size": "glibc",
    b"malloc(): memory corruption": "glibc",
    b"-0X+0X 0X-0x+0x 0x": "musl",
}
#: A C library's own malloc yields to another that is linked into the same file.
_PRECEDENCE = ("jemalloc", "tcmalloc", "mimalloc", "glibc", "musl")
_VERSIONS = {
    "glibc": re.compile(rb"GNU C Library \([^)\n]{1,80}\) \w+ release version (\d+\.\d+)"),
    "musl": re.compile(rb"\0(\d\.\d\.\d{1,2})\0"),
    "jemalloc": re.compile(rb"\0(\d\.\d\.\d{1,2})-\d+-g[0-9a-f]{8,40}\0"),
    "tcmalloc": re.compile(rb"gperftools (\d+\.\d+(?:\.\d+)?)"),
}
_LIBRARY_VERSION = {"mimalloc": re.compile(r"/libmimalloc[^/]*\.so\.(\d+\.\d+)$")}
_LOADER = re.compile(r"/ld(-[^/]*|64)\.so[^/]*$|/ld-\d[^/]*\.so$")


_Name = TypeVar("_Name", str, bytes)


class ModuleFacts(NamedTuple):
    """What one module says about allocators."""

    module: MappedModule
    is_program: bool
    soname: str | None
    needed: tuple[str, ...]
    defines_malloc: bool
    kind: str | None
    evidence: str | None
    version: str | None


class FoundAllocator(NamedTuple):
    """An allocator in the process; `is_effective` marks the one that malloc() reaches.

    `kind`: glibc, musl, jemalloc, tcmalloc, mimalloc, or other (a malloc that we do not know).
    `linkage`: ``shared``, ``static`` (inside the program or library `path`) or ``preloaded``.
    `evidence`: ``library``, ``dynamic-symbol``, ``symbol`` or ``banner`` (a string of its code).
    A static one that is not effective serves its own module under names of its own.
    """

    kind: str
    linkage: str
    is_effective: bool
    evidence: str
    version: str | None
    path: str


def allocator_facts(elf: ElfFile, module: MappedModule, is_program: bool) -> ModuleFacts:
    """What the file of `module` says. Constant data is searched only where symbols are silent."""
    is_static = is_program and elf.is_static
    defines_malloc = bool(defined_dynamic_symbols(elf, ("malloc",)))
    kind = _best(defined_dynamic_symbols(elf, _DYNAMIC), _DYNAMIC)
    is_loader = not is_program and elf.soname and _LOADER.search(module.path)
    if is_loader and kind != "musl":
        # glibc's loader had a malloc of its own for start-up until 2.31: nobody else reaches it.
        # musl's loader is its C library, and in Alpine Linux it has a soname as well.
        defines_malloc = False
    evidence = "dynamic-symbol" if is_program or not defines_malloc else "library"
    if kind is None and is_program and not elf.is_stripped:
        found = defined_static_symbols(elf, (*_STATIC, "malloc")).found
        kind, evidence = _best(found - {"malloc"}, _STATIC), "symbol"
        defines_malloc = defines_malloc or (is_static and "malloc" in found)
    if kind is None and (is_program or defines_malloc) and elf.is_stripped:
        kind, evidence = _best(find_strings(elf, _STRINGS), _STRINGS), "banner"
    return ModuleFacts(
        module,
        is_program,
        elf.soname,
        elf.needed,
        # A static program's allocator is the only one that its calls can reach. Go has none.
        defines_malloc or (is_static and kind is not None),
        kind,
        evidence if kind else None,
        _version(elf, kind, module.path),
    )


def _best(names: Collection[_Name], kinds: dict[_Name, str]) -> str | None:
    found = {kinds[name] for name in names}
    return next((kind for kind in _PRECEDENCE if kind in found), None)


def _version(elf: ElfFile, kind: str | None, path: str) -> str | None:
    if kind in _VERSIONS:
        return search_strings(elf, _VERSIONS[kind])
    if kind in _LIBRARY_VERSION:
        match = _LIBRARY_VERSION[kind].search(path)
        return match.group(1) if match else None
    return None


def allocators(facts: Sequence[ModuleFacts], preloaded: Sequence[str] = ()) -> list[FoundAllocator]:
    """The allocators of a process, the effective one first.

    `preloaded`: what LD_PRELOAD names, paths or bare names, where that is known. A Go program and
    others that have no malloc yield an empty list.
    """
    order, preloads = _search_order(facts, preloaded)
    effective = next((fact for fact in order if fact.defines_malloc), None)
    found = []
    for fact in order + [fact for fact in facts if fact not in order]:
        if fact is not effective and fact.kind is None:
            continue
        found.append(
            FoundAllocator(
                fact.kind or "other",
                _linkage(fact, fact in preloads),
                fact is effective,
                fact.evidence or "dynamic-symbol",
                fact.version,
                fact.module.path,
            )
        )
    return sorted(found, key=lambda allocator: not allocator.is_effective)


def search_order(facts: Sequence[ModuleFacts], preloaded: Sequence[str] = ()) -> list[ModuleFacts]:
    """The modules in the order in which the loader looks up a name that a caller uses.

    What was loaded later by dlopen, and nothing else needs, is not among them.
    """
    return _search_order(facts, preloaded)[0]


def _linkage(fact: ModuleFacts, is_preloaded: bool) -> str:
    if fact.is_program or not fact.defines_malloc:
        return "static"
    return "preloaded" if is_preloaded else "shared"


def _search_order(
    facts: Sequence[ModuleFacts], preloaded: Sequence[str]
) -> tuple[list[ModuleFacts], list[ModuleFacts]]:
    """The loader's global search order, and which of it came by preloading.

    The program, preloaded libraries, then what those need, breadth first; libraries opened later
    (dlopen) are not in it, unless they are needed as well.
    """
    by_name: dict[str, ModuleFacts] = {}
    for fact in facts:
        by_name.setdefault(fact.module.path.rpartition("/")[2], fact)
        by_name.setdefault(fact.soname or "", fact)
    program = [fact for fact in facts if fact.is_program]
    named = [by_name.get(name.rpartition("/")[2]) for name in preloaded]
    preloads = [fact for fact in named if fact is not None]
    order = _breadth_first(program + preloads, by_name)
    preloads += _unasked(facts, order)
    return _breadth_first(program + preloads, by_name), preloads


def _breadth_first(
    roots: Sequence[ModuleFacts], by_name: dict[str, ModuleFacts]
) -> list[ModuleFacts]:
    order = list(dict.fromkeys(roots))
    seen = set(order)
    for fact in order:  # grows while it is walked
        for name in fact.needed:
            other = by_name.get(name)
            if other is not None and other not in seen:
                seen.add(other)
                order.append(other)
    return order


def _unasked(facts: Sequence[ModuleFacts], order: Sequence[ModuleFacts]) -> list[ModuleFacts]:
    """Those libraries with a malloc that no mapped module needs: preloaded, though nobody says so.

    The environment may hide LD_PRELOAD (overwritten by the program, or /etc/ld.so.preload did it).
    A library opened by name with dlopen looks the same, but nobody opens an allocator so. Addresses
    do not tell: since Linux 6.7 large mappings are aligned and later ones fill the gaps.
    """
    needed = {name for fact in facts for name in fact.needed}
    return [
        fact
        for fact in facts
        if fact.defines_malloc
        and fact not in order
        and not needed & {fact.soname, fact.module.path.rpartition("/")[2]}
    ]
