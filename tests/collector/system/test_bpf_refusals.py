"""What a tracer says where the kernel does not let it: one sentence with the reason, and a word."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Optional

import pytest

from leakcase_collector.errors import CollectorError, NotPermitted, NotSupported, TargetGone
from leakcase_collector.system import uprobes
from leakcase_collector.system.allocation_tracer import AllocationTracer
from leakcase_collector.system.bpf import load_program
from leakcase_collector.system.bpf_object import load_object
from leakcase_collector.system.bpf_refusals import refused
from leakcase_collector.system.entry_point import EntryPoint
from leakcase_collector.system.tracefs import TracefsEvent
from tests.collector.system.started import as_nobody, in_fork, needs_root, started_python

POINT = EntryPoint("free", sys.executable, 0x1000, False, True, 1000, "free", (7,))
ON_X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter is for x86-64")


def refusal(method: Optional[str] = None) -> Optional[tuple[str, Optional[str], str]]:
    """The kind, the word and the sentence of what making and attaching a tracer of us raises."""
    try:
        with AllocationTracer(os.getpid(), [POINT], method=method) as tracer:
            tracer.attach()
    except CollectorError as error:
        return type(error).__name__, error.gap_detail, str(error)
    return None


def in_a_child(prepare: Callable[[], None]) -> Any:
    """`refusal` in a fork of us that `prepare` was called in."""

    def run() -> Any:
        prepare()
        return refusal()

    return in_fork(run)


@needs_root
def test_without_capabilities_it_says_which_ones_it_takes() -> None:
    load_object()  # imports what another user may not be allowed to read
    kind, word, sentence = as_nobody(refusal)
    assert (kind, word) == ("NotPermitted", "bpf")
    assert "CAP_BPF and CAP_PERFMON" in sentence


def forbid_bpf(answer: int) -> None:
    """A seccomp filter of ours that answers bpf(2) with an errno (seccomp(2))."""
    load_number, jump_equal, give = 0x20, 0x15, 0x06
    allow, fail = 0x7FFF0000, 0x00050000
    steps = [
        (load_number, 0, 0, 0),
        (jump_equal, 0, 1, 321),
        (give, 0, 0, fail | answer),
        (give, 0, 0, allow),
    ]
    code = b"".join(struct.pack("<HBBI", *step) for step in steps)
    held = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("<H6xQ", len(steps), ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, program, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


@needs_root
@ON_X86
def test_a_seccomp_filter_is_named_as_the_reason() -> None:
    kind, word, sentence = in_a_child(lambda: forbid_bpf(errno.EPERM))
    assert (kind, word) == ("NotPermitted", "bpf")
    assert "seccomp" in sentence


@needs_root
@ON_X86
def test_a_kernel_or_filter_without_the_system_call_does_not_offer_it() -> None:
    kind, word, sentence = in_a_child(lambda: forbid_bpf(errno.ENOSYS))
    assert (kind, word) == ("NotSupported", "bpf")
    assert "does not offer it" in sentence


@needs_root
def test_64_kilobytes_of_locked_memory_are_enough() -> None:
    limits = (65_536, 65_536)
    assert in_a_child(lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, limits)) is None


@needs_root
@pytest.mark.parametrize("method", ["uprobe-session", "uprobe-perf"])
def test_a_target_that_is_gone_is_said_to_be(method: str) -> None:
    with started_python("print(1); input()") as process:
        pass
    process.wait(timeout=10)
    with AllocationTracer(process.pid, [POINT], method=method) as tracer, pytest.raises(TargetGone):
        tracer.attach()


@needs_root
def test_a_place_that_is_no_instruction_of_the_file_is_refused_with_a_word() -> None:
    beyond = POINT._replace(file_offset=1 << 40)
    with AllocationTracer(os.getpid(), [beyond]) as tracer:
        with pytest.raises(NotSupported) as caught:
            tracer.attach()
        assert caught.value.gap_detail == "uprobe"


@needs_root
def test_a_program_that_the_verifier_refuses_is_told_with_its_last_words() -> None:
    use_of_nothing = struct.pack("<BBhi", 0xBF, 0x20, 0, 0)  # r0 = r2, which holds nothing
    with pytest.raises(NotSupported, match="!read_ok") as caught:
        load_program("wrong", use_of_nothing + struct.pack("<BBhi", 0x95, 0, 0, 0), b"GPL", 0)
    assert caught.value.gap_detail == "bpf-program"


def test_calls_that_no_program_knows_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(NotSupported) as caught:
        AllocationTracer(os.getpid(), [POINT._replace(call="other")])
    assert caught.value.gap_detail == "no-entry-point"


def test_a_locked_down_kernel_is_named_as_the_reason(monkeypatch: pytest.MonkeyPatch,
                                                     tmp_path: Any) -> None:  # fmt: skip
    mode = tmp_path / "lockdown"
    mode.write_text("none integrity [confidentiality]\n")
    monkeypatch.setattr("leakcase_collector.system.bpf_refusals._LOCKDOWN", str(mode))
    error = refused(OSError(errno.EPERM, ""), "load a BPF program", "bpf")
    assert isinstance(error, NotPermitted)
    assert "locked down (confidentiality" in str(error)


@needs_root
def test_without_tracefs_the_way_by_it_says_how_to_mount_it() -> None:
    code = """if True:
        import os, sys
        from leakcase_collector.system.tracefs import tracefs_root
        try:
            tracefs_root()
        except Exception as error:
            print(type(error).__name__, error.gap_detail, error)
    """
    hide = 'umount -l /sys/kernel/tracing /sys/kernel/debug 2>/dev/null; exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hide, "sh", sys.executable, "-c", code],
        capture_output=True, text=True, timeout=30,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.startswith("NotSupported tracefs "), done
    assert "mount -t tracefs" in done.stdout


def test_a_path_that_tracefs_could_not_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leakcase_collector.system.tracefs.tracefs_root", lambda: "/nowhere")
    with pytest.raises(NotSupported) as caught:
        TracefsEvent("/usr/lib/a b:c.so", 0, False)
    assert caught.value.gap_detail == "tracefs"


@pytest.mark.parametrize(
    ("release", "numbers"),
    [("6.18.44-fc-v669", (6, 18)), ("5.10.0-33-amd64", (5, 10)), ("7-rc1", (0, 0)),
     ("6.10+", (6, 10))],
)  # fmt: skip
def test_the_kernels_release_is_two_numbers(
    release: str, numbers: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = os.uname_result(("Linux", "host", release, "1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: named)
    assert uprobes.kernel_release() == numbers


@needs_root
@pytest.mark.parametrize(
    ("release", "method"), [((6, 8), "uprobe-multi"), ((6, 12), "uprobe-session")]
)
def test_links_are_not_used_where_the_kernel_is_too_old_for_them(
    release: tuple[int, int], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uprobes, "kernel_release", lambda: release)
    kind, word, sentence = refusal(method) or ("", None, "")
    assert (kind, word) == ("NotSupported", "uprobe")
    assert "uprobe-perf" in sentence


@needs_root
@pytest.mark.parametrize(
    ("release", "method"),
    [((6, 18), "uprobe-session"), ((6, 12), "uprobe-multi"), ((5, 10), "uprobe-perf")],
)
def test_the_cheapest_way_that_the_kernel_has_is_taken(
    release: tuple[int, int], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uprobes, "kernel_release", lambda: release)
    with AllocationTracer(os.getpid(), [POINT]) as tracer:
        assert tracer.method == method
