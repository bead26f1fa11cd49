from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

import pytest
from hypothesis import given, settings

from leakcase_bundle.records import SocketGroup, SocketSeries
from leakcase_bundle.vocabulary import VOCABULARIES
from leakcase_collector.probes.socket_tables import (
    TABLES,
    Row,
    inode_of,
    parse_inet_row,
    parse_netlink_row,
    parse_packet_row,
    parse_unix_row,
)
from leakcase_collector.probes.sockets import (
    WRITTEN_GROUPS,
    Ends,
    SocketsProbe,
    count_sockets,
    group_sockets,
)
from tests.collector.probes.children import python
from tests.collector.probes.context import RecordingContext, run
from tests.collector.probes.recording import machine
from tests.collector.probes.texts import changed

# Rows as the kernel prints them; addresses of documentation and loopback networks.
TCP_LISTEN = (
    b"   0: 00000000:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 "
    b"5001 1 0000000004e93682 100 0 0 10 0"
)
TCP_ACCEPTED = (
    b"   1: 0100007F:1F90 0200007F:D2F0 01 00000011:00000007 01:00000014 00000000  1000        0 "
    b"5002 2 0000000004e93682 20 4 30 10 -1"
)
TCP_CONNECTED = (
    b"   2: 0A0200C0:D2F0 076433C6:1538 08 00000000:00000000 00:00000000 00000000  1000        0 "
    b"5003 1 0000000004e93682 20 4 0 10 -1"
)
TCP6_MAPPED = (
    b"   0: 0000000000000000FFFF00000100007F:1F91 0000000000000000FFFF00000200007F:D2F1 01 "
    b"00000000:00000000 00:00000000 00000000  1000        0 5004 1 0000000004e93682 20 0 0 10 -1"
)
TCP6_LISTEN = (
    b"   1: B80D0120000000000000000001000000:0050 00000000000000000000000000000000:0000 0A "
    b"00000000:00000000 00:00000000 00000000     0        0 5005 1 0000000004e93682 100 0 0 10 0"
)
UDP = (
    b"  416: 00000000:0035 00000000:0000 07 00000000:00000300 00:00000000 00000000     0        0 "
    b"5006 2 0000000004e93682 0"
)
UNIX_LISTEN = b"0000000004e93682: 00000002 00000000 00010000 0001 01  5007 /run/service/api.sock"
UNIX_ACCEPTED = b"0000000004e93682: 00000003 00000000 00000000 0001 03  5008 /run/service/api.sock"
UNIX_PAIR = b"0000000004e93682: 00000003 00000000 00000000 0002 03  5009"
UNIX_ABSTRACT = b"0000000004e93682: 00000002 00000000 00000000 0005 01  5010 @a b@c"
NETLINK = b"00000000a1a58e7e 15  4711       00000000 9        5        0     2        0        5011"
PACKET = b"0000000004e93682 3      3    0003   2     1 640    0      5012"
HEADING = (
    b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout "
    b"inode"
)


def inet(line: bytes, protocol: str) -> Row:
    row = parse_inet_row(line, protocol, "little")
    assert row is not None
    return row


def test_tcp_rows_have_addresses_ports_states_and_queues() -> None:
    accepted = inet(TCP_ACCEPTED, "tcp")
    assert accepted == Row(
        5002, "tcp", "established", ("127.0.0.1", 8080), ("127.0.0.2", 54000), "", 7, 17
    )
    connected = inet(TCP_CONNECTED, "tcp")
    assert (connected.state, connected.remote) == ("close-wait", ("198.51.100.7", 5432))
    assert inet(TCP6_MAPPED, "tcp6").remote == ("::ffff:127.0.0.2", 54001)
    assert inet(TCP6_LISTEN, "tcp6").local == ("2001:db8::1", 80)


def test_a_listening_sockets_queue_of_connections_does_not_pass_for_bytes() -> None:
    row = inet(TCP_LISTEN, "tcp")
    assert (row.state, row.receive_bytes, row.send_bytes, row.remote) == (
        "listen",
        None,
        None,
        None,
    )


def test_addresses_are_read_in_the_byte_order_of_the_host() -> None:
    big = TCP_ACCEPTED.replace(b"0100007F", b"7F000001").replace(b"0200007F", b"7F000002")
    assert parse_inet_row(big, "tcp", "big") == inet(TCP_ACCEPTED, "tcp")


def test_the_end_of_a_stream_does_not_pass_for_a_byte_that_waits() -> None:
    waiting = TCP_CONNECTED.replace(b"00000000:00000000", b"00000000:00000008", 1)
    ended = TCP_CONNECTED.replace(b"00000000:00000000", b"00000000:00000001", 1)
    assert [inet(line, "tcp").receive_bytes for line in (waiting, ended, TCP_CONNECTED)] == [
        7,
        0,
        0,
    ]


def test_datagram_sockets_are_connected_or_not() -> None:
    row = inet(UDP, "udp")
    assert (row.state, row.local, row.remote, row.receive_bytes) == (
        "unconnected", ("0.0.0.0", 53), None, 768,
    )  # fmt: skip
    assert inet(TCP_ACCEPTED, "udp").state == "connected"


def test_unix_rows_have_types_states_and_names() -> None:
    def read(line: bytes) -> tuple[str, str, str]:
        row = parse_unix_row(line)
        assert row is not None
        return row.protocol, row.state, row.name

    assert read(UNIX_LISTEN) == ("unix-stream", "listen", "/run/service/api.sock")
    assert read(UNIX_ACCEPTED) == ("unix-stream", "connected", "/run/service/api.sock")
    assert read(UNIX_PAIR) == ("unix-datagram", "connected", "")
    assert read(UNIX_ABSTRACT) == ("unix-seqpacket", "unconnected", "@a b@c")


def test_netlink_and_packet_rows_have_their_queues() -> None:
    netlink, packet = parse_netlink_row(NETLINK), parse_packet_row(PACKET)
    assert netlink is not None and packet is not None
    assert (netlink.inode, netlink.receive_bytes, netlink.send_bytes) == (5011, 9, 5)
    assert (packet.inode, packet.receive_bytes, packet.send_bytes) == (5012, 640, None)


def test_headings_are_no_rows() -> None:
    for table in TABLES:
        assert table.parse(HEADING) is None
        assert table.parse(b"Num       RefCount Protocol Flags    Type St Inode Path") is None
        assert table.parse(b"") is None


@pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])
def test_any_text_is_a_row_that_a_case_can_hold_or_none(table: object) -> None:
    assert isinstance(table, type(TABLES[0]))
    examples = {"unix": UNIX_ABSTRACT, "netlink": NETLINK, "packet": PACKET}

    @settings(max_examples=100, deadline=None)
    @given(changed(examples.get(table.name, TCP_ACCEPTED)))
    def holds(line: bytes) -> None:
        row = table.parse(line)
        if row is None:
            return
        assert row.protocol in VOCABULARIES["socket_protocol"]
        assert row.state in VOCABULARIES["socket_state"]
        for number in (row.receive_bytes, row.send_bytes):
            assert number is None or 0 <= number < 1 << 63
        for peer in (row.local, row.remote):
            assert peer is None or 0 <= (peer[1] or 0) < 65536

    holds()


def test_only_links_to_sockets_have_an_inode() -> None:
    assert inode_of("socket:[4711]") == 4711
    for text in ("pipe:[4711]", "socket:[x]", "socket:[", "/socket:[1]", "", "socket:[²]"):
        assert inode_of(text) is None


ROWS = [
    inet(TCP_LISTEN, "tcp"),
    inet(TCP_ACCEPTED, "tcp"),
    inet(TCP_ACCEPTED.replace(b"D2F0", b"D2F4"), "tcp"),
    inet(TCP_CONNECTED, "tcp"),
    inet(UDP, "udp"),
]


def test_counts_are_by_protocol_and_state() -> None:
    assert count_sockets(ROWS, unmatched=2) == {
        "total": 7, "tcp": 4, "tcp_established": 2, "tcp_close_wait": 1, "tcp_listen": 1,
        "udp": 1, "unix": 0, "unmatched": 2,
        "receive_queue_bytes": 7 + 7 + 768, "send_queue_bytes": 34,
    }  # fmt: skip


def test_who_connected_is_grouped_by_address_and_where_to_we_connected_by_its_port() -> None:
    groups, folded = group_sockets(ROWS, 10)
    ends = {ends for ends, _ in groups}
    assert Ends("tcp", "established", ("127.0.0.2", None), "", 8080) in ends
    assert Ends("tcp", "close-wait", ("198.51.100.7", 5432)) in ends
    assert Ends("tcp", "listen", None, "", 8080) in ends
    assert Ends("udp", "unconnected", None, "", 53) in ends
    assert (len(groups), folded) == (4, 0)


def test_groups_beyond_the_limit_are_added_to_the_rest_of_their_state() -> None:
    rows = [
        Row(n, "tcp", "established", ("192.0.2.1", 40000), (f"198.51.100.{n}", 443), "", n, 0)
        for n in range(100)
    ]
    groups, folded = group_sockets(rows, 32)
    assert len(groups) == 33 and folded == 68
    assert groups[-1][0] == Ends("tcp", "established")
    assert sum(sums.sockets for _, sums in groups) == 100
    assert sum(sums.receive_bytes or 0 for _, sums in groups) == sum(range(100))


# --- the probe ----------------------------------------------------------------------------------


def recorded_machine(tmp_path: Path, inodes: range, tables: dict[str, bytes]) -> RecordingContext:
    files = {f"/proc/4711/net/{name}": text for name, text in tables.items()}
    links = {f"/proc/4711/fd/{3 + n}": f"socket:[{inode}]" for n, inode in enumerate(inodes)}
    links["/proc/4711/fd/0"] = "/dev/null"
    return RecordingContext(4711, machine(tmp_path, files, links))


def test_only_the_targets_own_rows_of_a_recorded_namespace_are_counted(tmp_path: Path) -> None:
    foreign = b"\n".join(TCP_ACCEPTED.replace(b"5002", b"%d" % n) for n in range(9000, 9500))
    tcp = b"\n".join([HEADING, TCP_LISTEN, foreign, TCP_ACCEPTED, TCP_CONNECTED, b""])
    unix = b"\n".join([b"Num RefCount", UNIX_LISTEN, UNIX_ACCEPTED, UNIX_PAIR, b""])
    context = recorded_machine(tmp_path, range(5001, 5010), {"tcp": tcp, "unix": unix})
    run(SocketsProbe(), context)
    row = context.rows_of(SocketSeries)[0]
    # 5004, 5005 and 5006 are in none of the tables that this machine has.
    assert {name: row[name] for name in ("total", "tcp", "unix", "udp", "unmatched")} == {
        "total": 9, "tcp": 3, "unix": 3, "udp": 0, "unmatched": 3,
    }  # fmt: skip
    groups = [g for g in context.emitted(SocketGroup) if g.taken_ns == row["taken_ns"]]
    assert sum(group.count for group in groups) == 6
    assert not any("127.0.0" in (group.peer or "") for group in groups)
    assert {g.local_port for g in groups if g.protocol == "tcp"} == {8080, None}
    assert context.gaps == [] and context.losses == []


def test_a_process_without_sockets_reads_no_table(tmp_path: Path) -> None:
    context = run(SocketsProbe(), recorded_machine(tmp_path, range(0), {"other": b""}))
    row = context.rows_of(SocketSeries)[0]
    assert row.pop("taken_ns") is not None
    assert set(row.values()) == {0}
    assert context.emitted(SocketGroup) == []


def test_when_time_runs_out_a_row_has_the_total_and_nothing_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leakcase_collector.probes.sockets.TABLES_TIME_NS", -1)
    context = recorded_machine(tmp_path, range(5001, 5004), {"unix": UNIX_PAIR, "tcp": TCP_LISTEN})
    SocketsProbe().begin(context, 0)
    assert context.rows_of(SocketSeries) == [{"taken_ns": 0, "total": 3}]
    assert context.losses == [("sockets", 3)]


def test_of_very_many_descriptors_some_are_looked_at_and_the_rest_is_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leakcase_collector.probes.sockets.MAX_DESCRIPTORS", 10)
    rows = [TCP_ACCEPTED.replace(b"5002", b"%d" % n) for n in range(6000, 6100)]
    context = recorded_machine(tmp_path, range(6000, 6100), {"tcp": b"\n".join(rows)})
    run(SocketsProbe(), context)
    assert context.rows_of(SocketSeries) == []
    assert len(context.losses) == 2
    looked_at = 101 - context.losses[0][1]
    assert looked_at <= 10
    counts = [group.count for group in context.emitted(SocketGroup)]
    assert len(counts) == 2 and looked_at - 1 <= counts[0] <= looked_at


OPEN = """
import socket, sys
print('ready', flush=True); sys.stdin.readline()
listening = [socket.socket() for _ in range(5)]
for s in listening:
    s.bind(("127.0.0.1", 0)); s.listen(8)
clients = [socket.create_connection(listening[0].getsockname()) for _ in range(3)]
accepted = [listening[0].accept()[0] for _ in range(3)]
clients[0].sendall(b"x" * 1009)
accepted[2].close()
bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); bound.bind(("127.0.0.1", 0))
pair = socket.socketpair()
named = socket.socket(socket.AF_UNIX); named.bind(sys.argv[1]); named.listen(1)
loose = socket.socket()
keep = [listening, clients, accepted, bound, pair, named, loose]
import select; assert select.select([clients[2]], [], [], 5)[0]
"""


def _total(row: dict[str, Optional[int]], name: str) -> int:
    value = row[name]
    assert value is not None
    return value


def test_the_sockets_of_a_process_are_counted_exactly(tmp_path: Path) -> None:
    path = str(tmp_path / "api.sock")
    if len(os.fsencode(path)) > 100:
        path = f"/tmp/leakcase-test-{os.getpid()}.sock"
    with python(OPEN, arguments=[path]) as child:
        probe, context = SocketsProbe(), RecordingContext(child.pid)
        probe.begin(context, 0)
        child.tell()
        probe.finish(context, 1)
    before, after = context.rows_of(SocketSeries)
    assert {name: _total(after, name) - _total(before, name) for name in before} == {
        "taken_ns": 1, "total": 15, "tcp": 10, "tcp_established": 4, "tcp_close_wait": 1,
        "tcp_listen": 5, "udp": 1, "unix": 3, "unmatched": 1,
        "receive_queue_bytes": 1009, "send_queue_bytes": 0,
    }  # fmt: skip
    groups = [g for g in context.emitted(SocketGroup) if g.taken_ns == 1]
    accepted = [g for g in groups if g.state == "established" and g.local_port is not None]
    assert [(g.count, g.receive_queue_bytes) for g in accepted] == [(2, 1009)]
    assert accepted[0].peer is not None and accepted[0].peer.startswith("<loopback:")
    assert not any(path in (g.peer or "") for g in groups)
    assert len(groups) <= WRITTEN_GROUPS
