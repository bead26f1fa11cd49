"""Tracing where a host, a container or the program itself makes it hard: it works, or says why not.

Not to be had on the kernels that these tests run on: yama (an LSM) and lockdown.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from leakcase_bundle.records import CodeFrame, CodeStack, Gap, TraceSites, TraceWindow
from tests.collector.system.started import needs_root
from tests.live import another_user, keeping
from tests.live.collecting import COLLECT, of_kind, read, sentences
from tests.live.processes import HERE, CannotServe

pytestmark = [pytest.mark.live, pytest.mark.slow, needs_root]

AT_ONCE = 6
#: The program does so little that a few per cent of it would be no window on a busy machine.
OPTIONS = ("--trace", "bursts", "--allow", "read-memory,trace", "--max-slowdown", "100%")
_DENIED = (sys.executable, "-I", str(HERE / "denied.py"))
_WITHOUT_TRACEFS = """
for place in /sys/kernel/tracing /sys/kernel/debug/tracing; do
    ! mountpoint -q $place || umount -l $place || exit 9
    ! test -e $place/uprobe_events || exit 9
done
exec "$@"
"""
_WITHOUT_SYS = 'mount -t tmpfs none /sys && exec "$@"'


def lacking(*capabilities: str) -> tuple[str, ...]:
    """Root without them, as in a container."""
    taken = ",".join(f"-{name}" for name in capabilities)
    return ("setpriv", f"--inh-caps={taken}", f"--bounding-set={taken}")


def nobody(*capabilities: str) -> tuple[str, ...]:
    """Another user, with these capabilities."""
    given = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    user = str(another_user.NOBODY)
    ids = (f"--reuid={user}", f"--regid={user}", "--clear-groups")
    kept = (f"--inh-caps={given}", f"--ambient-caps={given}") if capabilities else ()
    return ("setpriv", *ids, *kept)


@dataclass(frozen=True)
class Environment:
    """A program, and how the collector is started; `refusal`: reason and detail of its one Gap.

    said: words of the one sentence. enter: namespaces of the program's that the collector is in.
    pid: as it sees the program there.
    """

    name: str
    start: keeping.Start = keeping.plain
    prefix: Sequence[str] = ()
    refusal: tuple[str, str] | None = None
    said: str = ""
    pid: int | None = None
    enter: Sequence[str] = ()
    is_nobody: bool = False


WORKING = (
    Environment("little-locked-memory", prefix=("prlimit", "--memlock=65536")),
    Environment(
        "no-tracefs", prefix=("unshare", "--mount", "sh", "-c", _WITHOUT_TRACEFS, "without")
    ),
    Environment("no-sys", prefix=("unshare", "--mount", "sh", "-c", _WITHOUT_SYS, "without")),
    Environment("no-perf-events", prefix=(*_DENIED, "EPERM", "perf_event_open")),
    Environment(
        "own-user-two-capabilities", keeping.of_nobody, nobody("bpf", "perfmon"), is_nobody=True
    ),
    Environment("not-dumpable", keeping.private),
    Environment("confined-by-seccomp", keeping.confined),
    Environment("set-user-id", keeping.with_privileges),
    Environment("stripped-libc", partial(keeping.with_own_libc, replace=False)),
    Environment("replaced-libc", partial(keeping.with_own_libc, replace=True)),
    Environment("musl", keeping.by_musl),
    Environment("musl-static", partial(keeping.by_musl, static=True)),
    Environment("glibc-static", keeping.static),
    Environment("container", keeping.in_container),
    Environment("user-namespace", keeping.in_user_namespace),
    Environment(
        "within-its-pid-namespace", keeping.in_pid_namespace, enter=("--pid", "--mount"), pid=1
    ),
)
REFUSED = (
    Environment(
        "own-user", keeping.of_nobody, nobody(), ("not-permitted", "bpf"),
        "it needs CAP_BPF and CAP_PERFMON", is_nobody=True,
    ),
    Environment(
        "root-without-capabilities", keeping.plain, lacking("bpf", "perfmon", "sys_admin"),
        ("not-permitted", "bpf"), "it needs CAP_BPF and CAP_PERFMON",
    ),
    Environment(
        "within-its-user-namespace", keeping.in_user_namespace, (), ("not-permitted", "bpf"),
        "a container's user namespace or a security module may be why", enter=("--user",),
    ),
    Environment(
        "bpf-denied", keeping.plain, (*_DENIED, "EPERM", "bpf"), ("not-permitted", "bpf"),
        "a seccomp filter of this container refuses it",
    ),
    Environment(
        "bpf-unknown", keeping.plain, (*_DENIED, "ENOSYS", "bpf"), ("not-supported", "bpf"),
        "this kernel does not offer it",
    ),
    Environment(
        "few-descriptors", keeping.plain, ("prlimit", "--nofile=38"), ("over-limit", "bpf"),
        "a limit of this host is used up (Too many open files)",
    ),
    Environment(
        "not-dumpable-and-no-ptrace", keeping.private, lacking("sys_ptrace"),
        ("not-permitted", "elf"), "may lack CAP_SYS_PTRACE",
    ),
    Environment(
        "another-user-set-user-id", keeping.with_privileges, nobody(), ("not-permitted", "elf"),
        "Run as root", is_nobody=True,
    ),
    Environment(
        "glibc-static-stripped", partial(keeping.static, strip=True), (),
        ("not-supported", "no-entry-point"), "no malloc and free",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What a capture left, and whether the program still does its work."""

    records: list[Any]
    status: int
    said: str
    worked: bool

    @property
    def gaps(self) -> list[Gap]:
        return [gap for gap in of_kind(self.records, Gap) if gap.probe == "allocation-trace"]

    def kept_by(self, function: str) -> int:
        """Blocks that windows left, of stacks with this function."""
        names = {frame.frame: frame.function for frame in of_kind(self.records, CodeFrame)}
        stacks = {
            stack.stack
            for stack in of_kind(self.records, CodeStack)
            if function in [names[frame] for frame in stack.frames]
        }
        return sum(
            kept
            for sites in of_kind(self.records, TraceSites)
            for stack, kept in zip(sites.stacks, sites.kept, strict=True)
            if stack in stacks
        )


def _look(environment: Environment, folder: Path, collector: Path) -> Seen | str:
    """What was seen, or why there is nothing to see here."""
    case = folder / "x.leakcase"
    folder.chmod(0o777)
    seconds = 2 if environment.refusal else 4
    options = [*OPTIONS, "--without", "heap-census,heap-labels,python-types,managed-heap"]
    is_nobody = environment.is_nobody
    try:
        with environment.start(folder) as target:
            before = target.kept()
            done = subprocess.run(
                [
                    *environment.prefix, *_inside(environment, target.pid),
                    *(another_user.COLLECT if is_nobody else COLLECT),
                    "capture", str(environment.pid or target.pid),
                    "--duration", f"{seconds}s", *options, "-o", str(case),
                ],
                env=another_user.environment(collector) if is_nobody else None,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                cwd="/" if is_nobody else None,
            )  # fmt: skip
            worked = target.kept() > before
    except CannotServe as reason:
        return str(reason)
    assert case.exists(), done.stderr
    return Seen(read(case)[0], done.returncode, done.stderr, worked)


def _inside(environment: Environment, pid: int) -> Sequence[str]:
    if not environment.enter:
        return ()
    return ("nsenter", "--target", str(pid), "--preserve-credentials", *environment.enter)


Looks = dict[str, Callable[[], Seen]]


@pytest.fixture(scope="module")
def looks() -> Iterator[Looks]:
    """All of them, some at a time."""
    with another_user.reachable_collector() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        found = {}
        for environment in (*WORKING, *REFUSED):
            own = folder / environment.name
            own.mkdir()
            found[environment.name] = pool.submit(_look, environment, own, folder)
        yield {name: partial(_seen, future) for name, future in found.items()}


def _seen(future: Future[Seen | str]) -> Seen:
    found = future.result()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def each(environments: Sequence[Environment]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("environment", environments, ids=lambda one: one.name)


@each(WORKING)
def test_it_works_and_names_the_function(environment: Environment, looks: Looks) -> None:
    seen = looks[environment.name]()
    assert seen.worked
    # On a busy machine so short a capture may have one window only, and says so.
    assert {(gap.reason, gap.detail) for gap in seen.gaps} <= {("no-time", None)}, seen.said
    assert seen.status == (3 if seen.gaps else 0), seen.said
    sentences(seen.said)
    assert of_kind(seen.records, TraceWindow)
    assert seen.kept_by("keep_record") > 20
    assert seen.kept_by("churn") == 0


@each(REFUSED)
def test_it_is_refused_in_one_gap_and_one_sentence(environment: Environment, looks: Looks) -> None:
    seen = looks[environment.name]()
    assert seen.worked
    (gap,) = seen.gaps
    assert (gap.reason, gap.detail) == environment.refusal
    assert seen.status == 3
    said = sentences(seen.said)
    assert any(environment.said in line for line in said), seen.said
    assert len(set(said)) == len(said), "several probes meet the same refusal"
    assert not of_kind(seen.records, TraceWindow)
