"""``mark PID LABEL``: a label for the target's activity, sent into a running capture of it.

The capture listens on an abstract unix socket named after the target and itself. Nothing is
created in the file system, so a killed capture leaves nothing behind, and the kernel tells each
side who the other is (SO_PEERCRED, unix(7)): both must be the same user, or root.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Optional

from leakcase_bundle.strings import LabelToken

from .errors import CollectorError, NotPermitted, TargetGone, UsageError
from .system.door import System

_PREFIX = "leakcase/mark"
_TIMEOUT_SECONDS = 2.0
_MAX_BYTES = 64
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class MarkListener:
    """The capture's end. `descriptor` is readable when somebody wants to set a mark."""

    def __init__(self, target_pid: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._socket.bind(f"\0{_PREFIX}/{target_pid}/{os.getpid()}")
        self._socket.listen(4)

    @property
    def descriptor(self) -> int:
        """For a poll."""
        return self._socket.fileno()

    def accept(self) -> Optional[LabelToken]:
        """The label of one waiting request, answered; None where it was no good."""
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return None
        with connection:
            connection.settimeout(0.2)
            try:
                if _peer_uid(connection) not in (0, os.getuid()):
                    return None
                label = LabelToken(connection.recv(_MAX_BYTES).decode("ascii"))
                good = label.is_well_formed()
                connection.send(b"ok" if good else b"bad")
            except (OSError, UnicodeDecodeError):
                return None
        return label if good else None

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def send_mark(system: System, target_pid: int, label: str) -> int:
    """Set `label` in every capture of the target that is ours; returns how many took it."""
    if not LabelToken(label).is_well_formed():
        raise UsageError(
            f"mark: the label {label!r} cannot be used: lower-case letters, digits and hyphens, "
            "32 at most, such as active, idle or deploy."
        )
    names = _listening(system, target_pid)
    taken = 0
    error: Optional[CollectorError] = None
    for name in names:
        try:
            taken += _send(name, label)
        except CollectorError as failure:
            error = failure
    if taken == 0:
        raise error or TargetGone(
            f"mark: no capture of process {target_pid} is running here. "
            f"Start one with: leakcase-collect capture {target_pid}"
        )
    return taken


def _listening(system: System, target_pid: int) -> list[str]:
    wanted = f"@{_PREFIX}/{target_pid}/".encode("ascii")
    found = set()
    for line in system.read_lines("/proc/net/unix"):
        fields = line.split()
        if len(fields) >= 8 and fields[7].startswith(wanted):
            found.add(fields[7][1:].decode("ascii", "replace"))
    return sorted(found)


def _send(name: str, label: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(_TIMEOUT_SECONDS)
        try:
            connection.connect("\0" + name)
            if os.getuid() != 0 and _peer_uid(connection) not in (0, os.getuid()):
                raise NotPermitted(
                    "mark: the running capture belongs to another user. Run mark as that user."
                )
            connection.send(label.encode("ascii"))
            return connection.recv(_MAX_BYTES) == b"ok"
        except OSError as error:
            raise NotPermitted(
                "mark: the running capture did not take the label "
                f"({os.strerror(error.errno) if error.errno else 'no answer'}). "
                "Run mark as the user who runs the capture."
            ) from error


def _peer_uid(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])
