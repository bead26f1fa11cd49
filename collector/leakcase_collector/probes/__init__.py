"""The probes, safest first: the order in which a capture calls them.

One file per source of evidence, registered here by name; nothing is found by scanning.
"""

from __future__ import annotations

from .allocation_trace import AllocationTraceProbe
from .allocator_statistics import AllocatorStatisticsProbe
from .base import Probe
from .cgroup import CgroupProbe
from .core_dump import CoreDumpProbe
from .descriptors import DescriptorsProbe
from .gpu import GpuProbe
from .heap_census import HeapCensusProbe
from .heap_labels import HeapLabelsProbe
from .host import HostProbe
from .identity import IdentityProbe
from .java_classes import JavaClassesProbe
from .kernel_log import KernelLogProbe
from .limits import LimitsProbe
from .managed_heap import ManagedHeapProbe
from .modules import ModulesProbe
from .python_types import PythonTypesProbe
from .reachability import ReachabilityProbe
from .regions import RegionsProbe
from .rollup import RollupProbe
from .runtimes import RuntimesProbe
from .settings import SettingsProbe
from .sockets import SocketsProbe
from .stat import StatProbe
from .status import StatusProbe
from .threads import ThreadsProbe

PROBES: tuple[type[Probe], ...] = (
    StatusProbe,
    StatProbe,
    IdentityProbe,
    HostProbe,
    CgroupProbe,
    LimitsProbe,
    DescriptorsProbe,
    ThreadsProbe,
    SettingsProbe,
    RollupProbe,
    RegionsProbe,
    SocketsProbe,
    ModulesProbe,
    RuntimesProbe,
    GpuProbe,
    KernelLogProbe,
    HeapCensusProbe,
    # Close to the census, as what both count is set beside each other.
    PythonTypesProbe,
    ManagedHeapProbe,
    HeapLabelsProbe,
    ReachabilityProbe,
    AllocationTraceProbe,
    AllocatorStatisticsProbe,
    JavaClassesProbe,
    CoreDumpProbe,
)

__all__ = ["PROBES"]
