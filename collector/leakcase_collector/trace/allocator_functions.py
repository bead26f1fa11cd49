"""Which functions allocate and free, by symbol and by allocator, and what their callers give them.

Sources: malloc(3), posix_memalign(3), mmap(2), C23 7.24.3; jemalloc(3); gperftools' tcmalloc.h;
mimalloc.h; the Itanium C++ ABI's names of operator new and delete.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

#: Which of a call's arguments are read: the numbers of its parameters.
ARGUMENTS = {
    "malloc": (0,),
    "valloc": (0,),
    "pvalloc": (0,),
    "operator-new": (0,),
    "calloc": (0, 1),
    "realloc": (0, 1),
    "reallocarray": (0, 1, 2),
    "memalign": (0, 1),
    "aligned-alloc": (0, 1),
    "posix-memalign": (0, 1, 2),
    "free": (0,),
    "operator-delete": (0,),
    "mmap": (0, 1, 2, 3),
    "munmap": (0, 1),
    "mremap": (0, 1, 2),
    # What is made says itself what it is: nothing is asked of the call.
    "python-new": (),
    "python-free": (0,),
}
#: They yield no block: their return need not be seen.
WITHOUT_RETURN = frozenset({"free", "operator-delete", "munmap", "python-free"})
#: With a null pointer they do nothing.
NULL_IS_NOTHING = frozenset({"free", "operator-delete"})

#: Looked for even where no module that is loaded now names them.
ALWAYS = frozenset(
    "malloc calloc realloc memalign aligned_alloc posix_memalign free "
    "_Znwm _Znam _ZdlPv _ZdaPv _ZdlPvm _ZdaPvm mmap munmap mremap".split()
)

_STANDARD = {
    "malloc": "malloc",
    "calloc": "calloc",
    "realloc": "realloc",
    "reallocarray": "reallocarray",
    "memalign": "memalign",
    "aligned_alloc": "aligned-alloc",
    "posix_memalign": "posix-memalign",
    "valloc": "valloc",
    "pvalloc": "pvalloc",
    "free": "free",
    "free_sized": "free",
    "free_aligned_sized": "free",
    "cfree": "free",
}
#: glibc (malloc/reallocarray.c) and musl (src/malloc/reallocarray.c) call realloc by its public
#: name there: whosever realloc serves the program sees it.
_BY_REALLOC = ("glibc", "musl")
_MAPPINGS = {"mmap": "mmap", "mmap64": "mmap", "munmap": "munmap", "mremap": "mremap"}
_NEW = ("_Znwm", "_Znam", "_ZnwmSt11align_val_t", "_ZnamSt11align_val_t")
_NEW_NOTHROW = tuple(f"{name}RKSt9nothrow_t" for name in _NEW)
_DELETE = tuple(
    f"_Zd{kind}{arguments}"
    for kind in ("lPv", "aPv")
    for arguments in (
        "",
        "m",
        "RKSt9nothrow_t",
        "St11align_val_t",
        "mSt11align_val_t",
        "St11align_val_tRKSt9nothrow_t",
    )
)
#: Beyond the standard ones, by allocator; each also exists under the allocator's prefixes. Only
#: those whose first parameters stand as in the call that they are counted as.
_OWN = {
    "jemalloc": {
        "mallocx": "malloc",
        "rallocx": "realloc",
        "dallocx": "free",
        "sdallocx": "free",
    },
    "tcmalloc": {
        "new": "operator-new",
        "newarray": "operator-new",
        "new_nothrow": "operator-new",
        "newarray_nothrow": "operator-new",
        "delete": "operator-delete",
        "delete_sized": "operator-delete",
        "deletearray": "operator-delete",
        "deletearray_sized": "operator-delete",
    },
    "mimalloc": {
        "zalloc": "malloc",
        "malloc_small": "malloc",
        "zalloc_small": "malloc",
        "malloc_aligned": "malloc",
        "zalloc_aligned": "malloc",
        "calloc_aligned": "calloc",
        "realloc_aligned": "realloc",
        "reallocn": "reallocarray",
        "reallocf": "realloc",
        "new": "operator-new",
        "new_aligned": "operator-new",
        "new_nothrow": "operator-new",
        "free_size": "free",
        "free_size_aligned": "free",
        "free_aligned": "free",
    },
}
_PREFIXES = {"jemalloc": ("je_", "_rjem_"), "tcmalloc": ("tc_",), "mimalloc": ("mi_",)}
#: Names of these that programs see without a prefix.
_UNPREFIXED = ("mallocx", "rallocx", "dallocx", "sdallocx", "reallocf")
_MAY_THROW = frozenset({*_NEW, "tc_new", "tc_newarray", "mi_new", "mi_new_aligned"})


class AllocatorFunction(NamedTuple):
    """A symbol, and the word of the vocabulary ``allocator_call`` that its calls count as."""

    symbol: str
    call: str

    @property
    def may_throw(self) -> bool:
        """operator new without nothrow: std::bad_alloc is how it fails."""
        return self.symbol in _MAY_THROW


def standard_functions(allocator: str) -> Iterator[AllocatorFunction]:
    """Those by which every C program calls the allocator (a word of vocabulary ``allocator``).

    operator new and delete only where they do not call malloc: the C++ library's own do.
    """
    for symbol, call in _STANDARD.items():
        if not (symbol == "reallocarray" and allocator in _BY_REALLOC):
            yield AllocatorFunction(symbol, call)
    if allocator in _OWN:
        for symbol in _NEW + _NEW_NOTHROW:
            yield AllocatorFunction(symbol, "operator-new")
        for symbol in _DELETE:
            yield AllocatorFunction(symbol, "operator-delete")


def own_functions(allocator: str) -> Iterator[AllocatorFunction]:
    """Those by which a program calls just this allocator, whatever malloc is."""
    for symbol, call in _OWN.get(allocator, {}).items():
        if symbol in _UNPREFIXED:
            yield AllocatorFunction(symbol, call)
    for prefix in _PREFIXES.get(allocator, ()):
        for symbol, call in {**_STANDARD, **_OWN[allocator]}.items():
            yield AllocatorFunction(prefix + symbol, call)


def mapping_functions() -> Iterator[AllocatorFunction]:
    """The C library's calls that map memory past the allocator."""
    for symbol, call in _MAPPINGS.items():
        yield AllocatorFunction(symbol, call)
