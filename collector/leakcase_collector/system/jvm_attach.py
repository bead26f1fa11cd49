"""Asking a JVM a diagnostic command, as jcmd(1) does, without a JDK: over its own socket.

A HotSpot JVM opens ``/tmp/.java_pidN`` in its own root when it finds ``.attach_pidN`` there at a
SIGQUIT (hotspot's os/posix/attachListener_posix.cpp); N is its pid in its own pid namespace. It
answers its own user and, since JDK 9, root. A JVM that does not handle SIGQUIT (-Xrs, or one that
is still starting) would be ended by that signal, so it is sent only to one that catches it.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from leakcase_collector.errors import CollectorError, LimitReached, NotPermitted, NotSupported
from leakcase_collector.system import rooted
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.os_errors import translated

ANSWER_LIMIT_BYTES = 16 << 20
_LISTEN_SECONDS = 3.0
_DISABLED = b"-XX:+DisableAttachMechanism"
_TICK_SECONDS = 0.02
_CHUNK_BYTES = 64 << 10
#: Version 1 of the protocol: an operation and always three arguments (AttachOperation).
_VERSION, _OPERATION, _ARGUMENTS = "1", "jcmd", 3
_CAUGHT = re.compile(r"^SigCgt:\s+([0-9a-f]+)$", re.MULTILINE)
_IDS = re.compile(r"^Uid:\s+\d+\s+(\d+).*?^Gid:\s+\d+\s+(\d+)", re.MULTILINE | re.DOTALL)
_NAMESPACE_PID = re.compile(r"^NSpid:.*?(\d+)$", re.MULTILINE)


def ask_jvm(system: System, identity: ProcessIdentity, command: str, seconds: float) -> str:
    """What the JVM answers to a diagnostic command, such as ``GC.heap_info``.

    NotSupported where it cannot be asked, NotPermitted, LimitReached after `seconds` or beyond
    ANSWER_LIMIT_BYTES; CollectorError where the JVM refuses the command.
    """
    pid = identity.pid
    if _DISABLED in system.read_bytes(f"/proc/{pid}/cmdline").split(b"\0"):
        raise NotSupported(
            f"cannot ask the JVM of process {pid}: it was started with {_DISABLED.decode()}. "
            "Start it without that option, or do without this source."
        )
    status = system.read_text(f"/proc/{pid}/status")
    found = _NAMESPACE_PID.search(status)
    name = f".java_pid{found.group(1) if found else pid}"
    try:
        with _folder(system, pid) as folder:
            if not _is_socket(folder, name):
                _make_it_listen(identity, status, folder, name)
            answer = _ask(identity, folder, name, command, seconds)
    except OSError as error:
        raise translated(error, f"/proc/{pid}/root/tmp/{name}", system.proc) from error
    code, _, text = answer.partition("\n")
    if code.strip() != "0":
        raise CollectorError(
            f"cannot ask the JVM of process {pid} for {command}: it answers {code.strip()[:20]!r}. "
            "Try the same with jcmd, or do without this source."
        )
    return text


@contextmanager
def _folder(system: System, pid: int) -> Iterator[int]:
    """/tmp of the target's own root, no link leading out of that."""
    root = rooted.open_root(f"{system.proc}/{pid}/root")
    try:
        folder = rooted.open_directory_below(root, "/tmp")
    finally:
        os.close(root)
    try:
        yield folder
    finally:
        os.close(folder)


def _is_socket(folder: int, name: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _make_it_listen(identity: ProcessIdentity, status: str, folder: int, name: str) -> None:
    caught, ids = _CAUGHT.search(status), _IDS.search(status)
    bit = 1 << (signal.SIGQUIT - 1)
    if caught is None or not int(caught.group(1), 16) & bit or identity.pidfd is None:
        raise NotSupported(
            f"cannot ask the JVM of process {identity.pid}: it does not handle the signal that "
            "makes it listen (it was started with -Xrs, or is starting), or the kernel is older "
            "than 5.3. Start it without -Xrs, or do without this source."
        )
    trigger = name.replace(".java_pid", ".attach_pid")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(FileExistsError):  # another one's, who asks at this moment
        file = os.open(trigger, flags, 0o600, dir_fd=folder)
        try:
            if ids is not None:
                os.fchown(file, int(ids.group(1)), int(ids.group(2)))
        finally:
            os.close(file)
    try:
        signal.pidfd_send_signal(identity.pidfd, signal.SIGQUIT)
        deadline = time.monotonic() + _LISTEN_SECONDS
        while not _is_socket(folder, name):
            if time.monotonic() > deadline:
                raise NotSupported(
                    f"cannot ask the JVM of process {identity.pid}: it does not begin to listen "
                    "(it is no HotSpot, or too busy). Do without this source."
                )
            time.sleep(_TICK_SECONDS)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(trigger, dir_fd=folder)


def _ask(identity: ProcessIdentity, folder: int, name: str, command: str, seconds: float) -> str:
    # Over a descriptor of the socket itself: a link that takes its place is not followed.
    place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(seconds)
            connection.connect(f"/proc/self/fd/{place}")
            _require_peer(connection, identity.pid)
            words = [_VERSION, _OPERATION, command, *[""] * (_ARGUMENTS - 1)]
            connection.sendall("".join(f"{word}\0" for word in words).encode())
            return _answer(connection, identity.pid, time.monotonic() + seconds)
    except socket.timeout as error:
        raise _too_long(identity.pid) from error
    finally:
        os.close(place)


def _require_peer(connection: socket.socket, pid: int) -> None:
    """The socket is the target's own (SO_PEERCRED, unix(7)), not one put into its place."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    if struct.unpack("=iII", packed)[0] != pid:
        raise NotPermitted(
            f"cannot ask the JVM of process {pid}: its socket belongs to another process. "
            "Look at /tmp in its root, or do without this source."
        )


def _answer(connection: socket.socket, pid: int, deadline: float) -> str:
    parts: list[bytes] = []
    total = 0
    while True:
        chunk = connection.recv(_CHUNK_BYTES)
        if not chunk:
            return b"".join(parts).decode("utf-8", "replace")
        parts.append(chunk)
        total += len(chunk)
        if total > ANSWER_LIMIT_BYTES or time.monotonic() > deadline:
            raise _too_long(pid)


def _too_long(pid: int) -> LimitReached:
    return LimitReached(
        f"the JVM of process {pid} did not answer in time, or with more than is read. "
        "Try again when it is less busy, or do without this source."
    )
