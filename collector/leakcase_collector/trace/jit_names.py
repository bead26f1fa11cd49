"""Names of code that a runtime wrote while it ran, from the map that it leaves for profilers.

The runtime appends one line per piece of code, "START SIZE name" with hexadecimal numbers, to
``/tmp/perf-PID.map``, PID as it sees itself (tools/perf/Documentation/jit-interface.txt). Node
does so with --perf-basic-prof, CPython with -X perf, the JVM with an agent.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from typing import NamedTuple

from leakcase_collector.errors import CollectorError, LimitReached
from leakcase_collector.system.clock import monotonic_ns
from leakcase_collector.system.door import System
from leakcase_collector.system.files import TargetFile

_FILE_LIMIT_BYTES = 64 * 1024 * 1024
_ENTRIES_MAX = 200_000
_NAME_LIMIT_BYTES = 1024
_ADDRESS_MAX = (1 << 64) - 1
#: Pieces that overlap were written after one another; the latest is what is there now.
_LOOK_BACK = 8
_STATUS = re.compile(rb"^(NSpid|Uid):\s*([\d\t ]+)$", re.MULTILINE)
_LINE = re.compile(rb"([0-9a-fA-F]{1,16}) ([0-9a-fA-F]{1,8}) .")
#: V8: "LazyCompile:*name path:line:column"; * ~ ^ + tell how it was compiled.
_V8 = re.compile(
    r"[A-Z][A-Za-z]*:[*~^+]?(?P<name>\S*) (?P<file>\S.*?)?:(?P<line>[0-9]{1,9}):[0-9]{1,9}$"
)
#: V8 names the code of a regular expression by its text, which is the program's own business.
_V8_EXPRESSION = "RegExp:"
#: CPython: "py::name:path".
_CPYTHON = re.compile(r"py::(?P<name>.+?):(?P<file>[/<].*)$")
#: Where in a name of unknown form a path begins; "Lcom/example/Cache;::put" has none.
_PATH = re.compile(r"\W*(?<!\w)/")
#: Reading a map takes no more than one part in so many of our time.
_REST_FACTOR = 50


class JitName(NamedTuple):
    """A function, and where its source is, if the runtime says so; `offset` from its start."""

    name: str
    offset: int
    file: str | None
    line: int | None


class JitNames:
    """The map of one process, read again whenever it has grown and an address is not in it.

    A map that somebody else could have written is not believed: it must belong to the user that
    the process runs as.
    """

    def __init__(self, system: System, pid: int) -> None:
        self._system, self._pid = system, pid
        self._file: TargetFile | None = None
        self._size_bytes = -1
        self._rests_until_ns = 0
        self._starts, self._ends, self._places = array("Q"), array("Q"), array("Q")

    def name_of(self, address: int) -> JitName | None:
        """What the code at an address of the process is; None where no map tells."""
        found = self._lookup(address)
        if found is None and self._has_grown():
            found = self._lookup(address)
        return found

    def _lookup(self, address: int) -> JitName | None:
        after = bisect_right(self._starts, address)
        latest = -1
        for place in range(after - 1, max(after - 1 - _LOOK_BACK, -1), -1):
            is_later = latest < 0 or self._places[place] > self._places[latest]
            if address < self._ends[place] and is_later:
                latest = place
        if latest < 0 or self._file is None:
            return None
        line = self._file.read_at(self._places[latest], _NAME_LIMIT_BYTES).partition(b"\n")[0]
        words = line.split(b" ", 2)
        if len(words) < 3:
            return None  # It was written anew since.
        return _told(words[2].decode("utf-8", "replace"), address - self._starts[latest])

    def _has_grown(self) -> bool:
        """Read the map if there is more of it than was read before; whether there was."""
        started_ns = monotonic_ns()
        if started_ns < self._rests_until_ns:
            return False
        try:
            file = self._open()
        except CollectorError:
            return False
        if file is None or file.size_bytes <= self._size_bytes:
            return False
        self._file, self._size_bytes = file, file.size_bytes
        try:
            self._read(file)
        except LimitReached:
            return False
        finally:
            now_ns = monotonic_ns()
            self._rests_until_ns = now_ns + _REST_FACTOR * (now_ns - started_ns)
        return True

    def _open(self) -> TargetFile | None:
        status = dict(_STATUS.findall(self._system.read_bytes(f"/proc/{self._pid}/status")))
        own_pid = int(status.get(b"NSpid", b"%d" % self._pid).split()[-1])
        file = self._system.open_target_file(self._pid, f"/tmp/perf-{own_pid}.map")
        effective = int(status[b"Uid"].split()[1]) if b"Uid" in status else None
        return file if file.owner == effective else None

    def _read(self, file: TargetFile) -> None:
        starts, ends, places = array("Q"), array("Q"), array("Q")
        place = 0
        for line in file.lines(_FILE_LIMIT_BYTES):
            match = _LINE.match(line)
            if match and len(starts) < _ENTRIES_MAX:
                start = int(match[1], 16)
                starts.append(start)
                ends.append(min(start + int(match[2], 16), _ADDRESS_MAX))
                places.append(place)
            place += len(line) + 1
        order = sorted(range(len(starts)), key=starts.__getitem__)
        self._starts = array("Q", map(starts.__getitem__, order))
        self._ends = array("Q", map(ends.__getitem__, order))
        self._places = array("Q", map(places.__getitem__, order))


def _told(text: str, offset: int) -> JitName:
    match = _V8.match(text)
    if match:
        return JitName(match["name"] or "(anonymous)", offset, match["file"], int(match["line"]))
    match = _CPYTHON.match(text)
    if match:
        return JitName(match["name"], offset, match["file"], None)
    if text.startswith(_V8_EXPRESSION):
        text = "RegExp"
    return JitName(_PATH.split(text, 1)[0] or "(anonymous)", offset, None, None)
