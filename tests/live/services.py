"""HTTP services in Java, JavaScript and Go, of which some forget what they keep.

Each has a bound of its own for what it may take, and ends by itself.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.live.processes import (
    HERE,
    START_SECONDS,
    Serving,
    client,
    find_program,
    free_port,
    serving,
    started,
    wait_for,
)

REQUESTS_PER_SECOND = 97
BOUND_MIB = 256
SOURCES = HERE / "runtimes"


@contextmanager
def java(folder: Path, seconds: float, *, forgets: str = "nothing") -> Iterator[Serving]:
    """A JVM; `forgets`: nothing, objects or native."""
    _build([find_program("javac"), "-d", folder, SOURCES / "Service.java"])
    limits = [f"-Xmx{BOUND_MIB}m", f"-XX:MaxDirectMemorySize={BOUND_MIB}m"]
    options = [*limits, "-XX:NativeMemoryTracking=summary", "-cp", folder, "Service"]
    with _served([find_program("java"), *options], forgets, folder, seconds) as one:
        yield one


@contextmanager
def node(folder: Path, seconds: float, *, forgets: str = "nothing") -> Iterator[Serving]:
    """Node; `forgets`: nothing or objects."""
    command = [find_program("node"), f"--max-old-space-size={BOUND_MIB}", SOURCES / "service.js"]
    with _served(command, forgets, folder, seconds) as one:
        yield one


@contextmanager
def go(folder: Path, seconds: float, *, forgets: str = "nothing") -> Iterator[Serving]:
    """A stripped program without a C library; `forgets`: nothing or objects."""
    program = folder / "service"
    flags = ["-ldflags", "-s -w", "-o", program]
    # Kept for the next time: the first build compiles Go's library.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leakcase-tests-go"
    _build(
        [find_program("go"), "build", *flags, SOURCES / "service.go"],
        {"CGO_ENABLED": "0", "GO111MODULE": "off", "GOCACHE": str(cache)},
    )
    with _served([program], forgets, folder, seconds) as one:
        yield one


def _build(command: Sequence[Any], settings: dict[str, str] | None = None) -> None:
    subprocess.run(
        [*map(str, command)],
        env={**os.environ, **(settings or {})},
        check=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


@contextmanager
def _served(
    command: Sequence[Any], forgets: str, folder: Path, seconds: float
) -> Iterator[Serving]:
    port = free_port()
    with ExitStack() as stack:
        whole = [*command, port, forgets]
        stack.enter_context(started(whole, folder, seconds + START_SECONDS, as_nobody=False))
        pid = wait_for(_asking(port))
        load = stack.enter_context(client("orders", port, REQUESTS_PER_SECOND, seconds))
        yield serving(pid, _asking(port), load)


def _asking(port: int) -> Callable[[], int]:
    def answering_pid() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/")
        return int(json.load(connection.getresponse())["pid"])

    return answering_pid
