"""The kernel's tables of sockets: the text of /proc/PID/net/tcp, unix and their like.

Nothing here raises, whatever the text. See proc_pid_net(5) and the kernel's get_tcp4_sock,
unix_seq_show, netlink_native_seq_show, packet_seq_show.
"""

from __future__ import annotations

import socket
import sys
from functools import partial
from typing import Callable, NamedTuple, Optional

from .figures import whole

#: TCP states of include/net/tcp_states.h.
_TCP_STATES = (
    "other established syn-sent syn-recv fin-wait1 fin-wait2 time-wait close close-wait last-ack "
    "listen closing new-syn-recv"
).split()
_FIN_RECEIVED = ("close-wait", "last-ack", "closing")
#: socket_state of include/uapi/linux/net.h.
_UNIX_STATES = ("other", "unconnected", "connecting", "connected", "disconnecting")
_UNIX_TYPES = {1: "unix-stream", 2: "unix-datagram", 5: "unix-seqpacket"}
#: Set on a listening Unix socket (__SO_ACCEPTCON).
_ACCEPTING = 0x10000

#: An address and a port; on who connected to us only the address counts.
Peer = tuple[str, Optional[int]]


class Row(NamedTuple):
    """One row of one of the kernel's tables."""

    inode: int
    protocol: str
    state: str
    local: Optional[Peer] = None
    #: None: not connected.
    remote: Optional[Peer] = None
    #: The name that a Unix socket is bound to.
    name: str = ""
    receive_bytes: Optional[int] = None
    send_bytes: Optional[int] = None


# --- the tables ---------------------------------------------------------------------------------


def parse_inet_row(line: bytes, protocol: str, byte_order: str = sys.byteorder) -> Optional[Row]:
    """A row of tcp, tcp6, udp, udp6, udplite, raw or raw6; None for the heading or another text."""
    words = line.split()
    try:
        inode, state_number = int(words[9]), int(words[3], 16)
        send, receive = (_queued(part) for part in words[4].split(b":"))
        local, remote = _peer(words[1], byte_order), _peer(words[2], byte_order)
    except (ValueError, IndexError):
        return None
    state = _TCP_STATES[state_number] if 0 <= state_number < len(_TCP_STATES) else "other"
    if not protocol.startswith("tcp"):
        # Datagram sockets use two of TCP's states: connected, and not.
        state = "connected" if state == "established" else "unconnected"
    if state == "listen":
        # Here the columns are the length and the limit of the queue of connections, not bytes.
        return Row(inode, protocol, state, local)
    if state in _FIN_RECEIVED and receive:
        # The end of the stream takes a place in the sequence and waits in the queue, too.
        receive -= 1
    is_connected = state != "unconnected"
    return Row(
        inode, protocol, state, local, remote if is_connected else None, "", receive, send
    )  # fmt: skip


def _queued(text: bytes) -> int:
    number = int(text, 16)
    if not 0 <= number < 1 << 32:
        raise ValueError("no 32-bit number")
    return number


def _peer(text: bytes, byte_order: str) -> Peer:
    """``0100007F:1F90``: 32-bit words of the host's byte order, and the port."""
    digits, _, port = text.partition(b":")
    raw = bytes.fromhex(digits.decode("ascii"))
    if len(raw) not in (4, 16):
        raise ValueError("neither IPv4 nor IPv6")
    if byte_order == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    number = int(port, 16)
    if not 0 <= number < 65536:
        raise ValueError("no port")
    return socket.inet_ntop(family, raw), number


def parse_unix_row(line: bytes) -> Optional[Row]:
    """A row of /proc/net/unix (proc_net_unix(5)); None for the heading or another text."""
    words = line.split(None, 7)
    try:
        flags, kind, state_number = int(words[3], 16), int(words[4], 16), int(words[5], 16)
        inode = int(words[6])
    except (ValueError, IndexError):
        return None
    protocol = _UNIX_TYPES.get(kind, "other")
    state = _UNIX_STATES[state_number] if 0 <= state_number < len(_UNIX_STATES) else "other"
    if flags & _ACCEPTING:
        state = "listen"
    name = words[7].decode("utf-8", "surrogateescape") if len(words) > 7 else ""
    return Row(inode, protocol, state, name=name)


def parse_netlink_row(line: bytes) -> Optional[Row]:
    """A row of /proc/net/netlink: sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode."""
    return _kernel_row(line, "netlink", inode_at=9, receive_at=4, send_at=5)


def parse_packet_row(line: bytes) -> Optional[Row]:
    """A row of /proc/net/packet: sk RefCnt Type Proto Iface R Rmem User Inode."""
    return _kernel_row(line, "packet", inode_at=8, receive_at=6, send_at=None)


def _kernel_row(
    line: bytes, protocol: str, inode_at: int, receive_at: int, send_at: Optional[int]
) -> Optional[Row]:
    words = line.split()
    if len(words) <= inode_at:
        return None
    inode, receive = whole(words[inode_at]), whole(words[receive_at])
    if inode is None or receive is None:
        return None
    send = None if send_at is None else whole(words[send_at])
    return Row(inode, protocol, "unconnected", receive_bytes=receive, send_bytes=send)


class Table(NamedTuple):
    """A file under /proc/PID/net: its name, the column of the inode, the parser of a row."""

    name: str
    inode_at: int
    parse: Callable[[bytes], Optional[Row]]


def _inet(name: str, protocol: str) -> Table:
    return Table(name, 9, partial(parse_inet_row, protocol=protocol))


#: Most processes have all their sockets in the first three.
TABLES: tuple[Table, ...] = (
    Table("unix", 6, parse_unix_row),
    _inet("tcp", "tcp"),
    _inet("tcp6", "tcp6"),
    _inet("udp", "udp"),
    _inet("udp6", "udp6"),
    Table("netlink", 9, parse_netlink_row),
    Table("packet", 8, parse_packet_row),
    _inet("raw", "raw"),
    _inet("raw6", "raw"),
    _inet("udplite", "other"),
    _inet("udplite6", "other"),
    _inet("icmp", "other"),
    _inet("icmp6", "other"),
)


def inode_of(link: str) -> Optional[int]:
    """The inode in ``socket:[4711]``, or None where the link is something else."""
    if link.startswith("socket:[") and link.endswith("]") and link[8:-1].isdecimal():
        return int(link[8:-1])
    return None
