"""When watching a function would harm the target: then it is not done."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from leakcase_collector.errors import TargetGone
from leakcase_collector.system.door import System

_RELEASE = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_UNLIMITED = re.compile(r"^Max (?:address space|data size) +unlimited ", re.MULTILINE)


#: Programs that execute a target's code by translating it, by file name: a probe that the kernel
#: has put into the code is translated too, and ends the target (seen with Valgrind 3.19: SIGTRAP).
_TRANSLATORS = (
    ("Valgrind", re.compile(r"/vgpreload_[^/]*$|/valgrind/[^/]*$")),
    ("DynamoRIO", re.compile(r"/libdynamorio[^/]*$")),
    ("Pin", re.compile(r"/pinbin$|/libpin[^/]*\.so[^/]*$")),
    ("QEMU", re.compile(r"/qemu-[a-z0-9_]+(?:-static)?$")),
    ("an emulator", re.compile(r"/(?:FEXInterpreter|box64|rosetta)$")),
)
_GREENLET = re.compile(r"/_greenlet[^/]*\.so$")


class KernelRelease(NamedTuple):
    """As ``uname -r`` says it; distributions may have mended more than their number tells."""

    major: int
    minor: int
    patch: int

    @property
    def version(self) -> tuple[int, int]:
        return self.major, self.minor


def kernel_release(system: System) -> KernelRelease:
    """Of the running kernel; 0.0.0 where it does not say, which is taken for the oldest."""
    match = _RELEASE.match(system.read_text("/proc/sys/kernel/osrelease"))
    numbers = [int(number or 0) for number in match.groups()] if match else [0, 0, 0]
    return KernelRelease(*numbers)


def translator(paths: Iterable[str]) -> str | None:
    """Inside what a process runs whose program files have these paths; None: on the machine."""
    for path in paths:
        for name, pattern in _TRANSLATORS:
            if pattern.search(path):
                return name
    return None


def switches_stacks(paths: Iterable[str]) -> bool:
    """Whether a process with these program files may leave a function for another stack.

    greenlet (and so gevent and eventlet) changes C stacks within one thread. The kernel keeps one
    list of watched returns for a thread and drops those that lie above the stack pointer
    (kernel/events/uprobes.c, cleanup_return_instances): a function that runs code of the program's
    and is left so in its midst ends the target with SIGILL when it returns. An allocator's own
    functions run none; those that may start Python's garbage collector, up to CPython 3.11, do.
    """
    return any(_GREENLET.search(path) for path in paths)


def return_hazard(system: System, pid: int, kernel: KernelRelease, machine: str) -> str | None:
    """Why a watched return could end process `pid`, as part of a sentence; None: it cannot."""
    if machine != "x86_64":
        return None
    status = system.read_text(f"/proc/{pid}/status")
    # Linux 6.11 taught uretprobes the shadow stack (arch/x86/kernel/shstk.c, shstk_push).
    if kernel.version < (6, 11) and re.search(r"^x86_Thread_features:.*\bshstk", status, re.M):
        return "it runs with a shadow stack, which kernels before 6.11 break by watching a return"
    if _filters_the_return(kernel) and _has_filter(system, pid):
        return (
            "it runs under a seccomp filter, and this kernel watches returns by a system call of "
            "the target's own, which such a filter may answer by ending it (mended in Linux 6.14)"
        )
    return None


def _has_filter(system: System, pid: int) -> bool:
    """Whether any thread runs under seccomp: each may have set a filter of its own."""
    for task in system.list_directory(f"/proc/{pid}/task"):
        try:
            status = system.read_text(f"/proc/{pid}/task/{task}/status")
        except TargetGone:  # that thread has ended
            continue
        if re.search(r"^Seccomp:\s+[12]$", status, re.M):
            return True
    return False


def new_may_fail(system: System, pid: int) -> bool:
    """Whether operator new of process `pid` may well fail for sizes of every day.

    It fails by an exception, and that cannot pass a return that is watched: the C++ runtime finds
    no unwind rules for the kernel's trampoline and ends the process (std::terminate). With no
    limit on its memory only absurd sizes fail (proc_sys_vm(5), overcommit_memory).
    """
    limits = system.read_text(f"/proc/{pid}/limits")
    if len(_UNLIMITED.findall(limits)) < 2:
        return True
    return system.read_text("/proc/sys/vm/overcommit_memory").strip() == "2"


def _filters_the_return(kernel: KernelRelease) -> bool:
    """From 6.11 on returns go through uretprobe(), a system call that seccomp let through first
    in 6.14, 6.13.3 and 6.12.14."""
    if kernel.version == (6, 12):
        return kernel.patch < 14
    if kernel.version == (6, 13):
        return kernel.patch < 3
    return kernel.version == (6, 11)
