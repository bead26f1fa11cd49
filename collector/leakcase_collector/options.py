"""What the words on the command line mean: durations, shares, probes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Optional

from .errors import UsageError
from .probes.base import CaptureOptions, Probe
from .system.clock import NS_PER_SECOND

_UNITS_NS = {
    "ms": NS_PER_SECOND // 1000,
    "s": NS_PER_SECOND,
    "m": 60 * NS_PER_SECOND,
    "h": 3600 * NS_PER_SECOND,
    "d": 86400 * NS_PER_SECOND,
}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)?\Z")
_MAX_NS = 366 * _UNITS_NS["d"]
MIN_INTERVAL_NS = NS_PER_SECOND // 10


def duration_ns(text: str, option: str) -> int:
    """Nanoseconds of ``30s``, ``2m``, ``24h``, ``500ms``; a bare number is seconds."""
    match = _DURATION.match(text.strip())
    value = 0 if match is None else int(float(match[1]) * _UNITS_NS[match[2] or "s"])
    if not 0 < value <= _MAX_NS:
        raise UsageError(
            f"{option} {text}: not a duration between 1ms and 366d. Write it as 30s, 2m or 24h."
        )
    return value


def interval_ns(text: str) -> int:
    """Nanoseconds of ``--interval``; shorter ones would cost the host more than they show."""
    value = duration_ns(text, "--interval")
    if value < MIN_INTERVAL_NS:
        raise UsageError(f"--interval {text}: the shortest interval is 100ms.")
    return value


def share(text: str) -> float:
    """``1%`` as 0.01."""
    match = re.match(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%\Z", text.strip())
    value = float(match[1]) / 100 if match else -1.0
    if not 0 < value <= 1:
        raise UsageError(f"--max-slowdown {text}: not a share. Write it as 1% or 0.5%.")
    return value


def select_probes(
    probes: Sequence[type[Probe]],
    wanted: Optional[Sequence[str]],
    unwanted: Sequence[str],
    opted: Sequence[str] = (),
) -> list[Probe]:
    """One instance of each probe that is to run, in the order of `probes`.

    `opted`: the probes that an option of their own asks for.

    Raises UsageError for a name that no probe has.
    """
    known = {probe.name for probe in probes}
    for name in [*(wanted or ()), *unwanted]:
        if name not in known:
            raise UsageError(f"there is no probe {name!r}. See: leakcase-collect probes")
    chosen = {probe.name for probe in probes if not probe.opt_in}
    chosen = (chosen | set(opted)) - set(unwanted) | set(wanted or ())
    return [probe() for probe in probes if probe.name in chosen]


def opted(arguments: argparse.Namespace) -> list[str]:
    """The probes that have an option of their own, where it was given."""
    asked = {"reachability": arguments.reachability, "allocation-trace": arguments.trace}
    return [name for name, is_asked in asked.items() if is_asked]


def capture_options(arguments: argparse.Namespace) -> CaptureOptions:
    """What the words say of the whole capture; whether memory may be read is not known yet."""
    return CaptureOptions(
        duration_ns(arguments.duration, "--duration"),
        share(arguments.max_slowdown),
        arguments.trace or "bursts",
        arguments.tracer,
        max_pause_ns=duration_ns(arguments.max_pause, "--max-pause"),
    )


def names(values: Optional[Sequence[str]]) -> list[str]:
    """The names of a repeatable option whose values may be joined by commas."""
    return [name for value in values or () for name in value.split(",") if name]
