"""Open descriptors: how many at every interval, and what they are as often as that is cheap.

The number is free on Linux 6.2 and newer (it is the size of the directory /proc/PID/fd); what a
descriptor is costs a readlink(2) of some 4 µs. So kinds are counted in rounds, as many links per
interval as `LINKS_SHARE` of the time pays for; a row has kinds when a round ends in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from os import O_DIRECTORY
from typing import NamedTuple, Optional

from leakcase_bundle.records import DescriptorGroup, DescriptorSeries
from leakcase_collector.errors import LimitReached, NotPermitted, NotSupported
from leakcase_collector.system.clock import thread_cpu_ns

from .base import Cadence, Context, Prediction, Probe
from .region_text import DELETED

#: Of the time, for reading links.
LINKS_SHARE = 0.0005
#: What may be spent before any time has passed.
_FIRST_CREDIT_NS = 2_000_000
_LINKS_PER_LOOK_AT_THE_CLOCK = 16
#: More are only counted: their names alone would take tens of megabytes.
_MAX_LISTED = 200_000
#: Links that are read for the groups at begin and at finish: some 20 ms.
GROUPED_LINKS = 4096
WRITTEN_PLACES = 16
_MAX_KNOWN_PATHS = 4096

_ANONYMOUS_INODES: Mapping[str, str] = {
    "eventpoll": "epoll",
    "eventfd": "eventfd",
    "timerfd": "timerfd",
    "signalfd": "signalfd",
    "inotify": "inotify",
    "fanotify": "fanotify",
    "io_uring": "io-uring",
    "pidfd": "pidfd",
    "perf_event": "perf-event",
    "userfaultfd": "userfaultfd",
}
_COLUMNS: Mapping[str, str] = {
    "file": "files",
    "deleted-file": "deleted_files",
    "directory": "directories",
    "socket": "sockets",
    "pipe": "pipes",
    "device": "devices",
    "terminal": "devices",
    "gpu-device": "devices",
    "epoll": "epolls",
    "eventfd": "eventfds",
    "timerfd": "timerfds",
    "inotify": "inotifies",
    "memfd": "memfds",
}
KIND_COLUMNS = (*dict.fromkeys(_COLUMNS.values()), "others")


class Link(NamedTuple):
    """What a descriptor leads to: a word of ``descriptor_kind``, and a path where it has one."""

    kind: str
    path: str = ""


def classify_link(text: str) -> Link:
    """What the text of /proc/PID/fd/N says (proc_pid_fd(5)); a directory passes as a file."""
    if text.startswith("/"):
        return _classify_path(text)
    scheme, _, rest = text.partition(":")
    if scheme in ("socket", "pipe", "pidfd"):
        return Link(scheme)
    if scheme == "anon_inode":
        name = rest.strip("[]")
        if name.startswith(("bpf", "btf")):
            return Link("bpf")
        return Link(_ANONYMOUS_INODES.get(name, "other"))
    return Link("other")


def _classify_path(text: str) -> Link:
    if text.startswith("/memfd:"):
        return Link("memfd")
    if text.startswith("/dmabuf:"):
        return Link("dmabuf")
    if text.startswith(("/dev/nvidia", "/dev/dri/", "/dev/kfd", "/dev/accel/")):
        return Link("gpu-device", text)
    if text.startswith(("/dev/pts/", "/dev/tty", "/dev/console", "/dev/ptmx")):
        return Link("terminal", text)
    deleted = DELETED.decode()
    if text.endswith(deleted):
        return Link("deleted-file", text[: -len(deleted)])
    in_dev = text.startswith("/dev/")
    if in_dev and not text.startswith(("/dev/shm/", "/dev/hugepages/", "/dev/mqueue/")):
        return Link("device", text)
    return Link("file", text)


def is_directory(fdinfo: bytes, o_directory: int = O_DIRECTORY) -> bool:
    """Whether a descriptor was opened as a directory, from the flags in /proc/PID/fdinfo/N.

    stat(2) would know better (a directory can be opened without O_DIRECTORY) but can hang for
    ever on a network file system whose server is away.
    """
    for line in fdinfo.split(b"\n"):
        if line.startswith(b"flags:"):
            try:
                return bool(int(line[6:], 8) & o_directory)
            except ValueError:
                return False
    return False


def count_by_column(kinds: Mapping[str, int]) -> dict[str, int]:
    """Counts by kind as columns of the series; those that do not occur are 0."""
    out = dict.fromkeys(KIND_COLUMNS, 0)
    for kind, count in kinds.items():
        out[_COLUMNS.get(kind, "others")] += count
    return out


def group_places(links: Mapping[Link, int], limit: int) -> list[tuple[Link, int]]:
    """The places most often led to, then what is left of each kind.

    Files that are open once each are grouped by their directory: a leak of descriptors leads as
    often to ever new files as to the same one.
    """
    places: Counter[Link] = Counter()
    rests: Counter[Link] = Counter()
    for link, count in links.items():
        if not link.path:
            rests[link] += count
        elif count > 1:
            places[link] += count
        else:
            places[link._replace(path=link.path.rpartition("/")[0] or "/")] += 1
    order = sorted(places, key=lambda link: (-places[link], link))
    for link in order[limit:]:
        rests[Link(link.kind)] += places[link]
    return [(link, places[link]) for link in order[:limit]] + sorted(rests.items())


class _Links:
    """Reads what descriptors lead to, remembering which paths are directories."""

    def __init__(self) -> None:
        self._directories: dict[str, bool] = {}

    def read(self, context: Context, name: str) -> Optional[Link]:
        """The descriptor's link; None if it was closed meanwhile."""
        try:
            link = classify_link(context.system.read_link(f"/proc/{context.pid}/fd/{name}"))
            if link.kind == "file" and self._leads_to_directory(context, name, link.path):
                return Link("directory", link.path)
        except NotSupported:
            return None
        return link

    def _leads_to_directory(self, context: Context, name: str, path: str) -> bool:
        known = self._directories.get(path)
        if known is None:
            if len(self._directories) >= _MAX_KNOWN_PATHS:
                self._directories.clear()
            fdinfo = context.system.read_bytes(f"/proc/{context.pid}/fdinfo/{name}")
            known = self._directories[path] = is_directory(fdinfo)
        return known


class DescriptorsProbe(Probe):
    """Open descriptors by kind, and the places to which most of them lead."""

    name = "descriptors"
    cadence = Cadence.TICK
    reads = "/proc/PID/fd: the number of descriptors and where they lead"

    def __init__(self) -> None:
        self._links = _Links()
        self._size_is_count = False
        self._may_list = True
        self._credit_ns = _FIRST_CREDIT_NS
        self._credited_ns: Optional[int] = None
        #: The round in progress: descriptors still to be looked at, and what was found so far.
        self._pending: list[str] = []
        self._found: Counter[str] = Counter()
        #: The kinds that `begin` counted, for the first row.
        self._fresh: Optional[dict[str, int]] = None

    def predict(self, context: Context) -> Prediction:
        """The share of an interval that may be spent on links, which most processes do not need."""
        return Prediction(cpu_ns=int(context.interval_ns * LINKS_SHARE))

    def begin(self, context: Context, taken_ns: int) -> None:
        size = context.system.status(f"/proc/{context.pid}/fd").st_size
        names = self._list(context)
        if names is None:
            # Even to those who may not list them, Linux 6.2 tells the number.
            self._size_is_count = context.system.is_live and size > 0
            return
        # Linux 6.2: the directory's size is the number of descriptors; before, it is 0.
        self._size_is_count = size > 0 and abs(size - len(names)) <= 8 + len(names) // 16
        self._fresh = self._write_groups(context, taken_ns, names)

    def sample(self, context: Context, taken_ns: int) -> None:
        started_ns = thread_cpu_ns()
        if self._credited_ns is not None:
            earned_ns = int((taken_ns - self._credited_ns) * LINKS_SHARE)
            self._credit_ns = min(self._credit_ns + earned_ns, _FIRST_CREDIT_NS)
        self._credited_ns = taken_ns
        total = self._total(context)
        kinds, self._fresh = self._fresh, None
        if kinds is None:
            kinds = self._go_on(context, started_ns)
        if total is not None or kinds is not None:
            context.sample(DescriptorSeries, taken_ns, total=total, **(kinds or {}))
        self._credit_ns -= thread_cpu_ns() - started_ns

    def finish(self, context: Context, taken_ns: int) -> None:
        names = self._list(context)
        if names is not None:
            kinds = self._write_groups(context, taken_ns, names)
            context.sample(DescriptorSeries, taken_ns, total=len(names), **(kinds or {}))

    def _list(self, context: Context) -> Optional[list[str]]:
        """The open descriptors; None, once and for all, where they may not or cannot be listed."""
        if not self._may_list:
            return None
        try:
            return context.system.list_directory(f"/proc/{context.pid}/fd", _MAX_LISTED)
        except (NotPermitted, LimitReached) as error:
            self._may_list = False
            context.gap(error, "fd")
            return None

    def _total(self, context: Context) -> Optional[int]:
        if self._size_is_count:
            return context.system.status(f"/proc/{context.pid}/fd").st_size
        names = self._list(context) if self._credit_ns > 0 else None
        return None if names is None else len(names)

    def _go_on(self, context: Context, started_ns: int) -> Optional[dict[str, int]]:
        """Look at as many descriptors as the credit pays for; the counts when a round ends.

        A round begins with a list of them all, at 1 µs each: when there are very many that is
        paid back by rounds that come more rarely.
        """
        if not self._pending:
            names = self._list(context) if self._credit_ns > 0 else None
            if names is None:
                return None
            self._pending = names
            self._found.clear()
        while self._pending:
            if thread_cpu_ns() - started_ns >= self._credit_ns:
                return None
            batch = self._pending[-_LINKS_PER_LOOK_AT_THE_CLOCK:]
            del self._pending[-_LINKS_PER_LOOK_AT_THE_CLOCK:]
            for name in batch:
                link = self._links.read(context, name)
                if link is not None:
                    self._found[link.kind] += 1
        return count_by_column(self._found)

    def _write_groups(
        self, context: Context, taken_ns: int, names: list[str]
    ) -> Optional[dict[str, int]]:
        """Write the groups; the counts by column, or None where there were too many to look at."""
        step = -(-len(names) // GROUPED_LINKS) or 1
        links: Counter[Link] = Counter()
        chosen = names[::step]
        for name in chosen:
            link = self._links.read(context, name)
            if link is not None:
                links[link] += 1
        if len(chosen) < len(names):
            context.loss("descriptors", len(names) - len(chosen))
        for link, count in group_places(links, WRITTEN_PLACES):
            path = context.redactor.path(link.path) if link.path else None
            context.emit(DescriptorGroup(taken_ns, link.kind, count, path))
        if len(chosen) < len(names):
            return None
        kinds: Counter[str] = Counter()
        for link, count in links.items():
            kinds[link.kind] += count
        return count_by_column(kinds)
