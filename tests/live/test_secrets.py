"""Secrets planted wherever a string could come from: none may be in the case."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from leakcase_bundle.reader import Reader
from leakcase_bundle.records import (
    DescriptorGroup,
    Mark,
    Module,
    Region,
    Setting,
    SocketGroup,
    Target,
    ThreadGroup,
)
from tests.live.collecting import COLLECT, child, is_root, of_kind, read

pytestmark = pytest.mark.live

#: One word per place, so that a failure tells which place leaked.
MARK = "Zqhidden"

_TARGET = """
import ctypes, mmap, os, socket, sys, tempfile, threading, time
home = os.environ["HOME"]
os.chdir(home)
libc = ctypes.CDLL(None)
keep = [open(os.path.join(home, "Zqhiddenopenfile"), "w") for _ in range(3)]
deleted = open(os.path.join(home, "Zqhiddendeleted"), "w"); os.unlink(deleted.name)
mapped = open(os.path.join(home, "Zqhiddenmapped"), "w+b")
mapped.write(b"x" * 8192); mapped.flush()
keep += [mmap.mmap(mapped.fileno(), 8192)]
shm = open("/dev/shm/Zqhiddenshm%d" % os.getpid(), "w+b"); shm.write(b"x" * 8192); shm.flush()
keep += [mmap.mmap(shm.fileno(), 8192)]; os.unlink(shm.name)
fd = os.memfd_create("Zqhiddenmemfd"); os.write(fd, b"x" * 8192); keep += [mmap.mmap(fd, 8192)]
# A named anonymous mapping (PR_SET_VMA, Linux 5.17) where the kernel has it.
area = mmap.mmap(-1, 1 << 20); keep.append(area)
address = ctypes.addressof(ctypes.c_char.from_buffer(area))
name = ctypes.create_string_buffer(b"Zqhiddenvma")
libc.prctl(0x53564d41, 0, ctypes.c_ulong(address), ctypes.c_ulong(1 << 20), name)
def unix(where):
    s = socket.socket(socket.AF_UNIX); s.bind(where); s.listen(); keep.append(s)
    c = socket.socket(socket.AF_UNIX); c.connect(where); keep.append(c)
unix(os.path.join(home, "Zqhiddensocket")); unix("\\0Zqhiddenabstract%d" % os.getpid())
s = socket.socket(); s.bind(("127.77.66.55", 0)); s.listen(); keep.append(s)
c = socket.create_connection(s.getsockname()); keep.append(c)
os.mkfifo(os.path.join(home, "Zqhiddenfifo"))
keep.append(os.open(os.path.join(home, "Zqhiddenfifo"), os.O_RDWR))
def thread():
    libc.prctl(15, b"Zqhiddenthread", 0, 0, 0)
    time.sleep(300)
threading.Thread(target=thread, daemon=True).start()
libc.prctl(15, b"Zqhiddencomm", 0, 0, 0)
print("ready", flush=True)
time.sleep(300)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "Zqhiddenuser"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def cgroup() -> Iterator[Path | None]:
    """A control group with a secret name, where one can be made (cgroup v2 or v1)."""
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"):
        made = Path(root) / "Zqhiddencgroup"
        if (Path(root) / "cgroup.procs").exists() and os.access(root, os.W_OK):
            try:
                made.mkdir()
            except OSError:
                continue
            yield made
            for _ in range(50):  # The kernel frees the group when its last member is reaped.
                try:
                    made.rmdir()
                    break
                except OSError:
                    time.sleep(0.1)
            return
    yield None


def _capture(pid: int, case: Path, home: Path) -> str:
    """Capture in another UTS namespace with a secret host name, where that can be had."""
    command = [*COLLECT, "capture", str(pid), "--duration", "4s", "-o", str(case)]
    if is_root() and shutil.which("unshare"):
        command = [
            "unshare",
            "--uts",
            "sh",
            "-c",
            'hostname Zqhiddenhost; exec "$@"',
            "-",
            *command,
        ]
    env = {**os.environ, "USER": "Zqhiddenuser", "LOGNAME": "Zqhiddenuser", "HOME": str(home)}
    done = subprocess.run(
        command, env=env, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_no_planted_secret_is_in_the_decompressed_case(
    home: Path, tmp_path: Path, cgroup: Path | None
) -> None:
    # The interpreter too runs from a secret folder, and a module is loaded from one.
    environment = {
        **os.environ,
        "HOME": str(home),
        "Zqhiddenvariable": "Zqhiddenvalue",
        "MALLOC_CONF": "prof_prefix:/home/Zqhiddenjemalloc,narenas:4",
        "LD_PRELOAD_HINT": "Zqhiddenpreload",
        "GLIBC_TUNABLES": "glibc.malloc.arena_max=2:Zqhiddentunable=1",
        "HEAPPROFILE": "/home/Zqhiddenprofile",
        "MALLOC_ARENA_MAX": "Zqhiddenarena",
        "NODE_OPTIONS": "--max-old-space-size=512 --title=Zqhiddentitle",
    }
    script = home / "Zqhiddenscript.py"
    script.write_text(_TARGET)
    arguments = [
        sys.executable, "-I", str(script),
        "--password=Zqhiddenarg", "-pZqhiddenshort", "Zqhiddenplain",
    ]  # fmt: skip
    case = tmp_path / "x.leakcase"
    with child(arguments, wait_for="ready", env=environment) as target:
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text(str(target.pid))
        _capture(target.pid, case, home)
        target.send_signal(signal.SIGKILL)
    # The whole decompressed stream, not only what our reader knows of.
    with case.open("rb") as file:
        frames = {frame.offset: frame.content for frame, _ in Reader(file).maps()}
    content = b"".join(frames.values())
    assert len(content) > 2000
    assert MARK.encode() not in content
    assert b"Zqhidden" not in case.read_bytes()
    for folded in (MARK.lower(), MARK.swapcase()):
        assert folded.encode() not in content
    assert b"127.77.66.55" not in content
    private_map = case.with_suffix(".leakcase.map").read_text()
    for planted in ("openfile", "mapped", "shm", "memfd", "thread", "comm", "user"):
        assert f"Zqhidden{planted}" in private_map, f"{planted}: not met"
    if cgroup is not None:
        assert "Zqhiddencgroup" in private_map


def test_what_is_worth_keeping_is_kept_and_relationships_survive(
    home: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "HOME": str(home), "MALLOC_ARENA_MAX": "3"}
    script = home / "Zqhiddenscript.py"
    script.write_text(_TARGET)
    case = tmp_path / "x.leakcase"
    arguments = [sys.executable, "-I", str(script), "--password=Zqhiddenarg"]
    with child(arguments, wait_for="ready", env=environment) as target:
        _capture(target.pid, case, home)
    records, reader = read(case)
    assert reader.complete
    target_record = of_kind(records, Target)[0]
    assert target_record.arguments is not None
    assert target_record.arguments[1:] == ["-I", "<value>", "--password"]
    assert any(m.path.rsplit("/", 1)[-1].startswith("libc") for m in of_kind(records, Module))
    settings = {s.name: s.value for s in of_kind(records, Setting)}
    assert settings.get("MALLOC_ARENA_MAX") == "3"
    # Mapping and descriptor of one file have one pseudonym: that is how they can be joined.
    mapped = {r.path for r in of_kind(records, Region) if r.path and "<file:" in r.path}
    opened = {g.path for g in of_kind(records, DescriptorGroup) if g.path and "<file:" in g.path}
    assert mapped & opened
    peers = [g.peer for g in of_kind(records, SocketGroup) if g.peer]
    assert any(peer.startswith("<loopback:") for peer in peers)
    assert len({g.name for g in of_kind(records, ThreadGroup)}) >= 2
    assert of_kind(records, Mark) == []
