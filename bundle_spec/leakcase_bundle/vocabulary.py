"""Closed vocabularies: the words that a `word` field may hold.

A writer refuses a word that is not listed here. A reader accepts any word of the right shape,
so that an older analyzer reads a newer minor format.
"""

from __future__ import annotations

import re

WORD_PATTERN = re.compile(r"[a-z0-9][a-z0-9_.+-]{0,47}\Z")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


VOCABULARIES: dict[str, frozenset[str]] = {
    "probe": _words(
        """identity status stat descriptors threads cgroup host limits settings modules runtime
        regions rollup sockets gpu kernel-log heap-census heap-labels python-types
        managed-heap reachability allocation-trace allocator-statistics java-classes
        core-dump session"""
    ),
    "level": _words("observe read-memory trace attach dump"),
    "answer": _words("yes no"),
    "consent_how": _words("default option terminal no-terminal"),
    "gap_reason": _words(
        """not-permitted not-supported target-gone over-limit over-budget not-consented failed
        malformed left-out disk-full no-time"""
    ),
    "gap_detail": _words(
        """smaps smaps_rollup maps fd fdinfo task net cgroup kmsg environ exe cmdline pressure
        package-database elf nvidia-smi drm schedstat meminfo limits namespace mem pagemap
        heap-not-glibc heap-not-found heap-layout heap-inconsistent no-entry-point
        costly-entry-point bpf perf-event uprobe tracefs bpf-program symbols calls-too-many bpftrace
        memleak-bpfcc hsperfdata go-heap-stats v8-pages native-memory-tracking jvm-attach
        no-safe-point not-askable cut-short other"""
    ),
    "loss": _words(
        "ticks regions descriptors threads sockets records rows frames types blocks stacks calls"
    ),
    "code": _words("native python jit kernel unknown"),
    "stack_end": _words("root depth copied-bytes no-rule no-module jit unreadable tool"),
    "trace_watched": _words("allocator python-objects mappings"),
    "attach_method": _words(
        "uprobe-session uprobe-multi uprobe-perf uprobe-tracefs bpftrace memleak-bpfcc"
    ),
    "allocator_call": _words(
        """malloc calloc realloc reallocarray memalign aligned-alloc posix-memalign valloc pvalloc
        free operator-new operator-delete mmap munmap mremap python-new python-free other"""
    ),
    "trace_mode": _words("bursts full"),
    "trace_tool": _words("bpftrace memleak-bpfcc"),
    "python_source": _words("gc pymalloc"),
    "managed_source": _words("hsperfdata vm-structs heap-stats v8-pages"),
    "native_purpose": _words(
        """java-heap class thread code gc compiler internal symbol other shared-class-space arena
        arena-chunk logging arguments module synchronization safepoint metaspace
        native-memory-tracking string-deduplication serviceability object-monitors gc-card-set
        unknown"""
    ),
    "event": _words(
        "exec exit zombie stopped continued interrupted back-off clock-step target-frozen"
    ),
    "end": _words("duration interrupted target-gone target-exec disk-full budget failed"),
    "decision": _words("not-growing growing-slowly growing-fast mostly-in-swap too-short"),
    "collector_build": _words("wheel source pyz elf"),
    "machine": _words("x86_64 aarch64 i386 arm riscv64 ppc64le s390x loongarch64 other"),
    "process_state": _words(
        "running sleeping disk-sleep stopped tracing-stop zombie dead idle other"
    ),
    "region_kind": _words(
        """main-heap arena-heap anonymous reserved thread-stack main-stack file-data library-code
        library-data program-code program-data shared-anonymous shared-file sysv-shared-memory memfd
        tmpfs-file deleted-file jit-code gpu-device device huge-pages vdso io-uring other"""
    ),
    "heap_method": _words("native python"),
    "class_source": _words("blocks words"),
    "region_source": _words("maps smaps"),
    "elf_type": _words("executable shared-object relocatable core other"),
    "language": _words("c c++ rust go swift d ada fortran haskell ocaml zig other"),
    "allocator": _words("glibc musl jemalloc tcmalloc mimalloc bionic other"),
    "linkage": _words("shared static preloaded"),
    "allocator_evidence": _words("library symbol banner dynamic-symbol needed"),
    "runtime": _words("cpython jvm node go ruby dotnet php beam perl none other"),
    "runtime_evidence": _words("library symbol name section"),
    "setting_source": _words("environment arguments"),
    "package_system": _words("dpkg rpm apk"),
    "socket_protocol": _words(
        "tcp tcp6 udp udp6 unix-stream unix-datagram unix-seqpacket netlink packet raw other"
    ),
    "socket_state": _words(
        """established syn-sent syn-recv fin-wait1 fin-wait2 time-wait close close-wait last-ack
        listen closing new-syn-recv unconnected connected connecting disconnecting other"""
    ),
    "descriptor_kind": _words(
        """file deleted-file directory socket pipe device terminal epoll eventfd timerfd signalfd
        inotify fanotify memfd io-uring bpf pidfd perf-event userfaultfd gpu-device dmabuf other"""
    ),
    "gpu_source": _words("nvidia-smi fdinfo"),
    "gpu_region": _words("vram gtt cpu system local stolen memory visible-vram process other"),
    "gpu_driver": _words(
        "nvidia amdgpu i915 xe nouveau radeon msm panfrost panthor etnaviv v3d vc4 virtio other"
    ),
}


def is_word(vocabulary: str, value: str) -> bool:
    """Whether `value` may be written into a field of this vocabulary."""
    return value in VOCABULARIES[vocabulary]
