"""Records of facts about the target that hold for the whole capture."""

from __future__ import annotations

from typing import Optional

from leakcase_bundle.schema import record, says, word
from leakcase_bundle.strings import (
    ArgumentToken,
    BuildId,
    EnvironmentToken,
    NameToken,
    PackageToken,
    PathToken,
    UserToken,
    VersionToken,
)


@record("target")
class Target:
    """The process that is watched. A second one follows an exec."""

    taken_ns: int
    pid: int
    start_ticks: Optional[int] = says(
        "Field 22 of /proc/PID/stat: with the pid it names one process. None: of a core file."
    )
    age_ns: Optional[int] = says("Time since the process started. None: of a core file.")
    name: NameToken
    state: str = word("process_state")
    parent_pid: int
    threads: int
    executable: Optional[PathToken] = None
    executable_deleted: Optional[bool] = None
    arguments: Optional[list[ArgumentToken]] = None
    argument_count: Optional[int] = None
    user: Optional[UserToken] = None
    uid: Optional[int] = None
    cgroup: Optional[PathToken] = None
    oom_score: Optional[int] = None
    oom_score_adj: Optional[int] = None
    in_container: Optional[bool] = says(
        "In another pid, mount or user namespace than the collector.", default=None
    )
    other_pid_namespace: Optional[bool] = None
    other_mount_namespace: Optional[bool] = None
    other_user_namespace: Optional[bool] = None
    traced: Optional[bool] = says("Whether another process traces it (TracerPid).", default=None)
    seccomp_mode: Optional[int] = None
    namespace_pid: Optional[int] = says(
        "The pid that the process has in its own namespace.", default=None
    )


@record("limits")
class Limits:
    """Resource limits of the target (soft); absent: unlimited or unknown (see `known`)."""

    known: bool
    address_space_bytes: Optional[int] = None
    data_bytes: Optional[int] = None
    stack_bytes: Optional[int] = None
    resident_bytes: Optional[int] = None
    locked_memory_bytes: Optional[int] = None
    open_files: Optional[int] = None
    processes: Optional[int] = None
    core_bytes: Optional[int] = None


@record("cgroup")
class CgroupFacts:
    """The memory limits of the target's control group; the tightest of it and its ancestors."""

    taken_ns: int
    version: int
    path: Optional[PathToken] = None
    limit_bytes: Optional[int] = None
    high_bytes: Optional[int] = None
    swap_limit_bytes: Optional[int] = None
    limit_is_inherited: Optional[bool] = says("The tightest limit is an ancestor's.", default=None)
    shared_with_processes: Optional[int] = says("Other processes in the same group.", default=None)


@record("setting")
class Setting:
    """An allow-listed allocator or runtime setting that is in force."""

    source: str = word("setting_source")
    name: ArgumentToken
    value: EnvironmentToken
    value_bytes: Optional[int] = says(
        "The value as a size in bytes, where it is one.", default=None
    )


@record("module")
class Module:
    """A program or library mapped by the target."""

    index: int
    path: PathToken
    is_program: bool
    deleted: bool
    size_bytes: Optional[int] = None
    elf_type: Optional[str] = word("elf_type", default=None)
    machine: Optional[str] = word("machine", default=None)
    bits: Optional[int] = None
    position_independent: Optional[bool] = None
    stripped: Optional[bool] = says("Has no .symtab.", default=None)
    has_debug_info: Optional[bool] = None
    build_id: Optional[BuildId] = None
    debuglink: Optional[PathToken] = None
    needed: Optional[list[PathToken]] = None
    is_static: Optional[bool] = None
    language: Optional[str] = word("language", default=None)
    package: Optional[PackageToken] = None
    package_version: Optional[VersionToken] = None
    package_system: Optional[str] = word("package_system", default=None)


@record("allocator")
class Allocator:
    """A memory allocator found in the target; `effective` is the one that malloc() reaches."""

    kind: str = word("allocator")
    linkage: str = word("linkage")
    effective: bool
    evidence: str = word("allocator_evidence")
    version: Optional[VersionToken] = None
    module: Optional[PathToken] = None


@record("runtime")
class Runtime:
    """A language runtime found in the target."""

    kind: str = word("runtime")
    evidence: str = word("runtime_evidence")
    version: Optional[VersionToken] = None
    module: Optional[PathToken] = None
