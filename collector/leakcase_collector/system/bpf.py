"""bpf(2) by ctypes: maps, programs and links, each a descriptor that dies with us.

Structures are those of ``union bpf_attr`` in include/uapi/linux/bpf.h. OSErrors are translated by
`bpf_refusals`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple, Optional

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.bpf_refusals import refused, with_detail

_CALL_NUMBERS = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE = 0, 1, 2, 3
_PROGRAM_LOAD = 5
_MAP_LOOKUP_BATCH = 24
_LINK_CREATE = 28
PROGRAM_TYPE_KPROBE = 2
MAP_TYPE_PERCPU_ARRAY = 6
#: Attach types; a program is loaded for one of them.
ATTACH_PERF, ATTACH_UPROBE_MULTI, ATTACH_UPROBE_SESSION = 0, 48, 57
_MULTI_IS_RETURN = 1
_BATCH_ENTRIES = 4096
_LOG_BYTES = 1 << 20
#: What refuses any program, whatever it does.
_NOT_OF_THE_VERIFIER = (errno.EPERM, errno.ENOSYS, errno.EMFILE, errno.ENFILE, errno.ENOMEM)

_libc = ctypes.CDLL(None, use_errno=True)


class _Create(ctypes.Structure):
    _fields_ = [
        ("map_type", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("numa_node", ctypes.c_uint32),
        ("map_name", ctypes.c_char * 16),
    ]


class _Element(ctypes.Structure):
    _fields_ = [
        ("map_fd", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("in_batch", ctypes.c_uint64),
        ("out_batch", ctypes.c_uint64),
        ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("map_fd", ctypes.c_uint32),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    ]


class _Load(ctypes.Structure):
    _fields_ = [
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_name", ctypes.c_char * 16),
        ("prog_ifindex", ctypes.c_uint32),
        ("expected_attach_type", ctypes.c_uint32),
    ]


class _UprobeMulti(ctypes.Structure):
    _fields_ = [
        ("prog_fd", ctypes.c_uint32),
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("link_flags", ctypes.c_uint32),
        ("path", ctypes.c_uint64),
        ("offsets", ctypes.c_uint64),
        ("ref_ctr_offsets", ctypes.c_uint64),
        ("cookies", ctypes.c_uint64),
        ("cnt", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("pid", ctypes.c_uint32),
    ]


def _bpf(command: int, attributes: ctypes.Structure) -> int:
    """One bpf(2); raises OSError."""
    number = _CALL_NUMBERS.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    size = ctypes.sizeof(attributes)
    result: int = _libc.syscall(number, command, ctypes.byref(attributes), size)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


class MapShape(NamedTuple):
    """What a map is created with: ``struct map_definition`` of collector/bpf/kernel.h."""

    type: int
    key_bytes: int
    value_bytes: int
    max_entries: int
    flags: int


class BpfMap:
    """A map of the kernel; keys and values are bytes of exactly the shape's sizes."""

    def __init__(self, name: str, shape: MapShape) -> None:
        self.name = name
        self.shape = shape
        self._value_bytes = shape.value_bytes
        if shape.type == MAP_TYPE_PERCPU_ARRAY:
            self._value_bytes = (shape.value_bytes + 7) // 8 * 8 * cpu_slots()
        self.fd = _create_map(name, shape)
        self._key = ctypes.create_string_buffer(max(1, shape.key_bytes))
        self._value = ctypes.create_string_buffer(max(1, self._value_bytes))
        self._element = _Element(self.fd, 0, _address(self._key), _address(self._value), 0)
        # A deletion that names a place for a value is refused (CHECK_ATTR of kernel/bpf/syscall.c).
        self._key_alone = _Element(self.fd, 0, _address(self._key), 0, 0)

    def look_up(self, key: bytes) -> Optional[bytes]:
        """The value; None where there is none. A per-CPU map gives all CPUs' values in a row."""
        ctypes.memmove(self._key, key, len(key))
        try:
            _bpf(_MAP_LOOKUP, self._element)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise refused(error, f"read the BPF map {self.name}", "bpf") from error
        return ctypes.string_at(self._value, self._value_bytes)

    def update(self, key: bytes, value: bytes) -> None:
        ctypes.memmove(self._key, key, len(key))
        ctypes.memmove(self._value, value, len(value))
        try:
            _bpf(_MAP_UPDATE, self._element)
        except OSError as error:
            raise refused(error, f"write to the BPF map {self.name}", "bpf") from error

    def delete(self, key: bytes) -> bool:
        """False where there was none."""
        ctypes.memmove(self._key, key, len(key))
        try:
            _bpf(_MAP_DELETE, self._key_alone)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise refused(error, f"delete from the BPF map {self.name}", "bpf") from error
        return True

    def batches(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys and all values of a hash in some order, in pieces: keys in a row, values too.

        What is inserted or deleted meanwhile may be among them or not.
        """
        entries = min(_BATCH_ENTRIES, self.shape.max_entries)
        token = ctypes.create_string_buffer(8)
        following = False
        while True:
            keys = ctypes.create_string_buffer(entries * self.shape.key_bytes)
            values = ctypes.create_string_buffer(entries * self.shape.value_bytes)
            batch = _Batch(
                _address(token) if following else 0, _address(token), _address(keys),
                _address(values), entries, self.fd, 0, 0,
            )  # fmt: skip
            is_last = False
            try:
                _bpf(_MAP_LOOKUP_BATCH, batch)
            except OSError as error:
                if error.errno == errno.ENOSPC:  # a chain of the hash is longer than the piece
                    entries *= 2
                    continue
                if error.errno != errno.ENOENT:
                    raise refused(error, f"read the BPF map {self.name}", "bpf") from error
                is_last = True
            following = True
            count = batch.count
            if count:
                yield (
                    ctypes.string_at(keys, count * self.shape.key_bytes),
                    ctypes.string_at(values, count * self.shape.value_bytes),
                )
            if is_last:
                return

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _create_map(name: str, shape: MapShape) -> int:
    attributes = _Create(*shape, 0, 0, name.encode()[:15])
    try:
        try:
            return _bpf(_MAP_CREATE, attributes)
        except PermissionError:
            # Before 5.11 maps counted as locked memory, and a limit of 64 KiB refused them.
            with suppress(OSError, ValueError):
                unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
            return _bpf(_MAP_CREATE, attributes)
    except OSError as error:
        raise refused(error, f"create the BPF map {name}", "bpf") from error


def load_program(name: str, instructions: bytes, licence: bytes, attach_type: int) -> int:
    """A descriptor of the program; the verifier's last words are in the error if it refuses."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    terms = ctypes.create_string_buffer(licence)
    load = _Load(
        PROGRAM_TYPE_KPROBE, len(instructions) // 8, _address(code), _address(terms), 0, 0, 0, 0, 0,
        name.encode()[:15], 0, attach_type,
    )  # fmt: skip
    try:
        return _bpf(_PROGRAM_LOAD, load)
    except OSError as error:
        if error.errno in _NOT_OF_THE_VERIFIER:
            raise refused(error, "load a BPF program", "bpf") from error
        raise with_detail(
            NotSupported(
                f"cannot load the BPF program {name}: the kernel's verifier refuses it "
                f"({error.strerror}{_verifier_log(load)}). Report this kernel's version, or do "
                "without tracing."
            ),
            "bpf-program",
        ) from error


def _verifier_log(load: _Load) -> str:
    """What the verifier says last of a program that it refuses; empty if nothing."""
    log = ctypes.create_string_buffer(_LOG_BYTES)
    load.log_level, load.log_size, load.log_buf = 1, _LOG_BYTES, _address(log)
    try:
        os.close(_bpf(_PROGRAM_LOAD, load))
    except OSError:
        lines = log.value.decode("ascii", "replace").strip().splitlines()
        return f": {'; '.join(lines[-3:])}" if lines else ""
    return ""


def link_uprobes(
    program_fd: int,
    attach_type: int,
    path: str,
    places: Sequence[tuple[int, int]],
    pid: int,
    is_return: bool = False,
) -> int:
    """A link that calls the program at each (file offset, cookie) in that process; OSError.

    Closing the descriptor undoes it, and returns when no program runs any more.
    """
    offsets = (ctypes.c_uint64 * len(places))(*(offset for offset, _ in places))
    cookies = (ctypes.c_uint64 * len(places))(*(cookie for _, cookie in places))
    name = ctypes.create_string_buffer(os.fsencode(path))
    attributes = _UprobeMulti(
        program_fd, 0, attach_type, 0, _address(name), ctypes.addressof(offsets), 0,
        ctypes.addressof(cookies), len(places), _MULTI_IS_RETURN if is_return else 0, pid,
    )  # fmt: skip
    return _bpf(_LINK_CREATE, attributes)


def missed_runs(program_fd: int) -> int:
    """How often the kernel could not run the program, as another ran on that CPU (since 5.12)."""
    with open(f"/proc/self/fdinfo/{program_fd}", encoding="ascii") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "recursion_misses":
                return int(value)
    return 0


def cpu_slots() -> int:
    """At least as many as CPUs that the kernel provides for: a per-CPU map has a value for each.

    From how wide it prints a mask of them (cpumask_pr_args, nr_cpu_ids), as a container may lack
    /sys. What is beyond stays 0.
    """
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        (mask,) = (line.split()[1] for line in file if line.startswith("Cpus_allowed:"))
    return 4 * len(mask.replace(",", ""))
