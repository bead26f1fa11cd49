"""The collector's few exceptions.

One place, `leakcase_collector.system.os_errors`, turns ``OSError`` into these; probes see only
these, and only ``cli`` turns them into exit codes.
"""

from __future__ import annotations

from typing import ClassVar, Optional


class CollectorError(Exception):
    """A sentence for the user: the thing, the cause, the next step."""

    exit_code: ClassVar[int] = 4
    #: The word that a `Gap` record carries when a probe meets this error (vocabulary `gap_reason`).
    gap_reason: ClassVar[str] = "failed"
    #: What it was about (vocabulary `gap_detail`), where whoever raised it knows.
    gap_detail: Optional[str] = None


class UsageError(CollectorError):
    """The command line asks for something that cannot be done as written."""

    exit_code = 2


class OutputError(CollectorError):
    """The case cannot be written: exists already, read-only or full disk."""

    exit_code = 2


class TargetGone(CollectorError):
    """The process ended, or its pid now belongs to another process."""

    gap_reason = "target-gone"


class NotPermitted(CollectorError):
    """The kernel refused (EACCES, EPERM)."""

    gap_reason = "not-permitted"


class NotSupported(CollectorError):
    """This kernel, container or program does not offer the source (ENOENT, ENOSYS, ...)."""

    gap_reason = "not-supported"


class LimitReached(CollectorError):
    """An answer was larger than we are willing to read, or took longer than we wait."""

    gap_reason = "over-limit"


class Malformed(CollectorError):
    """What the target or the kernel says cannot be so: what reads it did not see that coming."""

    gap_reason = "malformed"


class OverBudget(CollectorError):
    """It could be had, at a price that the options of this capture do not allow."""

    gap_reason = "over-budget"


class NoTime(CollectorError):
    """The capture was too short for it, or the host too busy."""

    gap_reason = "no-time"


class NotConsented(CollectorError):
    """The person who captures said no, or nobody was there to say yes."""

    gap_reason = "not-consented"


class LeftOut(CollectorError):
    """An option of this capture asks to do without it."""

    gap_reason = "left-out"
