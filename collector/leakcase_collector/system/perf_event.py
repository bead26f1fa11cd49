"""perf_event_open(2) by ctypes: a probe of a process as an event that a BPF program is tied to."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.bpf_refusals import with_detail

_CALL_NUMBERS = {"x86_64": 298, "aarch64": 241}
_TYPE_TRACEPOINT = 2
_UPROBE_UNIT = "/sys/bus/event_source/devices/uprobe"
_CLOSE_ON_EXEC = 8
#: _IOW('$', 8, __u32) of include/uapi/linux/perf_event.h.
_SET_BPF = 0x40042408
_ATTR_BYTES = 112

_libc = ctypes.CDLL(None, use_errno=True)


class _Attributes(ctypes.Structure):
    """The first words of ``struct perf_event_attr`` (version 5, 112 bytes)."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("config1", ctypes.c_uint64),
        ("config2", ctypes.c_uint64),
        ("rest", ctypes.c_uint8 * (_ATTR_BYTES - 72)),
    ]


def uprobe_event(path: str, offset: int, is_return: bool, thread: int) -> int:
    """An event of the uprobe unit, Linux 4.17; OSError where the kernel refuses.

    `thread` may be any living one of the process: its whole address space is probed
    (uprobe_perf_filter in kernel/trace/trace_uprobe.c).
    """
    kind, return_bit = _uprobe_unit()
    name = ctypes.create_string_buffer(os.fsencode(path))
    attributes = _Attributes(type=kind, size=_ATTR_BYTES, sample_period=1)
    attributes.config = int(is_return) << return_bit
    attributes.config1 = ctypes.addressof(name)
    attributes.config2 = offset
    return _open(attributes, thread)


def tracepoint_event(event_id: int, thread: int) -> int:
    """An event of tracefs, by its id; OSError where the kernel refuses."""
    attributes = _Attributes(
        type=_TYPE_TRACEPOINT, size=_ATTR_BYTES, config=event_id, sample_period=1
    )
    return _open(attributes, thread)


def set_program(event_fd: int, program_fd: int) -> None:
    """Have the program called at each event. It answers 0, so that perf itself records nothing."""
    fcntl.ioctl(event_fd, _SET_BPF, program_fd)


def _uprobe_unit() -> tuple[int, int]:
    """The unit's type, and which bit of config asks for returns."""
    try:
        with open(f"{_UPROBE_UNIT}/type", encoding="ascii") as file:
            kind = int(file.read())
        with open(f"{_UPROBE_UNIT}/format/retprobe", encoding="ascii") as file:
            return kind, int(file.read().rpartition(":")[2])
    except FileNotFoundError as error:
        raise with_detail(
            NotSupported(
                "cannot use the kernel's uprobe events: /sys/bus/event_source/devices/uprobe is "
                "not there (it is since Linux 4.17). Use a newer kernel, or mount /sys."
            ),
            "perf-event",
        ) from error


def _open(attributes: _Attributes, thread: int) -> int:
    number = _CALL_NUMBERS.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fd: int = _libc.syscall(number, ctypes.byref(attributes), thread, -1, -1, _CLOSE_ON_EXEC)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd
