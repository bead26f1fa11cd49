"""Names that would do harm where a report does not treat them as text.

The reader lets any printable string through a field of a known class, so that a newer minor
format may widen a grammar; a stranger may write the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from leakcase_bundle import records as kinds
from leakcase_bundle.schema import KIND_KEY, record_kinds
from leakcase_bundle.strings import (
    BuildId,
    NameToken,
    PackageToken,
    PathToken,
    SymbolToken,
    VersionToken,
)
from tests.analyzer.cases import MIB, Capture, Mapping, heap_leak
from tests.analyzer.trace_cases import LEAK, Traced, watched

HOSTILE_NAMES = [
    "<script>alert(1)</script>",
    "</code></pre></details><img src=x onerror=alert(1)>",
    "`</summary>`",
    "``` ` ``",
    "`",
    "```",
    "[click](https://evil.example)",
    "![x](https://evil.example/x.png)",
    "https://evil.example/",
    "a|b",
    "|",
    "| --- |",
    "# heading",
    "- item",
    "> quote",
    "**bold** _it_ ~~no~~",
    "&lt;b&gt; &#60;b&#62;",
    "{{ 7 * 7 }}{% raw %}",
    "{0} {name} %s $HOME",
    "@everyone #1 !1",
    "a\\`b\\",
    "../../etc/passwd",
    "-rf",
    ".hidden",
    "x" * 500,
    "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 90,
    "e\N{COMBINING ACUTE ACCENT}" * 60,
    " spaces ",
]


def with_hostile_names(names: Sequence[str]) -> Capture:
    """A leak of several kinds in which every string of a field class is one of `names`."""
    case = heap_leak()
    grown = 40_009 * case.seconds
    case.mappings = [
        Mapping("file-data", MIB, MIB + grown, path="<file:1>"),
        Mapping("anonymous", MIB, MIB, name="<name:2>"),
    ]
    case.threads = case.steps(4, 1)
    case.descriptors = {"total": case.steps(14, 5), "files": case.steps(14, 5)}
    case.runtime = "cpython"
    case.mark(5, "active")
    case.setting("-Xmx", 1 << 30)
    case.extra += [
        kinds.ThreadGroup(case.at(0), NameToken("<name:3>"), 1),
        kinds.ThreadGroup(case.at(119), NameToken("<name:3>"), 99),
        kinds.DescriptorGroup(case.at(0), "file", 1, PathToken("<file:2>")),
        kinds.DescriptorGroup(case.at(119), "file", 99, PathToken("<file:2>")),
        kinds.Module(
            index=0,
            path=PathToken("<file:3>"),
            is_program=True,
            deleted=False,
            package=PackageToken("package"),
            package_version=VersionToken("1"),
            build_id=BuildId("ab"),
        ),
    ]
    library = replace(
        LEAK, functions=("inner", "outer"), python_file="/usr/<dir:4>/<file:5>", line=7
    )
    Traced(watched(case), [LEAK, library, replace(LEAK, functions=("last",), life=20.0)]).add()
    contents = kinds.TraceContents(0, case.at(100), 9, 0, 0, 0, 0, SymbolToken("x"), 900)
    case.extra.append(contents)
    turn = count()

    def rewrite(raw: dict[str, Any]) -> dict[str, Any]:
        tokens = [f.name for f in record_kinds()[raw[KIND_KEY]].fields if f.token is not None]
        changed = {n: names[next(turn) % len(names)] for n in tokens if isinstance(raw.get(n), str)}
        return {**raw, **changed}

    case.rewrite = rewrite
    return case
