"""The answer as JSON: the contract for scripts, described by ``analysis.schema.json``.

Within one number of `SCHEMA`, keys are only ever added.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from leakcase_analyzer.analysis import Analysis
from leakcase_analyzer.code_names import in_full
from leakcase_analyzer.evidence import Evidence
from leakcase_analyzer.findings.suspect import Suspect
from leakcase_analyzer.report.units import WHOLE, moment, render
from leakcase_analyzer.sentences import Sentence
from leakcase_analyzer.trace_looks import Frame
from leakcase_analyzer.verdict import Verdict

SCHEMA = "leakcase-analysis/1"


def json_text(analysis: Analysis) -> str:
    """Strict JSON (no NaN, no infinity), two spaces deep, with a line end."""
    document = finite(as_document(analysis))
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_document(analysis: Analysis) -> dict[str, Any]:
    """The document that `json_text` prints."""
    evidence, code = analysis.evidence, analysis.code
    return {
        "schema": SCHEMA,
        "target": _target(evidence),
        "window_seconds": evidence.window_seconds,
        "verdict": _verdict(analysis.verdict),
        "growing": [
            {
                "what": one.what,
                "unit": one.unit,
                "rate_per_hour": one.rate_per_hour,
                "interval": one.interval,
                "share": one.share,
                "part_of": one.part_of,
            }
            for one in analysis.growing
        ],
        "suspects": [] if code is None else _suspects(code.suspects),
        "suspects_aside": code is not None and code.aside,
        "passing": [] if code is None else _suspects(code.passing),
        "types": [
            {
                "name": one.name,
                "count_delta": one.count,
                "bytes_delta": one.growth_bytes,
            }
            for one in analysis.types
        ],
        "memory": vars(analysis.memory),
        "heap": _heap(analysis),
        "ruled_out": [
            {"cause": _text(one.claim), "because": _joined((one.because, *one.evidence_for))}
            for one in analysis.ruled_out
        ],
        "not_seen": [
            {"what": _text(one.claim), "because": _text(one.because), "effect": _text(one.effect)}
            for one in analysis.not_seen
        ],
        "actions": [{"what": _text(one.what), "why": _text(one.why)} for one in analysis.actions],
        "limits": [
            {"limit": one.limit, "amount": one.limit_amount, "reached_in_seconds": one.seconds}
            for one in analysis.time_to_limits
        ],
        "capture": _capture(evidence),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "status": verdict.status,
        "kind": verdict.kind,
        "confidence": verdict.confidence,
        "headline": _text(verdict.headline),
        "rate_bytes_per_hour": verdict.rate_bytes_per_hour,
        "rate_interval_bytes_per_hour": verdict.rate_interval_bytes_per_hour,
        "least_detectable_bytes_per_hour": _least_detectable(verdict),
        "trigger": verdict.trigger,
        "watch_longer_seconds": verdict.watch_longer_seconds,
        "reasons": [_text(reason) for reason in verdict.reasons],
    }


def _least_detectable(verdict: Verdict) -> float | None:
    main = verdict.main
    if main is None or main.unit != "bytes":
        return None
    least = main.growth.least_detectable_rate_per_second
    return None if least is None else least * 3600


def _target(evidence: Evidence) -> dict[str, Any]:
    target, program = evidence.target, evidence.program
    allocator, runtime = evidence.allocator, evidence.runtime
    return {
        "name": None if target is None else target.name,
        "pid": None if target is None else target.pid,
        "executable": None if target is None else target.executable,
        "age_seconds": None if target is None or target.age_ns is None else target.age_ns / 1e9,
        "package": None if program is None else program.package,
        "package_version": None if program is None else program.package_version,
        "build_id": None if program is None else program.build_id,
        "allocator": None if allocator is None else allocator.kind,
        "allocator_version": None if allocator is None else allocator.version,
        "runtime": None if runtime is None else runtime.kind,
        "runtime_version": None if runtime is None else runtime.version,
        "in_container": None if target is None else target.in_container,
    }


def _capture(evidence: Evidence) -> dict[str, Any]:
    header, reading, status = evidence.header, evidence.reading, evidence.columns("status")
    started = None if header is None else moment(header.wall_ns)
    return {
        "started": None if started is None else started.isoformat(timespec="seconds"),
        "samples": 0 if status is None else len(status),
        "interval_seconds": None if header is None else header.interval_ns / 1e9,
        "kernel": None if header is None else header.kernel_release,
        "machine": None if header is None else header.machine,
        "collector_version": None if header is None else header.collector_version,
        "end": None if evidence.end is None else evidence.end.reason,
        "complete": reading.complete,
        "truncated": reading.truncated,
        "problems": list(reading.problems),
    }


def _heap(analysis: Analysis) -> dict[str, Any] | None:
    heap, sizes = analysis.heap, analysis.sizes
    if heap is None:
        return None
    change = heap.change
    return {
        "in_use_bytes": heap.in_use_bytes,
        "error_bytes": heap.error_bytes or None,
        "kept_free_bytes": heap.kept_bytes,
        "returnable_bytes": heap.returnable_bytes,
        "python_kept_free_bytes": heap.python_kept_bytes,
        "arenas": heap.arenas,
        "looks": max(len(analysis.evidence.heap), len(analysis.evidence.python)),
        "change": None
        if change is None
        else {
            "seconds": change.seconds,
            "in_use_bytes": change.in_use_bytes,
            "kept_free_bytes": change.kept_bytes,
            "anonymous_bytes": change.held_bytes,
        },
        "sizes": [
            {
                "least_bytes": part.least_bytes,
                "most_bytes": part.most_bytes,
                "count_delta": part.count,
                "bytes_delta": part.growth_bytes,
                "holds": None
                if part.holding is None
                else {
                    "label": part.holding.label,
                    "class": part.holding.class_name,
                    "share": part.holding.share,
                },
            }
            for part in (() if sizes is None else sizes.parts)
        ],
    }


def _suspects(suspects: Sequence[Suspect]) -> list[dict[str, Any]]:
    return [
        {
            "rank": rank,
            "module": None if one.frame is None else one.frame.module,
            "function": None if one.frame is None else one.frame.function,
            "file": None if one.frame is None else one.frame.file,
            "line": None if one.frame is None else one.frame.line,
            "bytes_per_hour": None if one.bytes_per_second is None else one.bytes_per_second * 3600,
            "share": one.share,
            "confidence": one.confidence,
            "fate": one.fate,
            "basis": one.basis,
            "held_bytes": one.held_bytes,
            "blocks": one.blocks,
            "followed_blocks": one.followed,
            "survival": [
                {"age_seconds": age, "alive_share": alive}
                for age, alive in zip(one.curve.ages_seconds, one.curve.alive_shares, strict=True)
            ],
            "trigger": one.trigger,
            "stack": [in_full(frame) for frame in one.stack.frames],
            "frames": [_frame(frame) for frame in one.stack.frames],
            "evidence": [_text(sentence) for sentence in one.evidence],
        }
        for rank, one in enumerate(suspects, start=1)
    ]


def _frame(frame: Frame) -> dict[str, Any]:
    return {
        "module": frame.module,
        "function": frame.function,
        "file": frame.file,
        "line": frame.line,
        "inlined": frame.inlined,
    }


def _text(sentence: Sentence) -> str:
    return render(sentence, WHOLE)


def _joined(sentences: Iterable[Sentence]) -> str:
    return "; ".join(_text(sentence) for sentence in sentences)


def finite(value: Any) -> Any:
    """JSON has no infinity: what is not finite is not known. Whole numbers lose their ".0"."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() else value
    return value
