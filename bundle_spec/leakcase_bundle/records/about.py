"""Records about the case itself: how it was taken, what was not seen, lost, allowed and paid."""

from __future__ import annotations

from typing import Optional

from leakcase_bundle.schema import record, says, word
from leakcase_bundle.strings import HostToken, LabelToken, UserToken, VersionToken


@record("case")
class CaseHeader:
    """How, when and with what the case was taken. Always the first record."""

    format_major: int
    format_minor: int
    wall_ns: int = says(
        "Nanoseconds since 1970 (UTC) at `monotonic_ns`: the one wall-clock anchor."
    )
    monotonic_ns: int = says(
        "CLOCK_MONOTONIC at the same instant; all `taken_ns` are on this clock."
    )
    collector_version: VersionToken
    collector_build: str = word("collector_build")
    python_version: VersionToken
    kernel_release: VersionToken
    machine: str = word("machine")
    page_size_bytes: int
    cpu_count: int
    requested_duration_ns: Optional[int] = says("None: until stopped.")
    interval_ns: int
    privileged: bool = says("Whether the collector ran with CAP_SYS_PTRACE in its effective set.")
    same_user: Optional[bool] = says("Whether the collector's uid is the target's.")
    host: Optional[HostToken] = None
    user: Optional[UserToken] = None
    os_id: Optional[VersionToken] = None
    os_version: Optional[VersionToken] = None
    target_os_id: Optional[VersionToken] = says(
        "The target's own root, where it differs.", default=None
    )
    target_os_version: Optional[VersionToken] = None
    levels: list[str] = word("level", "Levels that were answered yes.", default_factory=list)
    core: Optional[bool] = says(
        "Of a core file, with no process and no series; `interval_ns` is 0.", default=None
    )


@record("end")
class CaseEnd:
    """Why the capture ended. A case without it was cut off."""

    taken_ns: int
    reason: str = word("end")


@record("gap")
class Gap:
    """Something that was looked for and could not be seen."""

    taken_ns: int
    probe: str = word("probe")
    reason: str = word("gap_reason")
    detail: Optional[str] = word("gap_detail", default=None)
    errno: Optional[int] = None


@record("loss")
class Loss:
    """Evidence that was there and was dropped, counted."""

    taken_ns: int
    probe: str = word("probe")
    what: str = word("loss")
    count: int


@record("consent")
class Consent:
    """What was asked of the person who captures, and the answer."""

    level: str = word("level")
    answer: str = word("answer")
    how: str = word("consent_how")
    probe: Optional[str] = word("probe", default=None)


@record("cost")
class Cost:
    """What one probe cost the host and the target over the whole capture."""

    probe: str = word("probe")
    runs: int
    cpu_ns: int = says("CPU time of the collector in this probe.")
    wall_ns: int
    longest_wall_ns: int
    predicted_cpu_ns: Optional[int] = None
    predicted_wall_ns: Optional[int] = None
    target_stopped_ns: Optional[int] = says(
        "Time for which the target stood still, all calls together; 0: never.", default=None
    )
    predicted_stop_ns: Optional[int] = says("Of one call, said before.", default=None)


@record("event")
class Event:
    """Something that happened to the target or to the capture."""

    taken_ns: int
    what: str = word("event")


@record("mark")
class Mark:
    """A label for the activity from here on, given by the person who captures."""

    taken_ns: int
    label: LabelToken


@record("decision")
class Decision:
    """What the collector itself said after its first look at the target."""

    taken_ns: int
    decision: str = word("decision")
    observed_ns: int
    growth_bytes_per_hour: Optional[int] = None
