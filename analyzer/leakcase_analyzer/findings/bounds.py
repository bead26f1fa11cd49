"""Bounds that the program was given for what it keeps: filling up to them is no leak."""

from __future__ import annotations

from collections.abc import Iterator

from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.base import Bound, Finding
from leakcase_analyzer.sentences import Code, Size, say

#: Settings that bound what a collected heap holds.
MANAGED = frozenset(
    """-Xmx -XX:MaxHeapSize -XX:SoftMaxHeapSize -XX:MaxRAM --max-old-space-size --max-heap-size
    GOMEMLIMIT DOTNET_GCHeapHardLimit COMPlus_GCHeapHardLimit""".split()
)
#: Settings that bound what a program keeps in memory of its own.
OWN = frozenset(
    """--maxmemory -m --memory-limit --innodb-buffer-pool-size --key-buffer-size
    --wiredTigerCacheSizeGB""".split()
)


def bounds(evidence: Evidence) -> Iterator[Finding]:
    """One finding for each such setting whose size is known."""
    for setting in evidence.settings:
        size = setting.value_bytes
        if size is None or size <= 0 or setting.name not in MANAGED | OWN:
            continue
        yield Bound(
            claim=say(
                "the program bounds what it keeps: {name} = {size}",
                name=Code(str(setting.name)),
                size=Size(size),
            ),
            setting=str(setting.name),
            bound_bytes=size,
            managed_only=setting.name in MANAGED,
        )
