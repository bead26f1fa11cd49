"""The process's own sockets: /proc/PID/fd joined by inode with the kernel's tables.

The tables under /proc/PID/net show the target's network namespace, all of it; only the rows whose
inode one of the target's descriptors names are the target's (proc_pid_net(5), proc_net_tcp.rst).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Optional

from leakcase_bundle.records import SocketGroup, SocketSeries
from leakcase_bundle.strings import AddressToken
from leakcase_collector.errors import LimitReached, NotPermitted, NotSupported
from leakcase_collector.system.clock import NS_PER_MS, monotonic_ns

from .base import Cadence, Context, Prediction, Probe
from .socket_tables import TABLES, Peer, Row, Table, inode_of

#: Descriptors whose links are read at once: some 150 ms.
MAX_DESCRIPTORS = 32_768
WRITTEN_GROUPS = 32
#: For all tables together; a host can have hundreds of thousands of connections.
TABLES_TIME_NS = 150 * NS_PER_MS
#: From here on ports are given to whoever asks for any (net.ipv4.ip_local_port_range).
_EPHEMERAL_PORT = 32768
_ROWS_PER_LOOK_AT_THE_CLOCK = 128


def count_sockets(rows: Iterable[Row], unmatched: int) -> dict[str, Optional[int]]:
    """The columns of one sample. Queued bytes are of the protocols whose tables tell them."""
    counts = dict.fromkeys(
        "total tcp tcp_established tcp_close_wait tcp_listen udp unix receive_queue_bytes "
        "send_queue_bytes".split(),
        0,
    )
    for row in rows:
        counts["total"] += 1
        family = row.protocol.rstrip("6").partition("-")[0]
        if family in ("tcp", "udp", "unix"):
            counts[family] += 1
        if family == "tcp" and row.state in ("established", "close-wait", "listen"):
            counts["tcp_" + row.state.replace("-", "_")] += 1
        counts["receive_queue_bytes"] += row.receive_bytes or 0
        counts["send_queue_bytes"] += row.send_bytes or 0
    counts["total"] += unmatched
    return {**counts, "unmatched": unmatched}


class Ends(NamedTuple):
    """What sockets of one group have in common."""

    protocol: str
    state: str
    peer: Optional[Peer] = None
    name: str = ""
    local_port: Optional[int] = None


class Sums(NamedTuple):
    sockets: int = 0
    receive_bytes: Optional[int] = None
    send_bytes: Optional[int] = None

    def plus(self, sockets: int, receive: Optional[int], send: Optional[int]) -> Sums:
        return Sums(
            self.sockets + sockets,
            _add(self.receive_bytes, receive),
            _add(self.send_bytes, send),
        )


def _add(one: Optional[int], other: Optional[int]) -> Optional[int]:
    return one if other is None else other + (one or 0)


def ends_of(row: Row, listening: frozenset[tuple[str, Optional[int]]]) -> Ends:
    """The group of a socket; `listening` are the protocols and ports on which the target listens.

    Who connected to us has a new port each time, so only the address counts; whom we connected to
    has a port that says what it is, and ours is the one that changes.
    """
    port = row.local[1] if row.local is not None else None
    if row.remote is None:
        if row.state != "listen" and port is not None and port >= _EPHEMERAL_PORT:
            port = None
        return Ends(row.protocol, row.state, None, row.name, port)
    if port is not None and (row.protocol, port) in listening:
        return Ends(row.protocol, row.state, (row.remote[0], None), "", port)
    return Ends(row.protocol, row.state, row.remote)


def group_sockets(rows: Iterable[Row], limit: int) -> tuple[list[tuple[Ends, Sums]], int]:
    """The largest groups and the rests of their protocols and states; how many were folded."""
    rows = list(rows)
    listening = frozenset(
        (row.protocol, row.local[1])
        for row in rows
        if row.state == "listen" and row.local is not None
    )
    groups: dict[Ends, Sums] = {}
    for row in rows:
        ends = ends_of(row, listening)
        known = groups.get(ends, Sums())
        groups[ends] = known.plus(1, row.receive_bytes, row.send_bytes)
    order = sorted(groups, key=lambda ends: (-groups[ends].sockets, str(ends)))
    rests: dict[Ends, Sums] = {}
    for ends in order[limit:]:
        rest = Ends(ends.protocol, ends.state)
        sums = groups[ends]
        rests[rest] = rests.get(rest, Sums()).plus(*sums)
    found = [(ends, groups[ends]) for ends in order[:limit]]
    return found + list(rests.items()), max(0, len(order) - limit)


class Seen(NamedTuple):
    """The rows of the target's sockets, and what could not be found out."""

    rows: list[Row]
    #: Sockets that are in none of the tables.
    unmatched: int
    #: Sockets whose tables were not read to their ends.
    unread: int


class SocketsProbe(Probe):
    """The target's own sockets by protocol, state and peer, with what waits in their queues."""

    name = "sockets"
    cadence = Cadence.PACED
    reads = "/proc/PID/fd joined with /proc/PID/net/tcp, udp, unix and their like"

    def predict(self, context: Context) -> Prediction:
        """From the number of descriptors, where the kernel tells it (Linux 6.2)."""
        count = context.system.status(f"/proc/{context.pid}/fd").st_size
        return Prediction(cpu_ns=2_000_000 + 6_000 * min(count, MAX_DESCRIPTORS))

    def begin(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns, with_groups=True)

    def sample(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns, with_groups=False)

    def finish(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns, with_groups=True)

    def _take(self, context: Context, taken_ns: int, with_groups: bool) -> None:
        names = context.system.list_directory(f"/proc/{context.pid}/fd")
        chosen = names[:: -(-len(names) // MAX_DESCRIPTORS) or 1]
        left_out = len(names) - len(chosen)
        if left_out and not with_groups:
            return  # A sample of the descriptors would pass for all of them.
        inodes = own_inodes(context, chosen)
        seen = find_rows(context, inodes)
        if not left_out:
            values: dict[str, Optional[int]] = {"total": len(inodes)}
            if not seen.unread:
                values = count_sockets(seen.rows, seen.unmatched)
            context.sample(SocketSeries, taken_ns, **values)
        if with_groups:
            self._write_groups(context, taken_ns, seen.rows)
            if left_out:
                context.loss("descriptors", left_out)
            if seen.unread:
                context.loss("sockets", seen.unread)

    def _write_groups(self, context: Context, taken_ns: int, rows: list[Row]) -> None:
        groups, folded = group_sockets(rows, WRITTEN_GROUPS)
        for ends, sums in groups:
            peer: Optional[AddressToken] = None
            if ends.peer is not None:
                peer = context.redactor.address(*ends.peer)
            elif ends.name:
                peer = context.redactor.unix_address(ends.name)
            context.emit(
                SocketGroup(
                    taken_ns,
                    ends.protocol,
                    ends.state,
                    sums.sockets,
                    peer=peer,
                    receive_queue_bytes=sums.receive_bytes,
                    send_queue_bytes=sums.send_bytes,
                    local_port=ends.local_port,
                )
            )
        if folded:
            context.loss("rows", folded)


def own_inodes(context: Context, names: list[str]) -> set[int]:
    """The inodes of the sockets among these descriptors of the target."""
    inodes: set[int] = set()
    for name in names:
        try:
            inode = inode_of(context.system.read_link(f"/proc/{context.pid}/fd/{name}"))
        except NotSupported:
            continue  # closed meanwhile
        if inode is not None:
            inodes.add(inode)
    return inodes


def find_rows(context: Context, inodes: set[int]) -> Seen:
    """The tables' rows of these sockets; no table is read further than needed."""
    rows: list[Row] = []
    wanted = {b"%d" % inode for inode in inodes}
    deadline_ns = monotonic_ns() + TABLES_TIME_NS
    is_whole = True
    for table in TABLES:
        if not wanted:
            break
        try:
            is_whole &= _search(context, table, wanted, rows, deadline_ns)
        except NotSupported:
            continue  # This kernel has no such protocol, so the target has no such socket.
        except (NotPermitted, LimitReached) as error:
            context.gap(error, "net")
            is_whole = False
    if is_whole:
        return Seen(rows, len(wanted), 0)
    return Seen(rows, 0, len(wanted))


def _search(
    context: Context, table: Table, wanted: set[bytes], rows: list[Row], deadline_ns: int
) -> bool:
    """Move what one table has of the wanted inodes to `rows`; False when time ran out."""
    lines = context.system.read_lines(f"/proc/{context.pid}/net/{table.name}")
    for number, line in enumerate(lines):
        if not number % _ROWS_PER_LOOK_AT_THE_CLOCK and monotonic_ns() > deadline_ns:
            return False
        words = line.split(None, table.inode_at + 1)
        if len(words) <= table.inode_at or words[table.inode_at] not in wanted:
            continue
        row = table.parse(line)
        if row is not None:
            rows.append(row)
            wanted.discard(words[table.inode_at])
            if not wanted:
                break
    return True
