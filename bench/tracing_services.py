"""Servers under load for `bench/tracing.py`: what they did and what CPU that took them."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: A load that outlives every measurement; it is ended with its server.
FOR_EVER_SECONDS = 7200


@dataclass(frozen=True)
class Work:
    """One stretch of work: its CPU time for each unit, and the longest wait where it is known."""

    cpu_ns: float
    longest_ms: float | None = None


class Service:
    """A server under steady load. Works all the time; a stretch is what lies between two looks."""

    def __init__(self, pid: int, count: Callable[[], int]) -> None:
        self.pid = pid
        self._count = count
        self._from = (0, 0)
        self._until = 0.0

    def _look(self) -> tuple[int, int]:
        threads = Path(f"/proc/{self.pid}/task").iterdir()
        cpu_ns = sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)
        return cpu_ns, self._count()

    def start(self, seconds: float) -> None:
        """Begin a stretch of so long."""
        self._from, self._until = self._look(), time.monotonic() + seconds

    def result(self) -> Work:
        """CPU in ns for each request of the stretch, when it is over."""
        time.sleep(max(0.0, self._until - time.monotonic()))
        cpu_ns, requests = self._look()
        return Work((cpu_ns - self._from[0]) / max(requests - self._from[1], 1))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _running(
    *commands: list[str], user: str | None = None
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Programs that run until the block is left, the last started ended first."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            started.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL, user=user, start_new_session=True,
                )
            )  # fmt: skip
            time.sleep(1)
        yield started
    finally:
        for process in reversed(started):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@contextlib.contextmanager
def redis() -> Iterator[Service]:
    """Debian's redis-server; redis-benchmark sets and gets."""
    port = str(_free_port())

    def commands() -> int:
        lines = _said("redis-cli", "-p", port, "info", "stats").splitlines()
        return int(next(one for one in lines if one.startswith("total_commands")).split(":")[1])

    with _running(
        ["redis-server", "--port", port, "--save", "", "--appendonly", "no"],
        ["redis-benchmark", "-p", port, "-n", "2000000000", "-r", "20000", "-d", "100", "-c", "4",
         "-t", "set,get", "-q"],
    ) as (server, _):  # fmt: skip
        yield Service(server.pid, commands)


@contextlib.contextmanager
def nginx() -> Iterator[Service]:
    """Debian's nginx, one process; wrk asks for a small file."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "index.html").write_text("x" * 2000)
        (folder / "conf").write_text(
            f"daemon off; master_process off; pid {name}/pid; error_log stderr crit;\n"
            "events { worker_connections 64; }\n"
            f"http {{ access_log off; server {{ listen 127.0.0.1:{port}; root {name};\n"
            "location /status { stub_status; } } }\n"
        )
        url = f"http://127.0.0.1:{port}"

        def requests() -> int:
            return int(_said("curl", "-s", f"{url}/status").splitlines()[2].split()[2])

        with _running(
            ["nginx", "-c", f"{name}/conf"],
            ["wrk", "-t1", "-c8", f"-d{FOR_EVER_SECONDS}", f"{url}/"],
        ) as (server, _):
            yield Service(server.pid, requests)


@contextlib.contextmanager
def postgresql() -> Iterator[Service]:
    """One backend of Debian's PostgreSQL; pgbench's transactions, reading only."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    port, user = str(_free_port()), "postgres"
    with tempfile.TemporaryDirectory() as name:
        account = pwd.getpwnam(user)
        os.chown(name, account.pw_uid, account.pw_gid)
        data, asked = f"{name}/data", ["-h", name, "-p", port, "-U", user]

        def sql(text: str) -> str:
            return _said("psql", *asked, "-At", "-c", text, user).strip()

        subprocess.run(
            [programs / "initdb", "-D", data, "-A", "trust"], user=user, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        with _running([str(programs / "postgres"), "-D", data, "-p", port, "-k", name], user=user):
            subprocess.run(["pgbench", "-i", "-q", *asked, user], check=True, capture_output=True)
            with _running(["pgbench", "-S", "-n", "-c1", f"-T{FOR_EVER_SECONDS}", *asked, user]):
                backend = sql("select pid from pg_stat_activity where application_name = 'pgbench'")
                count = (
                    "select xact_commit from pg_stat_database where datname = current_database()"
                )
                yield Service(int(backend), lambda: int(sql(count)))


SERVICES = {
    "redis, redis-benchmark": ("redis-benchmark", redis),
    "nginx, wrk": ("wrk", nginx),
    "PostgreSQL, pgbench": ("pgbench", postgresql),
}
