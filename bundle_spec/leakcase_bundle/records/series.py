"""Series: one record holds a stretch of samples, one column per figure.

All columns of a record have the length of `taken_ns`; an absent column, or nil in one, is not
known. Sizes are bytes whatever unit the kernel prints.
"""

from __future__ import annotations

from typing import Optional

from leakcase_bundle.schema import column, record

Column = Optional[list[Optional[int]]]


@record("series.status")
class StatusSeries:
    """/proc/PID/status, see proc_pid_status(5)."""

    taken_ns: Column = column()
    virtual_bytes: Column = column("VmSize")
    peak_virtual_bytes: Column = column("VmPeak")
    rss_bytes: Column = column("VmRSS")
    peak_rss_bytes: Column = column("VmHWM")
    rss_anon_bytes: Column = column("RssAnon (Linux 4.5)")
    rss_file_bytes: Column = column("RssFile")
    rss_shmem_bytes: Column = column("RssShmem")
    swap_bytes: Column = column("VmSwap")
    data_bytes: Column = column("VmData")
    stack_bytes: Column = column("VmStk")
    page_tables_bytes: Column = column("VmPTE")
    locked_bytes: Column = column("VmLck")
    pinned_bytes: Column = column("VmPin")
    huge_bytes: Column = column("HugetlbPages")
    threads: Column = column("Threads")
    voluntary_switches: Column = column()
    involuntary_switches: Column = column()


@record("series.stat")
class StatSeries:
    """/proc/PID/stat and schedstat, see proc_pid_stat(5)."""

    taken_ns: Column = column()
    minor_faults: Column = column("Field 10, cumulative.")
    major_faults: Column = column("Field 12, cumulative.")
    user_cpu_ns: Column = column("Field 14, in steps of a clock tick.")
    system_cpu_ns: Column = column("Field 15, in steps of a clock tick.")
    run_ns: Column = column(
        "Time on a CPU of all threads alive now, from schedstat; finer than the ticks."
    )


@record("series.descriptors")
class DescriptorSeries:
    """Open descriptors, counted by what they are."""

    taken_ns: Column = column()
    total: Column = column()
    files: Column = column()
    deleted_files: Column = column()
    directories: Column = column()
    sockets: Column = column()
    pipes: Column = column()
    devices: Column = column()
    epolls: Column = column()
    eventfds: Column = column()
    timerfds: Column = column()
    inotifies: Column = column()
    memfds: Column = column()
    others: Column = column()


@record("series.threads")
class ThreadSeries:
    """Threads alive, and those that came and went between samples."""

    taken_ns: Column = column()
    alive: Column = column()
    created: Column = column("Seen for the first time since the last sample that knows.")
    ended: Column = column("Gone since the last sample that knows.")


@record("series.sockets")
class SocketSeries:
    """The process's own sockets (descriptors joined with the kernel's tables by inode)."""

    taken_ns: Column = column()
    total: Column = column()
    tcp: Column = column()
    tcp_established: Column = column()
    tcp_close_wait: Column = column()
    tcp_listen: Column = column()
    udp: Column = column()
    unix: Column = column()
    unmatched: Column = column("Sockets of other families, or in another network namespace.")
    receive_queue_bytes: Column = column()
    send_queue_bytes: Column = column()


@record("series.cgroup")
class CgroupSeries:
    """The memory of the target's control group, page cache told from anonymous memory."""

    taken_ns: Column = column()
    current_bytes: Column = column("memory.current, or usage_in_bytes (v1).")
    anon_bytes: Column = column()
    file_bytes: Column = column("Page cache, tmpfs and shared memory included.")
    inactive_file_bytes: Column = column("What the kernel can drop first.")
    shmem_bytes: Column = column()
    kernel_bytes: Column = column()
    slab_bytes: Column = column()
    slab_unreclaimable_bytes: Column = column()
    socket_bytes: Column = column()
    page_tables_bytes: Column = column()
    swap_bytes: Column = column()
    limit_bytes: Column = column()
    events_high: Column = column()
    events_max: Column = column()
    events_oom: Column = column()
    events_oom_kill: Column = column()
    pressure_some_us: Column = column("memory.pressure, cumulative stall.")
    pressure_full_us: Column = column()
    processes: Column = column("pids.current")


@record("series.host")
class HostSeries:
    """/proc/meminfo and memory pressure of the host."""

    taken_ns: Column = column()
    total_bytes: Column = column()
    available_bytes: Column = column()
    free_bytes: Column = column()
    cached_bytes: Column = column()
    anonymous_bytes: Column = column()
    shmem_bytes: Column = column()
    slab_bytes: Column = column()
    slab_unreclaimable_bytes: Column = column()
    page_tables_bytes: Column = column()
    kernel_stack_bytes: Column = column()
    swap_total_bytes: Column = column()
    swap_free_bytes: Column = column()
    committed_bytes: Column = column()
    huge_pages_total: Column = column()
    huge_pages_free: Column = column()
    huge_page_bytes: Column = column()
    pressure_some_us: Column = column()
    pressure_full_us: Column = column()


@record("series.rollup")
class RollupSeries:
    """/proc/PID/smaps_rollup: proportional and private shares, sampled as its cost allows."""

    taken_ns: Column = column()
    rss_bytes: Column = column()
    pss_bytes: Column = column()
    pss_anon_bytes: Column = column()
    pss_file_bytes: Column = column()
    pss_shmem_bytes: Column = column()
    private_clean_bytes: Column = column()
    private_dirty_bytes: Column = column()
    shared_clean_bytes: Column = column()
    shared_dirty_bytes: Column = column()
    anonymous_bytes: Column = column()
    huge_anonymous_bytes: Column = column("AnonHugePages")
    swap_bytes: Column = column()
    swap_pss_bytes: Column = column()
    locked_bytes: Column = column()
    read_ns: Column = column("How long the read took: it holds the target's mmap lock.")


@record("series.collector")
class CollectorSeries:
    """What the collector itself used."""

    taken_ns: Column = column()
    cpu_ns: Column = column("Cumulative CPU time of the collector.")
    rss_bytes: Column = column()
    case_bytes: Column = column("Size of the case so far.")
    missed_ticks: Column = column("Samples that were not taken in time, cumulative.")
    interval_ns: Column = column("The interval in force; it grows when over budget.")
