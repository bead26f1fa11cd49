"""The process's own sockets: connections that nobody closes, and queues that nobody empties."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Finding, Observation
from leakcase_analyzer.findings.tracks import Quantity, column
from leakcase_analyzer.findings.trends import Knowledge, trend
from leakcase_analyzer.sentences import Count, Size, say

QUEUES = {"receive_queue_bytes": "received and not read", "send_queue_bytes": "sent and not taken"}
#: Bytes in queues that are worth a word.
LARGE_QUEUE_BYTES = 1 << 20
SOCKETS = Quantity("sockets", "sockets", "sockets", column("sockets", "total"))


def sockets(evidence: Evidence) -> Iterator[Finding]:
    """They are descriptors too, so their growth is counted there."""
    found = trend(evidence, SOCKETS, Knowledge(counts=False))
    columns = evidence.columns("sockets")
    if found is None or columns is None:
        return
    yield found
    waiting = columns.growth("tcp_close_wait")
    if waiting is not None and waiting >= max(4.0, (found.last - found.first) / 2):
        yield Observation(
            topic="close-wait",
            claim=say(
                "{count} more than at first wait in CLOSE_WAIT: the other side has closed them, "
                "this process has not",
                count=Count(waiting, "TCP connection"),
            ),
        )
    for name, words in QUEUES.items():
        queued = columns.last(name)
        if queued is not None and queued >= LARGE_QUEUE_BYTES:
            yield Observation(
                topic="socket-queues",
                claim=say(
                    "{size} of " + words + " data wait in its sockets, in the kernel's memory",
                    size=Size(queued),
                ),
            )
