"""How code is called, and whose it is: the program's own, or a library's that everybody uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Literal, TypeAlias

from leakcase_analyzer.trace_looks import Frame, Stack

#: own: the program's, or a library's that asked for the block for reasons of its own. common: the
#: C and C++ libraries, the allocator, a language's runtime or interpreter.
Part: TypeAlias = Literal["own", "common"]
#: Module and function.
Named: TypeAlias = tuple[str | None, str]

#: Basenames of modules that allocate for whoever calls them.
_COMMON_MODULES = re.compile(
    r"(?:lib(?:c|m|dl|rt|pthread|util|resolv|ffi|gcc_s|stdc\+\+|c\+\+|c\+\+abi|supc\+\+|atomic|asan"
    r"|jemalloc|tcmalloc\w*|mimalloc\w*|hoard|scudo|python[23]?|python[23]\.\d+\w*|jvm|jli|java"
    r"|node|ruby|ruby-\d\S*|perl|lua\S*|mono\S*|coreclr|clrjit|beam)(?:-[\d.]+)?\.so[\d.]*"
    r"|ld-(?:linux|musl|\d)\S*|libc\.musl\S*|python[23]?(?:\.\d+)?\w*|node|nodejs|java|ruby\S*|perl\S*"
    r"|php\S*|beam\.smp|dotnet|\[vdso\])\Z"
)
_C_LIBRARIES = re.compile(r"(?:libc|libpthread)(?:-[\d.]+)?\.so[\d.]*\Z")
#: Functions of the same kind, in whatever module they were compiled into.
_COMMON_FUNCTIONS = re.compile(
    r"(?:(?:std|__gnu_cxx|__cxxabiv1|core|alloc|hashbrown|runtime|runtime/cgo)(?:::|\.)"
    r"|<&?(?:mut )?(?:dyn )?(?:std|core|alloc)::|<\S+ as (?:std|core|alloc)::"
    r"|(?:_start|__libc_start\w*|start_thread|__?clone3?|clone3?)\Z"
    r"|je_|_rjem_|tcmalloc::|_mi_|mi_(?:heap|page|segment|os|arena|theap)_"
    r"|operator (?:new|delete)|__rust_|__rustc|__rdl_|rust_|_cgo_|crosscall|_PyEval_|PyObject_"
    r"|(?:(?:__libc_|__libc_m|je_|jemalloc_|tc_|tcm|mi_|_mi_|_rjem_je_|__interceptor_|__)?"
    r"(?:malloc|calloc|realloc|reallocarray|memalign|aligned_alloc|posix_memalign|valloc|pvalloc"
    r"|free|strdup|strndup|mallocx|rallocx|sdallocx|mmap|mmap64|mremap|munmap)"
    r"(?:_default|_internal|_hook|_slow\w*|_hard|_small|_large|_huge|_aligned\w*|_generic\w*|zn?)?)\Z"
    r"|(?:_int_malloc|_int_realloc|sysmalloc|imalloc\w*|tcache_alloc\w*|arena_malloc\w*"
    r"|arena_ralloc\w*|large_malloc|large_palloc)\Z)"
)
#: Functions that may only pass a request on, as xmalloc does: so they are called in many a program.
_WRAPPERS = re.compile(
    r"(?:\w*::)*_*(?:[a-zA-Z][a-z0-9]*_+)*"
    r"(?:try|x|z|s|g|p|pn|zt|ap|q|sk|my|safe|do|m|c|re|f|n|k|os|je|u|ut|av|jv|ztry|xz|xc|xm|xre)?"
    r"(?:m|c|re|z|p|pn|x)?(?:alloc|memdup|strdup|strndup|memalign)(?:_?0|_n|_rc|_array|_or_die|_fast"
    r"|_usable|_internal|_block|_large|_small|_impl|_zero\w*)*\Z"
    r"|\w*(?:Malloc|Calloc|Realloc|Memalign)(?:0|Zero|Array)?\Z"
    r"|(?:MemoryContext|AllocSet|Generation|Slab)\w*Alloc\w*\Z|palloc\w*\Z|repalloc\w*\Z"
)
#: Of these it is known that they do, however few callers a case shows.
_KNOWN_WRAPPERS = re.compile(
    r"(?:z|x|zt|ztry|try|s_?|e|_e|pe|safe_|g_|g_try_|g_slice_|ngx_p?n?c?|ap_|apr_|av_|png_|js_|lua_"
    r"|uv_+|xml|sqlite3_|sqlite3Db|CRYPTO_|OPENSSL_|talloc_|mg_|event_mm_|mem_|os_|Memory|GOMP_"
    r"|gomp_|ruby_x|rb_|objspace_x)?"
    r"(?:malloc|calloc|realloc|zalloc|palloc|pnalloc|pcalloc|alloc|memalign|reallocarray|memdup"
    r"|strdup|strndup|Malloc\w*|Calloc\w*|Realloc\w*)(?:_usable|_internal|_or_die|_array|_zero\w*"
    r"|_large|_block|_n|_body|0|2|Raw|NN|Zero)*\Z"
    r"|(?:MemoryContext|AllocSet|Generation|Slab)\w*Alloc\w*\Z|palloc\w*\Z|repalloc\w*\Z"
)
#: Whoever else passes requests on does so for this many callers; with fewer it is where to look.
_LEAST_CALLERS = 3
#: Python's own modules and installed ones; a program's own lie elsewhere.
_COMMON_PYTHON_FILES = re.compile(
    r"(?:/usr(?:/local)?/lib(?:64)?/(?:python|pypy)|frozen:|.*/(?:site|dist)-packages(?:/|\Z))"
)
#: Of libraries that are compiled into whoever uses them.
_COMMON_SOURCES = re.compile(r"/usr/(?:local/)?include/|/usr/lib/gcc|/rustc/|.*/include/c\+\+/")
_COMMON_PYTHON_FUNCTIONS = frozenset(
    """_find_and_load _find_and_load_unlocked _load_unlocked _call_with_frames_removed exec_module
    get_code get_data _compile_bytecode _run_code _run_module_as_main""".split()
)


def basename(path: str) -> str:
    """What stands behind the last slash."""
    return path.rpartition("/")[2] or path


def part_of(frame: Frame) -> Part:
    """Whose code a frame is."""
    if frame.of_interpreter:
        return "common"
    return _part(frame.code, frame.module, frame.function, frame.file)


@lru_cache(maxsize=1 << 14)
def _part(code: str, module: str | None, function: str | None, file: str | None) -> Part:
    if code == "kernel":
        return "common"
    if code == "python":
        known = file is not None and _COMMON_PYTHON_FILES.match(file)
        # What a program compiles itself has a name of its making for a file: a pseudonym.
        is_known = file is not None and not file.startswith("<")
        named = not is_known and function in _COMMON_PYTHON_FUNCTIONS
        return "common" if known or named else "own"
    if module is not None and _COMMON_MODULES.match(basename(module)):
        return "common"
    if function is None:
        return "own" if module is not None or code == "jit" else "common"
    if file is not None and _COMMON_SOURCES.match(file):
        return "common"
    return "common" if _COMMON_FUNCTIONS.match(function) else "own"


@lru_cache(maxsize=1 << 14)
def _may_pass_on(function: str) -> bool:
    return _WRAPPERS.match(function) is not None


def wrappers(stacks: Iterable[Stack]) -> frozenset[Named]:
    """The functions that pass requests on: called like one, and by several callers."""
    callers: dict[Named, set[Named]] = {}
    for stack in stacks:
        for frame, caller in pairwise(stack.frames):
            if frame.function is not None and _may_pass_on(frame.function):
                found = callers.setdefault((frame.module, frame.function), set())
                if len(found) < _LEAST_CALLERS:
                    found.add((caller.module, caller.function or f"{caller.address}"))
    return frozenset(
        name
        for name, found in callers.items()
        if len(found) >= _LEAST_CALLERS or _KNOWN_WRAPPERS.match(name[1])
    )


def responsible(stack: Stack, passing_on: frozenset[Named] = frozenset()) -> Frame | None:
    """The frame that a stack's blocks are named after: the innermost of the program's own.

    One that has a name before one that has none, and those of `passing_on` only where there is no
    other; else the innermost of any code that has a name, else the innermost; None: no frame.
    """
    own = [frame for frame in stack.frames if part_of(frame) == "own"]
    asking = [one for one in own if (one.module, one.function) not in passing_on]
    named = [one for one in _told_apart(asking) if one.function is not None]
    others = [frame for frame in stack.frames if frame.function is not None]
    return next(iter(named or asking or own or others or stack.frames), None)


def _told_apart(asking: Sequence[Frame]) -> Iterator[Frame]:
    """Those that may stand for the innermost: it, its callers within its module, and whoever calls
    that module.

    Code without a name says nothing to anybody, who calls it may; but not a library that the same
    module calls, such as the loop of events that a stripped server spends its life in.
    """
    for at, one in enumerate(asking):
        outside = {further.module for further in asking[at + 1 :]}
        if (
            one.code == "python"
            or one.module == asking[0].module
            or asking[0].module not in outside
        ):
            yield one


def maps_for_itself(stack: Stack, *, has_glibc: bool) -> bool:
    """Whether memory was mapped for one caller: by its own code, or by glibc for one large block.

    Other allocators, and a runtime's own, map for many blocks of anybody's.
    """
    first = next(iter(stack.frames), None)
    if first is None:
        return False
    if first.module is not None and _C_LIBRARIES.match(basename(first.module)):
        return has_glibc
    return part_of(first) == "own" and (has_glibc or first.function is not None)


def readable(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """Frames without those of an interpreter that lie between the functions that it runs."""
    if not any(frame.code == "python" for frame in frames):
        return tuple(frames)
    inner = next(i for i, one in enumerate(frames) if one.code == "python" or part_of(one) == "own")
    return (
        *frames[:inner],
        *(one for one in frames[inner:] if one.code == "python" or part_of(one) == "own"),
    )


def place(frame: Frame) -> str:
    """The function, or where the code lies if it has no name."""
    if frame.function is not None:
        return frame.function
    where = "" if frame.module is None else basename(frame.module)
    if frame.address is not None:
        return f"{where}+{frame.address:#x}" if where else f"{frame.address:#x}"
    if where:
        return where
    return {"jit": "generated code", "kernel": "the kernel"}.get(frame.code, "unknown code")


def whence(frame: Frame) -> str | None:
    """The file and line, else the module; None where that is known no better than `place`."""
    if frame.file is not None:
        return basename(frame.file) + ("" if frame.line is None else f":{frame.line}")
    if frame.module is not None and frame.function is not None:
        return basename(frame.module)
    return None


def in_full(frame: Frame) -> str:
    """A frame in one line: what, and in brackets where."""
    where = whence(frame)
    return place(frame) if where is None else f"{place(frame)} ({where})"
