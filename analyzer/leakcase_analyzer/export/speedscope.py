"""A file for speedscope (https://www.speedscope.app/file-format-schema.json)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from leakcase_analyzer.code_names import basename, place
from leakcase_analyzer.export.weighted import Weighted
from leakcase_analyzer.trace_looks import UNKNOWN_FRAME, Frame

SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def speedscope_text(stacks: Sequence[Weighted], name: str) -> str:
    """Two profiles: bytes that stayed, and bytes that were allocated while it was watched."""
    numbers: dict[Frame, int] = {}
    samples = [
        [
            numbers.setdefault(frame, len(numbers))
            for frame in reversed(one.frames or (UNKNOWN_FRAME,))
        ]
        for one in stacks
    ]
    document = {
        "$schema": SCHEMA,
        "exporter": "leakcase",
        "name": name,
        "activeProfileIndex": 0,
        "shared": {"frames": [_frame(frame) for frame in numbers]},
        "profiles": [
            _profile("stayed", samples, [one.stayed_bytes for one in stacks]),
            _profile("allocated while watched", samples, [one.made_bytes for one in stacks]),
        ],
    }
    return json.dumps(document, ensure_ascii=False) + "\n"


def _frame(frame: Frame) -> dict[str, Any]:
    where = frame.file or frame.module
    return {
        "name": place(frame),
        **({} if where is None else {"file": where if frame.file else basename(where)}),
        **({} if frame.line is None else {"line": frame.line}),
    }


def _profile(name: str, samples: list[list[int]], weights: list[int]) -> dict[str, Any]:
    kept = [(stack, size) for stack, size in zip(samples, weights, strict=True) if size]
    return {
        "type": "sampled",
        "name": name,
        "unit": "bytes",
        "startValue": 0,
        "endValue": sum(size for _, size in kept),
        "samples": [stack for stack, _ in kept],
        "weights": [size for _, size in kept],
    }
