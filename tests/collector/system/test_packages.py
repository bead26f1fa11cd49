"""Which package a file came from, against the package managers themselves."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from leakcase_collector.errors import NotSupported
from leakcase_collector.system.door import System
from leakcase_collector.system.modules import mapped_modules
from leakcase_collector.system.packages import Packages

PID = 4711
#: Two packages as apk writes them (apk-package(5)), abridged.
APK = """\
C:Q1aaaaaaaaaaaaaaaaaaaaaaaaaaa=
P:musl
V:1.2.5-r9
A:x86_64
o:musl
p:so:libc.musl-x86_64.so.1=1
F:lib
R:ld-musl-x86_64.so.1
a:0:0:755
Z:Q1bbbbbbbbbbbbbbbbbbbbbbbbbbb=
R:libc.musl-x86_64.so.1
a:0:0:777

P:redis
V:7.2.7-r0
A:x86_64
F:usr
F:usr/bin
R:redis-server
a:0:0:755
F:etc
R:redis.conf

"""


def target(tmp_path: Path) -> tuple[System, Path]:
    """A recorded process whose root is an empty directory."""
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / f"proc/{PID}").mkdir(parents=True)
    (tmp_path / f"proc/{PID}/root").symlink_to(root)
    return System(proc=f"{tmp_path}/proc"), root


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.skipif(not shutil.which("dpkg"), reason="dpkg is not installed")
def test_owners_and_versions_agree_with_dpkg() -> None:
    lists = sorted(Path("/var/lib/dpkg/info").glob("*.list"))
    random.Random(1).shuffle(lists)
    paths = []
    for name in lists[:40]:
        files = [line for line in name.read_text().splitlines() if os.path.isfile(line)]
        paths += files[:1]
    expected = {}
    for line in subprocess.run(
        ["dpkg", "-S", *paths], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines():
        owner, _, path = line.rpartition(": ")
        if not owner.startswith("diversion "):
            expected[path] = {name.partition(":")[0] for name in owner.split(", ")}
    shown = ["dpkg-query", "-W", "-f", "${Package} ${Architecture} ${Version}\n"]
    installed = subprocess.run(shown, stdout=subprocess.PIPE, text=True, check=True).stdout
    versions = {tuple(line.split()) for line in installed.splitlines()}
    owners = Packages(System()).owners(os.getpid(), paths)
    assert len(expected) > 10
    for path, names in expected.items():
        found = owners[path]
        assert found is not None
        assert found.system == "dpkg"
        assert found.name in names
        assert (found.name, found.architecture, found.version) in versions


@pytest.mark.skipif(not shutil.which("dpkg"), reason="dpkg is not installed")
def test_the_modules_of_a_process_are_owned_under_either_name_of_a_merged_usr() -> None:
    packages = Packages(System())
    for path in ("/bin/ls", "/usr/bin/ls"):
        owner = packages.owners(os.getpid(), [path])[path]
        assert owner is not None
        assert owner.name == "coreutils"
    libc = next(
        module.path
        for module in mapped_modules(System(), os.getpid())
        if module.path.endswith("/libc.so.6")
    )
    owner = packages.owners(os.getpid(), [libc])[libc]
    assert owner is not None
    assert owner.name == "libc6"


@pytest.mark.skipif(not shutil.which("dpkg"), reason="dpkg is not installed")
def test_a_look_up_is_quick_and_the_second_one_free() -> None:
    packages = Packages(System())
    paths = ["/usr/bin/ls", "/opt/surely/not/there"]
    started = time.process_time()
    first = packages.owners(os.getpid(), paths)
    looked_up = time.process_time()
    assert packages.owners(os.getpid(), paths) == first
    assert first["/opt/surely/not/there"] is None
    count = len(os.listdir("/var/lib/dpkg/info"))
    assert looked_up - started < 0.3 * max(1, count / 1000)
    assert time.process_time() - looked_up < 0.005


def test_dpkg_is_read_in_the_target_s_root_and_by_architecture(tmp_path: Path) -> None:
    system, root = target(tmp_path)
    write(root / "var/lib/dpkg/info/libfoo1:amd64.list", "/.\n/usr\n/usr/lib/libfoo.so.1\n")
    write(root / "var/lib/dpkg/info/libfoo1:i386.list", "/.\n/usr/lib32/libfoo.so.1\n")
    write(root / "var/lib/dpkg/info/tool.list", "/.\n/bin/tool\n/bin/tool.sh\n")
    write(
        root / "var/lib/dpkg/status",
        "Package: libfoo1\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0-1\n"
        "Description: x\n .\n Version: 9\n\n"
        "Package: libfoo1\nArchitecture: i386\nVersion: 1.0-1+b2\n\n"
        "Package: tool\nArchitecture: all\nVersion: 2:3.4~rc1-5",
    )
    paths = ["/usr/lib/libfoo.so.1", "/usr/lib32/libfoo.so.1", "/usr/bin/tool", "/bin/too"]
    owners = Packages(system).owners(PID, paths)
    assert [owners[path] for path in paths] == [
        ("dpkg", "libfoo1", "amd64", "1.0-1"),
        ("dpkg", "libfoo1", "i386", "1.0-1+b2"),
        ("dpkg", "tool", "all", "2:3.4~rc1-5"),
        None,
    ]


@pytest.mark.parametrize("place", ["lib/apk/db/installed", "usr/lib/apk/db/installed"])
def test_apk_is_read_where_old_and_new_alpine_keep_it(tmp_path: Path, place: str) -> None:
    system, root = target(tmp_path)
    write(root / place, APK)
    paths = ["/lib/ld-musl-x86_64.so.1", "/usr/bin/redis-server", "/etc/redis.conf", "/usr/bin"]
    owners = Packages(system).owners(PID, paths)
    assert [owners[path] for path in paths] == [
        ("apk", "musl", "x86_64", "1.2.5-r9"),
        ("apk", "redis", "x86_64", "7.2.7-r0"),
        ("apk", "redis", "x86_64", "7.2.7-r0"),
        None,
    ]


SPEC = """\
Name: leaky
Version: 1.4
Release: 2
Epoch: {epoch}
Summary: x
License: MIT
BuildArch: noarch
%description
x
%install
mkdir -p %{{buildroot}}/usr/bin %{{buildroot}}/opt/leaky/lib
for f in usr/bin/leaky opt/leaky/lib/libleaky.so opt/leaky/libleaky.so; do
  echo $f > %{{buildroot}}/$f; done
%files
/usr/bin/leaky
/opt/leaky
"""


@pytest.mark.skipif(not shutil.which("rpmbuild"), reason="rpm is not installed")
@pytest.mark.parametrize(("epoch", "version"), [(0, "1.4-2"), (3, "3:1.4-2")])
def test_rpm_s_own_database_is_read_without_rpm(tmp_path: Path, epoch: int, version: str) -> None:
    system, root = target(tmp_path)
    database = root / "var/lib/rpm"
    database.mkdir(parents=True)
    write(tmp_path / "leaky.spec", SPEC.format(epoch=epoch))
    defines = ["--define", f"_topdir {tmp_path}/top", "--define", f"_rpmdir {tmp_path}"]
    for command in (
        ["rpmbuild", *defines, "--quiet", "-bb", f"{tmp_path}/leaky.spec"],
        ["rpm", "--dbpath", str(database), "--initdb"],
        ["rpm", "--dbpath", str(database), "-i", "--justdb", "--nodeps", "--noscripts"]
        + [f"{tmp_path}/noarch/leaky-1.4-2.noarch.rpm"],
    ):
        subprocess.run(command, stderr=subprocess.DEVNULL, check=True)
    if not (database / "rpmdb.sqlite").exists():
        pytest.skip("this rpm keeps another kind of database")
    paths = ["/usr/bin/leaky", "/bin/leaky", "/opt/leaky/libleaky.so"]
    paths += ["/opt/leaky/lib/libleaky.so", "/opt/libleaky.so", "/opt/other"]
    owners = Packages(system).owners(PID, paths)
    expected = ("rpm", "leaky", "noarch", version)
    assert [owners[path] for path in paths] == [expected] * 4 + [None, None]


def test_a_root_without_a_package_database_is_not_supported(tmp_path: Path) -> None:
    system, _ = target(tmp_path)
    with pytest.raises(NotSupported, match="no dpkg, apk or SQLite rpm database"):
        Packages(system).owners(PID, ["/usr/bin/x"])


def test_names_that_no_package_may_have_are_not_repeated(tmp_path: Path) -> None:
    system, root = target(tmp_path)
    write(root / "lib/apk/db/installed", "P:evil\x1b[31m <b>\nV:1\nF:usr/bin\nR:x\n\n")
    assert Packages(system).owners(PID, ["/usr/bin/x"]) == {"/usr/bin/x": None}


def test_links_in_the_target_s_database_lead_nowhere_else(tmp_path: Path) -> None:
    system, root = target(tmp_path)
    write(tmp_path / "outside/status", "Package: secret\nVersion: 1\n")
    write(root / "var/lib/dpkg/info/tool.list", "/usr/bin/tool\n")
    (root / "var/lib/dpkg/info/evil.list").symlink_to("/etc/passwd")
    (root / "var/lib/dpkg/status").symlink_to(tmp_path / "outside/status")
    with pytest.raises(NotSupported):
        Packages(system).owners(PID, ["/usr/bin/tool"])
