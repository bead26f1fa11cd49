"""What process this is: program, arguments, user, control group, namespaces."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Optional

from leakcase_bundle.records import Target
from leakcase_bundle.strings import PathToken, UserToken
from leakcase_collector.errors import CollectorError, NotPermitted, NotSupported
from leakcase_collector.system.clock import monotonic_of_ticks
from leakcase_collector.system.door import System
from leakcase_collector.system.identity import ProcessStat, is_in_container, namespaces

from .base import Cadence, Context, Prediction, Probe
from .cgroup_location import group_paths
from .figures import whole

_DELETED = " (deleted)"
_COMM_BYTES = 15
#: The letters of field 3 of proc_pid_stat(5), as they are since Linux 4.14.
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "disk-sleep",
    "T": "stopped",
    "t": "tracing-stop",
    "Z": "zombie",
    "X": "dead",
    "I": "idle",
}


class StatusFacts(NamedTuple):
    """What `parse_status_facts` finds; None where a line is missing or not as expected."""

    effective_uid: Optional[int]
    tracer_pid: Optional[int]
    seccomp_mode: Optional[int]
    innermost_pid: Optional[int]


def parse_status_facts(content: bytes) -> StatusFacts:
    """Lines of proc_pid_status(5): Uid (second number), TracerPid, Seccomp (3.8), NSpid (4.1).

    The last number of NSpid is the pid in the innermost namespace.
    """
    # What follows the last newline may be cut off.
    lines = dict(line.partition(b":")[::2] for line in content.split(b"\n")[:-1])

    def number(name: bytes, position: int) -> Optional[int]:
        numbers = lines.get(name, b"").split()
        return whole(numbers[position]) if len(numbers) > max(position, 0) else None

    return StatusFacts(
        effective_uid=number(b"Uid", 1),
        tracer_pid=number(b"TracerPid", 0),
        seccomp_mode=number(b"Seccomp", 0),
        innermost_pid=number(b"NSpid", -1),
    )


def parse_cmdline(content: bytes) -> list[str]:
    """The arguments of ``/proc/PID/cmdline``, NULs between them.

    Empty for kernel threads and zombies. A program may have written its title over them: then it
    is one argument, and the NULs that pad it are not arguments.
    """
    text = content.rstrip(b"\0")
    arguments = text.split(b"\0") if text else []
    return [argument.decode("utf-8", "surrogateescape") for argument in arguments]


def parse_integer(content: bytes) -> Optional[int]:
    """The one number of ``oom_score`` and ``oom_score_adj``, which may be negative."""
    negative = content.startswith(b"-")
    value = whole(content[1:] if negative else content)
    return value if value is None or not negative else -value


def parse_user(passwd: bytes, uid: int) -> Optional[bytes]:
    """The first name that a file like passwd(5) gives to `uid`."""
    for line in passwd.split(b"\n"):
        fields = line.split(b":", 3)
        if len(fields) == 4 and fields[0] and whole(fields[2]) == uid:
            return fields[0]
    return None


class IdentityProbe(Probe):
    """A `Target` record. After an exec, `begin` may be called again for the new program."""

    name: ClassVar[str] = "identity"
    cadence: ClassVar[Cadence] = Cadence.ONCE
    reads: ClassVar[str] = "/proc/PID/{stat,status,cmdline,exe,cgroup,oom_score,ns/*}, /etc/passwd"

    def predict(self, context: Context) -> Prediction:
        return Prediction(cpu_ns=500_000)

    def begin(self, context: Context, taken_ns: int) -> None:
        system, base = context.system, f"/proc/{context.pid}"
        stat = ProcessStat(system.read_bytes(f"{base}/stat"))
        facts = parse_status_facts(system.read_bytes(f"{base}/status"))
        program = self._program(context, stat.is_kernel_thread or stat.is_zombie)
        comm = stat.comm.decode("utf-8", "surrogateescape")
        arguments = parse_cmdline(self._optional(context, f"{base}/cmdline", "cmdline") or b"")
        if program is not None:
            # Before any name is redacted: a name that only repeats the program's may stay.
            context.redactor.know_module(program)
            for name in other_names(context.system, context.pid, program, comm, arguments):
                context.redactor.know_module(name)
        ours, theirs = namespaces(system, "self"), namespaces(system, context.pid)
        foreign_user = _differ(ours.user, theirs.user)
        context.emit(
            Target(
                taken_ns=taken_ns,
                pid=context.pid,
                start_ticks=stat.start_ticks,
                age_ns=max(0, taken_ns - monotonic_of_ticks(stat.start_ticks)),
                name=context.redactor.name(full_name(comm, program)),
                state=_STATES.get(stat.state, "other"),
                parent_pid=stat.field(4),
                threads=stat.field(20),
                executable=None if program is None else _module(context, program),
                executable_deleted=None if program is None else program.endswith(_DELETED),
                arguments=context.redactor.arguments(arguments, program),
                argument_count=len(arguments),
                user=None if foreign_user else self._user(context, facts.effective_uid),
                uid=facts.effective_uid,
                cgroup=self._group(context),
                oom_score=self._number(context, f"{base}/oom_score"),
                oom_score_adj=self._number(context, f"{base}/oom_score_adj"),
                in_container=is_in_container(system, context.pid),
                other_pid_namespace=_differ(ours.pid, theirs.pid),
                other_mount_namespace=_differ(ours.mount, theirs.mount),
                other_user_namespace=foreign_user,
                traced=None if facts.tracer_pid is None else facts.tracer_pid != 0,
                seccomp_mode=facts.seccomp_mode,
                namespace_pid=facts.innermost_pid,
            )
        )

    def _program(self, context: Context, has_none: bool) -> Optional[str]:
        try:
            return context.system.read_link(f"/proc/{context.pid}/exe")
        except (NotPermitted, NotSupported) as error:
            if not has_none:
                context.gap(error, "exe")
            return None

    def _optional(self, context: Context, path: str, detail: str = "other") -> Optional[bytes]:
        try:
            return context.system.read_bytes(path)
        except (NotPermitted, NotSupported) as error:
            context.gap(error, detail)
            return None

    def _number(self, context: Context, path: str) -> Optional[int]:
        content = self._optional(context, path)
        return None if content is None else parse_integer(content)

    def _group(self, context: Context) -> Optional[PathToken]:
        content = self._optional(context, f"/proc/{context.pid}/cgroup", "cgroup")
        paths = group_paths(content or b"")
        path = paths.get("memory", paths.get(""))
        return None if path is None else context.redactor.path(path)

    def _user(self, context: Context, uid: Optional[int]) -> Optional[UserToken]:
        # The file itself, never getpwuid(3): with LDAP that would ask the network.
        if uid is None:
            return None
        try:
            found = parse_user(context.system.read_bytes("/etc/passwd"), uid)
        except CollectorError:
            return None  # uid says it all; the name is a courtesy
        return None if found is None else context.redactor.user(found.decode("utf-8", "replace"))


def full_name(comm: str, program: Optional[str]) -> str:
    """comm, or the program's name where comm is that name cut at 15 bytes (TASK_COMM_LEN)."""
    base = (program or "").rsplit("/", 1)[-1]
    base = base[: -len(_DELETED)] if base.endswith(_DELETED) else base
    return base if len(comm) == _COMM_BYTES and base.startswith(comm) else comm


def other_names(
    system: System, pid: int, program: str, comm: str, arguments: list[str]
) -> list[str]:
    """Names of the process under which its very program lies among the programs, too.

    Debian's redis-server is a link to redis-check-rdb: the name that people know is the link's. A
    title that a program made up names no file, so it does not pass.
    """
    first = arguments[0].split(" ")[0].split(":")[0].rsplit("/", 1)[-1] if arguments else ""
    found = []
    for name in {comm, first} - {"", ".", "..", program.rsplit("/", 1)[-1]}:
        for folder in (program.rsplit("/", 1)[0], "/usr/bin", "/usr/sbin", "/usr/local/bin"):
            if "/" not in name and _is_program(system, pid, f"{folder}/{name}"):
                found.append(name)
                break
    return found


def _is_program(system: System, pid: int, path: str) -> bool:
    try:
        running = system.status(f"/proc/{pid}/exe")
        with system.open_target_file(pid, path) as file:
            return (file.device, file.inode) == (running.st_dev, running.st_ino)
    except (NotPermitted, NotSupported):
        return False


def _module(context: Context, program: str) -> PathToken:
    return context.redactor.path(program, is_module=True)


def _differ(ours: Optional[int], theirs: Optional[int]) -> Optional[bool]:
    return None if ours is None or theirs is None else ours != theirs
