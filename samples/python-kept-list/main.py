"""A service that puts every session into a list and never takes one out."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import Sample  # noqa: E402

SESSIONS_PER_SECOND = 499
STATE_BYTES = 401
# What one session makes resident, in pymalloc's pools (Objects/obmalloc.c): a bytes object of
# 33 + 401 bytes in size class 448, of which 36 share a 16 KiB pool (9 a 4 KiB pool before 3.10);
# a Session of 40 bytes, collector's header included, in class 48, 340 in a pool; and 8 bytes in
# the list.
RESIDENT_BYTES = 16384 // 36 + 16384 // 340 + 8


class Session:
    """What a user of the service has open."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = bytes(STATE_BYTES)


sessions: list[Session] = []


def keep_session() -> None:
    sessions.append(Session())  # LEAK


def main() -> None:
    sample = Sample("python-kept-list")
    for _ in sample.ticks():
        while len(sessions) < sample.due(SESSIONS_PER_SECOND):
            keep_session()
    sample.end(len(sessions) * RESIDENT_BYTES, len(sessions))


if __name__ == "__main__":
    main()
