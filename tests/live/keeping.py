"""A small program that forgets records, native/keeps.c, built and started in many ways."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.live.another_user import as_nobody
from tests.live.processes import HERE, CannotServe, children, find_program

SOURCE = HERE / "native" / "keeps.c"
OPTIMIZED = ("-O2", "-fomit-frame-pointer")
#: Linux' way to have one process looked at by no other (unshare(1)).
APART = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")


class Keeping:
    """The running program."""

    def __init__(self, process: subprocess.Popen[str], pid: int) -> None:
        self._process = process
        self.pid = pid

    def kept(self) -> int:
        """How many records it has, every one of them whole; else it ends, and this fails."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


Start = Callable[[Path], Any]


def built(folder: Path, *options: str, compiler: str = "gcc", strip: bool = False) -> Path:
    """The program's path. Raises CannotServe where the compiler is not here."""
    program = folder / "keeps"
    command = [find_program(compiler), *OPTIMIZED, *options, "-o", program, SOURCE]
    subprocess.run(command, check=True, timeout=60)
    if strip:
        subprocess.run(["strip", program], check=True)
    return program


@contextmanager
def running(command: Sequence[str | Path], *, below: int = 0, **options: Any) -> Iterator[Keeping]:
    """`below`: by how many processes that only wait for it the program is held."""
    with subprocess.Popen(
        ["timeout", "--foreground", "--kill-after=1", "120", *map(str, command)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            pid = process.pid
            for _ in range(below + 1):
                (pid,) = children(pid)
            yield Keeping(process, pid)
        finally:
            assert process.stdin is not None
            process.stdin.close()  # at which it ends
            _ended(process)


def _ended(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.terminate()  # timeout(1) passes it on
        process.wait(timeout=10)


@contextmanager
def plain(folder: Path) -> Iterator[Keeping]:
    with running([built(folder)]) as one:
        yield one


@contextmanager
def of_nobody(folder: Path) -> Iterator[Keeping]:
    with running([built(folder)], **as_nobody()) as one:
        yield one


@contextmanager
def private(folder: Path) -> Iterator[Keeping]:
    """That no unprivileged process may look into, not even its own user's."""
    with running([built(folder), "private"]) as one:
        yield one


@contextmanager
def confined(folder: Path) -> Iterator[Keeping]:
    """That any system call but its own few ends."""
    with running([built(folder), "confined"]) as one:
        yield one


@contextmanager
def with_privileges(folder: Path) -> Iterator[Keeping]:
    """Root's by its file, started by nobody."""
    program = built(folder)
    program.chmod(0o4755)
    if os.statvfs(folder).f_flag & os.ST_NOSUID:
        raise CannotServe(f"{folder} is mounted nosuid: nothing runs with its owner's rights")
    with running([program], **as_nobody()) as one:
        uids = Path(f"/proc/{one.pid}/status").read_text().partition("Uid:")[2].split()[:2]
        assert uids == [str(as_nobody()["user"]), "0"]
        yield one


@contextmanager
def by_musl(folder: Path, *, static: bool = False) -> Iterator[Keeping]:
    options = ["-static"] * static
    with running([built(folder, *options, compiler="musl-gcc")]) as one:
        yield one


@contextmanager
def static(folder: Path, *, strip: bool = False) -> Iterator[Keeping]:
    with running([built(folder, "-static", strip=strip)]) as one:
        yield one


def _libraries(program: Path) -> list[Path]:
    told = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return [Path(word) for word in told.split() if word.startswith("/")]


@contextmanager
def with_own_libc(folder: Path, *, replace: bool) -> Iterator[Keeping]:
    """With a C library that has no symbols but those it exports; `replace`: as an upgrade does."""
    program = built(folder)
    (original,) = (path for path in _libraries(program) if path.name == "libc.so.6")
    libc = folder / original.name
    subprocess.run(["strip", "-o", libc, original], check=True)
    with running([program], env={**os.environ, "LD_LIBRARY_PATH": str(folder)}) as one:
        mapped = Path(f"/proc/{one.pid}/maps")
        assert str(libc) in mapped.read_text()
        if replace:
            shutil.copy(original, folder / "new")
            (folder / "new").rename(libc)
            assert f"{libc} (deleted)" in mapped.read_text()
        yield one


@contextmanager
def in_container(folder: Path) -> Iterator[Keeping]:
    """Process 1 of its own namespaces, in a root that has nothing but its libraries."""
    root = folder / "root"
    program = built(folder)
    for path in _libraries(program):
        inside = root / path.relative_to("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, inside)
    shutil.copy(program, root)
    with running([*APART, "chroot", root, "/keeps"], below=1) as one:
        yield one


@contextmanager
def in_pid_namespace(folder: Path) -> Iterator[Keeping]:
    """Process 1 of its own, where /proc shows no other."""
    with running([*APART, "--mount-proc", built(folder)], below=1) as one:
        yield one


@contextmanager
def in_user_namespace(folder: Path) -> Iterator[Keeping]:
    """Root there, and nobody's outside, as in a container without root."""
    with running(["unshare", "--user", "--map-root-user", built(folder)]) as one:
        yield one
