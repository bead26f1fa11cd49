"""Every kind of record, by what it speaks of. REGISTRY.md is the same list for people."""

from .about import (
    CaseEnd,
    CaseHeader,
    Consent,
    Cost,
    Decision,
    Event,
    Gap,
    Loss,
    Mark,
)
from .heap import HeapArena, HeapCensus, HeapSizes
from .labels import HeapClasses, HeapLabels
from .process import (
    Allocator,
    CgroupFacts,
    Limits,
    Module,
    Runtime,
    Setting,
    Target,
)
from .python import PythonCensus, PythonTypes
from .reach import HeapUnreachable
from .series import (
    CgroupSeries,
    CollectorSeries,
    DescriptorSeries,
    HostSeries,
    RollupSeries,
    SocketSeries,
    StatSeries,
    StatusSeries,
    ThreadSeries,
)
from .snapshots import (
    DescriptorGroup,
    GpuMemory,
    OomKill,
    Region,
    RegionSnapshot,
    SocketGroup,
    ThreadGroup,
)

__all__ = [
    "Allocator",
    "CaseEnd",
    "CaseHeader",
    "CgroupFacts",
    "CgroupSeries",
    "CollectorSeries",
    "Consent",
    "Cost",
    "Decision",
    "DescriptorGroup",
    "DescriptorSeries",
    "Event",
    "Gap",
    "GpuMemory",
    "HeapArena",
    "HeapCensus",
    "HeapClasses",
    "HeapLabels",
    "HeapSizes",
    "HeapUnreachable",
    "HostSeries",
    "Limits",
    "Loss",
    "Mark",
    "Module",
    "OomKill",
    "PythonCensus",
    "PythonTypes",
    "Region",
    "RegionSnapshot",
    "RollupSeries",
    "Runtime",
    "Setting",
    "SocketGroup",
    "SocketSeries",
    "StatSeries",
    "StatusSeries",
    "Target",
    "ThreadGroup",
    "ThreadSeries",
]
