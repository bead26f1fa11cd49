"""The files that are mapped, opened as they were mapped."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from leakcase_collector.errors import NotPermitted
from leakcase_collector.system.door import System
from leakcase_collector.system.elf import ElfFile
from leakcase_collector.system.modules import mapped_modules, open_module, parse_modules
from tests.collector.system.compiled import compiled
from tests.collector.system.started import as_nobody, needs_root, started, wait_until

SYSTEM = System()


def test_only_files_that_are_mapped_as_code_count_and_each_once() -> None:
    lines = b"""\
00400000-00401000 r--p 00000000 fe:01 10 /usr/bin/app
00401000-00402000 r-xp 00001000 fe:01 10 /usr/bin/app
00403000-00404000 rw-p 00003000 fe:01 10 /usr/bin/app
00500000-00600000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000001000 r--p 00000000 fe:01 12 /usr/lib/locale/locale-archive
7f0000100000-7f0000101000 r-xp 00000000 00:00 0 [anon:a /b]
7f0000200000-7f0000201000 r-xp 00000000 fe:01 13 /opt/my lib/li\\012b.so (deleted)
7f0000300000-7f0000301000 rwxp 00000000 00:00 0
7fff00000000-7fff00001000 r-xp 00000000 00:00 0 [vdso]
""".splitlines()
    modules = parse_modules(lines)
    assert [(m.path, m.inode, m.is_deleted) for m in modules] == [
        ("/usr/bin/app", 10, False),
        ("/opt/my lib/li\nb.so", 13, True),
    ]
    assert (modules[0].lowest_address, modules[0].start, modules[0].end) == (
        0x400000,
        0x401000,
        0x402000,
    )


def test_a_real_process_has_its_program_loader_and_c_library() -> None:
    with started(["sleep", "60"]) as process:
        wait_until(lambda: len(mapped_modules(SYSTEM, process.pid)) >= 3)
        modules = mapped_modules(SYSTEM, process.pid)
        names = {os.path.basename(module.path) for module in modules}
        assert {"sleep", "libc.so.6"} <= names
        for module in modules:
            with open_module(SYSTEM, process.pid, module) as file:
                assert file.inode == module.inode
                assert ElfFile(file).kind in ("executable", "shared-object")


@needs_root
def test_a_library_that_was_replaced_on_disk_is_read_as_it_was_mapped(tmp_path: Path) -> None:
    program = tmp_path / "napper"
    shutil.copy("/bin/sleep", program)
    with started([str(program), "60"]) as process:
        wait_until(lambda: len(mapped_modules(SYSTEM, process.pid)) >= 3)
        before = mapped_modules(SYSTEM, process.pid)
        shutil.copy("/bin/true", tmp_path / "new")
        os.replace(tmp_path / "new", program)
        after = mapped_modules(SYSTEM, process.pid)
        module = next(m for m in after if m.path == str(program))
        assert module.is_deleted
        for seen in (module, next(m for m in before if m.path == str(program))):
            with open_module(SYSTEM, process.pid, seen) as file:
                assert file.inode == seen.inode
                assert file.read_at(0, 1 << 20) == Path("/bin/sleep").read_bytes()[: 1 << 20]


@needs_root
def test_without_privilege_a_replaced_library_is_refused_with_the_reason() -> None:
    def replaced_as_seen_by_its_own_user() -> None:
        with tempfile.TemporaryDirectory() as directory:
            program = f"{directory}/napper"
            shutil.copy("/bin/sleep", program)
            with started([program, "60"]) as process:
                wait_until(lambda: len(mapped_modules(SYSTEM, process.pid)) >= 3)
                os.remove(program)
                modules = mapped_modules(SYSTEM, process.pid)
                module = next(module for module in modules if module.path == program)
                open_module(SYSTEM, process.pid, module).close()

    error = as_nobody(replaced_as_seen_by_its_own_user)
    assert isinstance(error, NotPermitted)
    assert "replaced or deleted" in str(error)


@needs_root
def test_modules_of_a_chrooted_process_are_named_and_opened_inside_its_root(tmp_path: Path) -> None:
    program = compiled(tmp_path, "static", flags=("-static",))
    root = tmp_path / "jail"
    (root / "opt").mkdir(parents=True)
    shutil.copy(program, root / "opt/service")
    with started(["chroot", str(root), "/opt/service"]) as process:
        wait_until(lambda: os.readlink(f"/proc/{process.pid}/exe").endswith("service"))
        wait_until(lambda: bool(mapped_modules(SYSTEM, process.pid)))
        (module,) = mapped_modules(SYSTEM, process.pid)
        assert module.path == "/opt/service"
        with open_module(SYSTEM, process.pid, module) as file:
            assert file.inode == (root / "opt/service").stat().st_ino
            assert ElfFile(file).is_static


@needs_root
def test_modules_of_a_process_with_mounts_of_its_own_are_opened_through_them(
    tmp_path: Path,
) -> None:
    """The target sees another file under a path that exists for us as well."""
    for name, source in (("ours", "/bin/true"), ("theirs", "/bin/sleep")):
        (tmp_path / name).mkdir()
        shutil.copy(source, tmp_path / name / "tool")
    script = f"mount --bind {tmp_path}/theirs {tmp_path}/ours && exec {tmp_path}/ours/tool 60"
    with started(["unshare", "--mount", "sh", "-c", script]) as process:
        wait_until(lambda: os.readlink(f"/proc/{process.pid}/exe").endswith("tool"))
        wait_until(lambda: len(mapped_modules(SYSTEM, process.pid)) >= 3)
        module = next(m for m in mapped_modules(SYSTEM, process.pid) if m.path.endswith("/tool"))
        with open_module(SYSTEM, process.pid, module) as file:
            assert file.read_at(0, 1 << 20) == Path("/bin/sleep").read_bytes()[: 1 << 20]
