"""Paths of a target stay inside the target's root, and only regular files are opened."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.door import System
from tests.collector.system.started import needs_root, started

PID = 4711


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A target's root, with a secret beside it that no path may reach."""
    (tmp_path / "secret").write_text("outside")
    (tmp_path / f"proc/{PID}").mkdir(parents=True)
    root = tmp_path / "target"
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/libx.so.1.2").write_text("inside")
    (root / "secret").write_text("inside too")
    (tmp_path / f"proc/{PID}/root").symlink_to(root)
    return root


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    signal.alarm(10)
    yield
    signal.alarm(0)


def read(root: Path, path: str) -> bytes:
    with System(proc=str(root.parent / "proc")).open_target_file(PID, path) as file:
        return file.read_at(0, 100)


def test_plain_paths_and_links_inside_are_followed(root: Path) -> None:
    (root / "lib").symlink_to("usr/lib")
    (root / "usr/lib/libx.so").symlink_to("libx.so.1.2")
    (root / "usr/abs").symlink_to("/usr/lib/libx.so")
    (root / "up").symlink_to("usr/../usr/lib/./libx.so")
    for path in (
        "/usr/lib/libx.so.1.2",
        "/lib/libx.so",
        "/usr/abs",
        "/up",
        "//usr//lib/../lib/libx.so",
    ):
        assert read(root, path) == b"inside"


def test_no_path_and_no_link_leads_out_of_the_root(root: Path) -> None:
    (root / "relative").symlink_to("../secret")
    (root / "deep").symlink_to("../../../../../../../../../../secret")
    (root / "absolute").symlink_to(str(root.parent / "secret"))
    (root / "usr/hop").symlink_to("../..")
    for path in ("/../secret", "/relative", "/deep", "/usr/hop/secret", "/usr/../../secret"):
        assert read(root, path) == b"inside too"
    with pytest.raises(NotSupported):
        read(root, "/absolute")


def test_links_of_proc_are_text_and_not_doors(root: Path) -> None:
    """A real /proc inside the target's root must not lead through its magic links."""
    (root / "self-root").symlink_to("/proc/self/root/etc/passwd")
    with pytest.raises(NotSupported):
        read(root, "/self-root")


def test_magic_links_of_a_real_process_are_not_followed(tmp_path: Path) -> None:
    """/proc/PID/exe of a deleted program opens when followed by the kernel; as text it cannot."""
    program = tmp_path / "napper"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with started([str(program), "60"]) as process:
        program.unlink()
        assert Path(f"/proc/{process.pid}/exe").read_bytes()
        with pytest.raises(NotSupported):
            System().open_target_file(process.pid, f"/proc/{process.pid}/exe")


def test_link_loops_end(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    (root / "growing").symlink_to("growing/growing")
    for path in ("/a", "/growing"):
        with pytest.raises(NotSupported):
            read(root, path)


def test_a_path_of_very_many_components_ends(root: Path) -> None:
    with pytest.raises(NotSupported):
        read(root, "/usr/.." * 100_000)
    assert read(root, "/usr/.." * 100 + "/secret") == b"inside too"


def test_fifos_directories_and_sockets_are_refused_without_being_opened(root: Path) -> None:
    os.mkfifo(root / "fifo")
    for path in ("/fifo", "/usr", "/", ""):
        with pytest.raises(NotSupported):
            read(root, path)


@needs_root
def test_device_nodes_are_refused(root: Path) -> None:
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    with pytest.raises(NotSupported):
        read(root, "/null")


def test_names_in_a_target_s_directory_are_read_without_following_links(root: Path) -> None:
    (root / "usr/lib/link").symlink_to("libx.so.1.2")
    system = System(proc=str(root.parent / "proc"))
    with system.open_target_directory(PID, "/usr/lib") as directory:
        assert set(directory.names()) == {"libx.so.1.2", "link"}
        assert directory.read_bytes("libx.so.1.2") == b"inside"
        for name in ("link", "..", "../secret", "."):
            with pytest.raises(NotSupported):
                directory.read_bytes(name)


def test_no_descriptor_is_left_open(root: Path) -> None:
    (root / "loop").symlink_to("loop")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        read(root, "/secret")
        for path in ("/loop", "/missing", "/usr"):
            with pytest.raises(NotSupported):
                read(root, path)
    assert len(os.listdir("/proc/self/fd")) == before
