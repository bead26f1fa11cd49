"""Snapshots: the state of something with many parts at one instant, a record per group."""

from __future__ import annotations

from typing import Optional

from leakcase_bundle.schema import record, says, word
from leakcase_bundle.strings import AddressToken, NameToken, PathToken


@record("region_snapshot")
class RegionSnapshot:
    """One reading of the target's mappings; its `region` records carry the same number."""

    snapshot: int
    taken_ns: int
    source: str = word("region_source", "maps: sizes only; smaps: resident sizes as well.")
    mappings: int = says("Lines of the kernel's table.")
    read_ns: int = says("How long the read took: it holds the target's mmap lock.")
    complete: bool
    groups_folded: Optional[int] = says(
        "Small groups that were added to the rest of their kind, to bound the case.", default=None
    )


@record("region")
class Region:
    """Mappings of one kind, file and protection at one snapshot, added up.

    With `start_address` it is one single large mapping, also counted in its group. A group whose
    protections are absent is the rest of its kind: small groups folded into one, so that the
    groups of a kind always add up to all of it.
    """

    snapshot: int
    kind: str = word("region_kind")
    count: int
    size_bytes: int
    path: Optional[PathToken] = None
    name: Optional[NameToken] = says(
        "A name given by the program ([anon:...], memfd:...).", default=None
    )
    writable: Optional[bool] = None
    executable: Optional[bool] = None
    shared: Optional[bool] = None
    start_address: Optional[int] = None
    rss_bytes: Optional[int] = None
    pss_bytes: Optional[int] = None
    private_dirty_bytes: Optional[int] = None
    private_clean_bytes: Optional[int] = None
    shared_dirty_bytes: Optional[int] = None
    shared_clean_bytes: Optional[int] = None
    anonymous_bytes: Optional[int] = None
    referenced_bytes: Optional[int] = None
    huge_bytes: Optional[int] = says("Transparent huge pages and hugetlb.", default=None)
    swap_bytes: Optional[int] = None
    locked_bytes: Optional[int] = None


@record("thread_group")
class ThreadGroup:
    """Threads of one name (digits folded) at one instant."""

    taken_ns: int
    name: NameToken
    count: int
    cpu_ns: Optional[int] = None


@record("descriptor_group")
class DescriptorGroup:
    """Descriptors that lead to the same place, at one instant; the place is a pseudonym.

    Files that are open once each are grouped by their directory. Without a path: what has none
    (sockets, pipes), and the rest of a kind.
    """

    taken_ns: int
    kind: str = word("descriptor_kind")
    count: int
    path: Optional[PathToken] = None


@record("socket_group")
class SocketGroup:
    """Sockets of one protocol, state and peer at one instant."""

    taken_ns: int
    protocol: str = word("socket_protocol")
    state: str = word("socket_state")
    count: int
    peer: Optional[AddressToken] = says(
        "Where the process connected to, with the port; who connected to it, without. Of a Unix "
        "socket: the name it is bound to. Absent in the rest of a protocol and state.",
        default=None,
    )
    receive_queue_bytes: Optional[int] = None
    send_queue_bytes: Optional[int] = None
    local_port: Optional[int] = says(
        "The port on which the process listens or was connected to.", default=None
    )


@record("gpu_memory")
class GpuMemory:
    """Memory that the target holds on a GPU, by region."""

    taken_ns: int
    source: str = word("gpu_source")
    driver: str = word("gpu_driver")
    region: str = word("gpu_region")
    clients: int
    resident_bytes: Optional[int] = says("drm-resident-* or drm-memory-*.", default=None)
    total_bytes: Optional[int] = says("drm-total-*.", default=None)
    shared_bytes: Optional[int] = says("drm-shared-*: in other clients as well.", default=None)
    purgeable_bytes: Optional[int] = says(
        "drm-purgeable-*: resident, and free to take.", default=None
    )


@record("oom_kill")
class OomKill:
    """A kill by the kernel's OOM killer, from its log."""

    taken_ns: int = says("On the monotonic clock; may be before the capture.")
    name: NameToken
    pid: int
    is_target: Optional[bool] = says(
        "Whether it is the target; None where the collector's pids are not the kernel's."
    )
    in_target_cgroup: Optional[bool] = says("Or in one below it.", default=None)
    rss_anon_bytes: Optional[int] = None
    limited_by_cgroup: Optional[bool] = None
