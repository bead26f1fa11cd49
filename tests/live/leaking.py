"""Programs of many languages whose native code forgets what it allocates, built and started.

Each answers a line by how much it has done so far, and ends with its standard input.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.live.keeping import OPTIMIZED, Keeping, running
from tests.live.processes import HERE, CannotServe, find_program

SOURCES = HERE / "native" / "leaks"
SYSTEM_PYTHON = "/usr/bin/python3"


def _run(*command: str | Path, **settings: str) -> str:
    return subprocess.run(
        command, env={**os.environ, **settings}, check=True, timeout=120, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    ).stdout  # fmt: skip


def _library(folder: Path, source: Path, name: str, *headers: Path | str) -> Path:
    """Shared, without frame pointers, as distributions build them."""
    if not all(Path(header).exists() for header in headers):
        raise CannotServe(f"there are no headers at {headers[0]}")
    library = folder / name
    includes = [f"-I{header}" for header in headers]
    _run(find_program("cc"), *OPTIMIZED, "-shared", "-fPIC", *includes, "-o", library, source)
    return library


@contextmanager
def node(folder: Path) -> Iterator[Keeping]:
    """Node.js with an addon."""
    addon = _library(folder, SOURCES / "addon.c", "addon.node")
    with running([find_program("node"), SOURCES / "app.js", addon]) as one:
        yield one


@contextmanager
def java(folder: Path) -> Iterator[Keeping]:
    """A JVM with a library by JNI."""
    compiler = find_program("javac")
    headers = Path(compiler).resolve().parents[1] / "include"
    library = _library(folder, SOURCES / "jni.c", "libleak.so", headers, headers / "linux")
    _run(compiler, "-d", folder, SOURCES / "Leak.java")
    with running([find_program("java"), "-Xmx64m", "-cp", folder, "Leak", library]) as one:
        yield one


@contextmanager
def rust(folder: Path) -> Iterator[Keeping]:
    program = folder / "leak"
    _run(find_program("rustc"), "-O", "-o", program, SOURCES / "leak.rs")
    with running([program]) as one:
        yield one


@contextmanager
def go(folder: Path, *, with_c: bool) -> Iterator[Keeping]:
    program = folder / "leak"
    # Kept for the next time: the first build compiles Go's library.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leakcase-tests-go"
    settings = {"CGO_ENABLED": str(int(with_c)), "GO111MODULE": "off", "GOCACHE": str(cache)}
    source = SOURCES / ("cgo.go" if with_c else "pure.go")
    _run(find_program("go"), "build", "-o", program, source, **settings)
    with running([program]) as one:
        yield one


@contextmanager
def python(folder: Path, *, way: str) -> Iterator[Keeping]:
    """The distribution's own, which is stripped; `way`: list, cache or extension."""
    if not Path(SYSTEM_PYTHON).exists():
        raise CannotServe(f"there is no {SYSTEM_PYTHON}")
    arguments: list[Any] = [way]
    if way == "extension":
        asked = "import sysconfig; print(sysconfig.get_path('include'), end='')"
        headers = _run(SYSTEM_PYTHON, "-c", asked)
        _library(folder, HERE / "python_keep.c", "python_keep.so", headers)
        arguments.append(folder)
    with running([SYSTEM_PYTHON, "-I", SOURCES / "keep.py", *arguments]) as one:
        yield one
