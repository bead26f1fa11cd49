"""Files of ours are private, new and the user's; and we are cheap for the host."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from leakcase_collector.errors import OutputError
from leakcase_collector.system.door import System
from leakcase_collector.system.ownership import Invoker, create_private_file, invoking_user
from leakcase_collector.system.priority import Turns
from tests.collector.system.started import NOBODY, as_nobody, needs_root


@pytest.fixture(autouse=True)
def no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.delenv("SUDO_GID", raising=False)


def test_a_new_file_is_private_and_writable(tmp_path: Path) -> None:
    fd = create_private_file(f"{tmp_path}/case")
    os.write(fd, b"x")
    status = os.fstat(fd)
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
    assert (tmp_path / "case").read_bytes() == b"x"


def test_a_relative_path_lands_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.close(create_private_file("case"))
    assert (tmp_path / "case").exists()


def test_what_exists_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "case").write_text("precious")
    (tmp_path / "link").symlink_to("case")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("case", "link", "dangling"):
        with pytest.raises(OutputError, match="it exists already"):
            create_private_file(f"{tmp_path}/{name}")
    assert (tmp_path / "case").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_each_obstacle_has_its_own_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, reason in (
        ("missing/case", "its directory does not exist"),
        ("file/case", "its directory is not a directory"),
        ("", "directory"),
        ("/proc/case", "cannot create /proc/case: "),
        ("x" * 300, "name too long"),
        ("missing\x1b/case", r"missing\\x1b/case: "),
    ):
        with pytest.raises(OutputError, match=f"(?i){reason}") as caught:
            create_private_file(path if path.startswith("/") else f"{tmp_path}/{path}")
        assert caught.value.exit_code == 2
        assert str(caught.value).endswith(".")


@needs_root
def test_a_directory_without_permission_is_named_as_the_cause(tmp_path: Path) -> None:
    directory = Path("/var/lib")
    error = as_nobody(lambda: create_private_file(f"{directory}/case"))
    assert isinstance(error, OutputError)
    assert "you may not write in its directory" in str(error)


@needs_root
def test_read_only_and_full_disks_are_named(tmp_path: Path) -> None:
    code = (
        "from leakcase_collector.system.ownership import create_private_file\n"
        f"try: create_private_file('{tmp_path}/case')\n"
        "except Exception as error: print(error)\n"
    )
    for options, words in (("ro", b"read-only"), ("nr_inodes=1,size=4k", b"is full")):
        mount = f'mount -t tmpfs -o {options} none {tmp_path} && exec "$@"'
        result = subprocess.run(
            ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            timeout=20,
            check=True,
        )
        assert words in result.stdout


@needs_root
def test_under_sudo_the_file_is_the_invoking_user_s_where_they_could_have_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    monkeypatch.setenv("SUDO_GID", str(NOBODY))
    assert invoking_user() == Invoker(NOBODY, NOBODY)
    owners = {}
    for name, owner, mode in (
        ("theirs", NOBODY, 0o700),
        ("theirs-read-only", NOBODY, 0o577),
        ("everybody's", 0, 0o1777),
        ("root's", 0, 0o755),
    ):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, owner, 0)
        (tmp_path / name).chmod(mode)
        fd = create_private_file(f"{tmp_path}/{name}/case")
        owners[name] = (os.fstat(fd).st_uid, os.fstat(fd).st_gid)
        os.close(fd)
    assert owners == {
        "theirs": (NOBODY, NOBODY),
        "theirs-read-only": (0, 0),
        "everybody's": (NOBODY, NOBODY),
        "root's": (0, 0),
    }


def test_sudo_s_variables_mean_nothing_without_root_or_when_they_are_no_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SUDO_UID", "1000; rm")
    monkeypatch.setenv("SUDO_GID", "1000")
    assert invoking_user() == Invoker(os.geteuid(), os.getegid())
    monkeypatch.setenv("SUDO_UID", "1000")
    if os.geteuid() == 0:
        assert as_nobody(invoking_user) == Invoker(NOBODY, NOBODY)


def test_the_host_comes_first() -> None:
    """In a process of its own, for priorities cannot be taken back without privilege."""
    code = """
import json, os, resource
from leakcase_collector.system.priority import yield_to_host
before = os.nice(0)
achieved = yield_to_host()
print(json.dumps({
    "achieved": achieved._asdict(), "before": before, "nice": os.nice(0),
    "batch": os.sched_getscheduler(0) == os.SCHED_BATCH,
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
    "oom": int(open("/proc/self/oom_score_adj").read()),
}))
"""
    output = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=20, check=True
    ).stdout
    seen = json.loads(output)
    achieved = seen["achieved"]
    # Who cannot take it back gives way less: a busy host would leave it no turn at all.
    steps = 10 if os.geteuid() == 0 else 5
    assert achieved["nice"] == seen["nice"] == min(seen["before"] + steps, 19)
    assert achieved["is_batch"] is seen["batch"] is True
    assert achieved["oom_score_adj"] == seen["oom"] == 1000
    assert achieved["is_core_free"] is True
    assert seen["core"] <= 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_SYS_NICE")
def test_who_is_never_let_through_gets_back_into_line_and_stays_there(tmp_path: Path) -> None:
    """By what the kernel says of turns, written here: ran, and waited, in ns."""
    code = """
import json, os, sys
from pathlib import Path
from leakcase_collector.system.door import System
from leakcase_collector.system.priority import Turns, yield_to_host
told = Path(sys.argv[1]) / "thread-self" / "schedstat"
told.parent.mkdir()
def tell(ran_ms, waited_ms):
    told.write_text(f"{ran_ms * 10**6} {waited_ms * 10**6} 7")
tell(100, 90)
turns, seen = Turns(System(proc=sys.argv[1])), [os.nice(0)]
yield_to_host()
for figures in ((140, 100), (200, 270), (210, 360), (211, 500), (300, 500)):
    tell(*figures)
    turns.look()
    seen.append(os.nice(0))
print(json.dumps(seen))
"""
    output = subprocess.run(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, timeout=20, check=True
    ).stdout
    first, *seen = json.loads(output)
    lowered = min(first + 10, 19)
    assert seen == [lowered, lowered, lowered, first, first]


def test_turns_that_the_kernel_does_not_tell_of_change_nothing(tmp_path: Path) -> None:
    turns = Turns(System(proc=str(tmp_path)))
    before = os.getpriority(os.PRIO_PROCESS, 0)
    turns.look()
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_SYS_NICE")
def test_a_hurry_ends_with_the_priority_lowered_again() -> None:
    code = """
import json, os
from leakcase_collector.system.priority import in_a_hurry, yield_to_host
def now():
    return os.nice(0), os.sched_getscheduler(0)
seen = [now()]
with in_a_hurry():
    seen.append(now())
yield_to_host()
yield_to_host()
seen.append(now())
with in_a_hurry():
    seen.append(now())
seen.append(now())
print(json.dumps(seen))
"""
    output = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=20, check=True
    ).stdout
    at_first, idle_hurry, lowered, hurry, at_last = json.loads(output)
    assert at_first == idle_hurry == hurry
    assert lowered == at_last == [min(at_first[0] + 10, 19), os.SCHED_BATCH]


@pytest.mark.skipif(not os.path.exists("/usr/bin/ionice"), reason="ionice is not installed")
def test_disk_priority_is_idle_as_ionice_sees_it() -> None:
    code = (
        "import os, subprocess; from leakcase_collector.system.priority import yield_to_host\n"
        "print(yield_to_host().is_io_idle, flush=True)\n"
        "subprocess.run(['ionice', '-p', str(os.getpid())])\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=20, check=True
    ).stdout
    assert output in (b"True\nidle\n", b"False\nnone: prio 0\n")
