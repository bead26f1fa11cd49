"""The measured figures as plain tables, for those who want to check the answer by hand."""

from __future__ import annotations

import numpy as np

from leakcase_analyzer.analysis import Analysis
from leakcase_analyzer.evidence import Evidence, RegionSize
from leakcase_analyzer.findings.regions import words
from leakcase_analyzer.report.units import shortened, size

MOST_ROWS = 24
_FIGURES = (
    ("rss_anon_bytes", "anonymous"),
    ("swap_bytes", "swap"),
    ("rss_file_bytes", "files"),
    ("rss_shmem_bytes", "shared"),
    ("rss_bytes", "RSS"),
)


def raw_tables(analysis: Analysis) -> list[tuple[str, str]]:
    """Title and fixed-width text of each table; a name from the case never begins a line."""
    evidence = analysis.evidence
    tables = (
        ("Memory over time", _series(evidence)),
        ("Mappings at the last snapshot", _mappings(evidence)),
        ("Settings in force", _settings(evidence)),
        ("Modules", _modules(evidence)),
        ("What the capture cost", _costs(evidence)),
    )
    return [(title, "\n".join(lines)) for title, lines in tables if lines]


def _series(evidence: Evidence) -> list[str]:
    status = evidence.columns("status")
    if status is None:
        return []
    figures = [(title, status.get(name)) for name, title in _FIGURES]
    known = [(title, values) for title, values in figures if values is not None]
    threads = status.get("threads")
    lines = [f"{'time':>10}" + "".join(f"{title:>12}" for title, _ in known) + f"{'threads':>9}"]
    rows = np.linspace(0, len(status) - 1, min(MOST_ROWS, len(status))).round().astype(int)
    for row in np.unique(rows):
        cells = "".join(f"{_cell(values[row]):>12}" for _, values in known)
        alive = "-" if threads is None or np.isnan(threads[row]) else f"{threads[row]:.0f}"
        lines.append(f"{status.seconds[row]:>8.0f} s{cells}{alive:>9}")
    return lines


def _cell(value: float) -> str:
    return "-" if np.isnan(value) else size(value)


def _mappings(evidence: Evidence) -> list[str]:
    if not evidence.snapshots:
        return []
    groups = evidence.snapshots[-1].groups()
    most = sorted(groups, key=lambda key: _weight(groups[key]), reverse=True)[:MOST_ROWS]
    lines = [f"{'resident':>12}{'mapped':>12}{'count':>7}  what"]
    for key in most:
        group = groups[key]
        resident = "-" if group.rss_bytes is None else size(group.rss_bytes)
        place = shortened(key[1] or key[2] or "")
        lines.append(
            f"{resident:>12}{size(group.size_bytes):>12}{group.count:>7}  "
            f"{words(key[0])} {place}".rstrip()
        )
    return lines


def _weight(group: RegionSize) -> int:
    return group.size_bytes if group.rss_bytes is None else group.rss_bytes


def _settings(evidence: Evidence) -> list[str]:
    return [
        f"from the {shortened(s.source)}: {shortened(s.name)} = {shortened(s.value)}"
        for s in evidence.settings[:MOST_ROWS]
    ]


def _modules(evidence: Evidence) -> list[str]:
    return [
        "module " + " ".join(shortened(str(part)) for part in parts if part is not None)
        for m in evidence.modules[:MOST_ROWS]
        for parts in ((m.path, m.package, m.package_version, m.build_id),)
    ]


def _costs(evidence: Evidence) -> list[str]:
    return [
        f"{cost.cpu_ns / 1e6:>10.1f} ms of CPU in {cost.runs} runs, "
        f"the longest {cost.longest_wall_ns / 1e6:.1f} ms: {shortened(cost.probe)}"
        for cost in evidence.costs[:MOST_ROWS]
    ]
