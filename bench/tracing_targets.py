"""What `bench/tracing.py` traces: a program that counts its work, and servers under load.

They work all the time, on a core of their own, and can be asked at any moment what they have done.
Each maps copies of the C library and of jemalloc that lie in the measurement's own folder, so that
probes there are nobody else's, and probes that others left in the system's are not met.
"""

from __future__ import annotations

import contextlib
import http.client
import mmap
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from processes import running

SOURCE = Path(__file__).resolve().parent / "tracing" / "worker.c"
JEMALLOC = "libjemalloc.so.2"
FOR_EVER_SECONDS = 7200
_SERVERS_EVERY_SECONDS = 0.04


class Unanswered(Exception):
    """A target, or who is asked about it, does not say what it has done."""


class Target:
    """A process at work. `units` says how much of it was done so far, in requests or the like."""

    def __init__(
        self, pid: int, units: Callable[[], int], every_seconds: float, has_profiler: bool = False
    ) -> None:
        """`every_seconds`: how often it may be asked without being held up."""
        self.pid = pid
        self.units = units
        self.every_seconds = every_seconds
        self.has_profiler = has_profiler

    def library(self) -> Path:
        """The file whose malloc it calls."""
        lines = Path(f"/proc/{self.pid}/maps").read_text().splitlines()
        mapped = {Path(line.split()[-1]) for line in lines if "/" in line}
        wanted = (JEMALLOC, "libc.so.6")
        return next(one for name in wanted for one in mapped if one.name == name)

    def longest_ms(self) -> float | None:
        """The longest that a piece of work took since this was asked last; None: not known, as of
        one that others are asked about."""
        return None


class Server(Target):
    """One that is asked itself, and so tells how long it lets somebody wait."""

    def __init__(self, pid: int, ask: Callable[[], int]) -> None:
        super().__init__(pid, self._timed, _SERVERS_EVERY_SECONDS)
        self._ask = ask
        self._longest_seconds = 0.0

    def _timed(self) -> int:
        started = time.monotonic()
        units = self._ask()
        self._longest_seconds = max(self._longest_seconds, time.monotonic() - started)
        return units

    def longest_ms(self) -> float | None:
        longest_seconds, self._longest_seconds = self._longest_seconds, 0.0
        return 1000 * longest_seconds


class Worker(Target):
    """`worker.c`, which shares its figures with us: struct shared."""

    _PAIRS, _LONGEST_NS, _WANTS_PROFILE, _HAS_PROFILE = range(4)

    def __init__(self, pid: int, shared: mmap.mmap, has_profiler: bool) -> None:
        super().__init__(pid, lambda: self._figure(self._PAIRS), 0.005, has_profiler)
        self._shared = shared

    def _figure(self, place: int) -> int:
        return int(struct.unpack_from("=Q", self._shared, 8 * place)[0])

    def _tell(self, place: int, figure: int) -> None:
        struct.pack_into("=Q", self._shared, 8 * place, figure)

    def longest_ms(self) -> float | None:
        longest_ns = self._figure(self._LONGEST_NS)
        self._tell(self._LONGEST_NS, 0)
        return longest_ns / 1e6

    def profile(self, wanted: bool) -> None:
        """Start or stop the profiler of its allocator, jemalloc."""
        self._tell(self._WANTS_PROFILE, wanted)
        deadline = time.monotonic() + 5
        while self._figure(self._HAS_PROFILE) != wanted:
            if time.monotonic() > deadline:
                raise SystemExit("tracing: the worker does not reach its allocator's profiler")
            time.sleep(0.01)


@dataclass(frozen=True)
class Workshop:
    """The measurement's own folder, which any user may read, and the targets' core."""

    folder: Path
    core: str

    def prepare(self) -> None:
        """Compile the worker, copy the libraries."""
        (self.folder / "lib").mkdir()
        self.folder.chmod(0o755)
        for name in ("libc.so.6", JEMALLOC):
            found = subprocess.run(
                ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
            ).stdout.strip()
            if Path(found).is_absolute():
                shutil.copyfile(found, self.folder / "lib" / name)
        flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-g", "-fomit-frame-pointer"]
        subprocess.run(["gcc", *flags, "-o", self.folder / "worker", SOURCE], check=True)

    def running(
        self,
        *command: str,
        number: int = signal.SIGTERM,
        user: str | None = None,
        more: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[subprocess.Popen[str]]:
        """A server, with `more` in its environment; the signal `number` ends it."""
        environment = {**os.environ, "LD_LIBRARY_PATH": str(self.folder / "lib"), **(more or {})}
        return running(command, self.core, number, env=environment, user=user)


@contextlib.contextmanager
def worker(
    pairs_per_second: int, spin: int, workshop: Workshop, with_jemalloc: bool = False
) -> Iterator[Target]:
    """The program that counts its work, `spin` steps for each pair; 0: pairs as fast as it goes."""
    path, more = workshop.folder / "shared", {}
    path.write_bytes(bytes(mmap.PAGESIZE))
    if with_jemalloc:
        more["LD_PRELOAD"] = str(workshop.folder / "lib" / JEMALLOC)
        more["MALLOC_CONF"] = "prof:true,prof_active:false,lg_prof_sample:19"
    command = (workshop.folder / "worker", path, pairs_per_second, spin)
    with (
        path.open("r+b") as file,
        mmap.mmap(file.fileno(), mmap.PAGESIZE) as shared,
        workshop.running(*map(str, command), more=more) as process,
    ):
        target = Worker(process.pid, shared, with_jemalloc)
        while not target.units():
            if process.poll() is not None:
                raise SystemExit("tracing: the worker has ended")
            time.sleep(0.01)
        yield target


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(ask: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 15
    while True:
        try:
            ask()
            return
        except (OSError, subprocess.CalledProcessError) as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"tracing: {what} does not answer: {error}") from error
            time.sleep(0.1)


def _load(*command: str) -> AbstractContextManager[subprocess.Popen[str]]:
    return running(command)


@contextlib.contextmanager
def redis(workshop: Workshop) -> Iterator[Target]:
    """Debian's redis-server; redis-benchmark sets and gets."""
    port = _free_port()
    command = ("redis-server", "--port", str(port), "--save", "", "--appendonly", "no")
    with workshop.running(*command) as server, contextlib.ExitStack() as stack:
        asking: list[socket.socket] = []

        def connect() -> None:
            asking.append(
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            )

        def commands() -> int:
            asking[0].sendall(b"INFO stats\r\n")
            said = b""
            while b"total_commands_processed:" not in said or not said.endswith(b"\r\n"):
                said += asking[0].recv(65536)
            return int(said.split(b"total_commands_processed:")[1].split()[0])

        _wait_for(connect, "redis")
        stack.enter_context(
            _load("redis-benchmark", "-p", str(port), "-n", "2000000000", "-r", "20000",
                  "-d", "100", "-c", "4", "-t", "set,get", "-q")
        )  # fmt: skip
        yield Server(server.pid, commands)


@contextlib.contextmanager
def nginx(workshop: Workshop) -> Iterator[Target]:
    """Debian's nginx, one process; wrk asks for a small file."""
    port, folder = _free_port(), workshop.folder / "nginx"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    (folder / "index.html").write_text("x" * 2000)
    (folder / "conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr crit;\n"
        "events { worker_connections 64; }\n"
        "http { access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;\n"
        f"server {{ listen 127.0.0.1:{port}; root {folder};\n"
        "location /status { stub_status; } } }\n"
    )
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def requests() -> int:
        asking.request("GET", "/status")
        return int(asking.getresponse().read().splitlines()[2].split()[2])

    with workshop.running("nginx", "-c", f"{folder}/conf") as server:
        _wait_for(asking.connect, "nginx")
        url = f"http://127.0.0.1:{port}/"
        # One connection: of several, nginx takes as many requests at a time as wrk, which shares
        # its core with the tracer, is in time to send, and the more, the less each costs.
        with _load("wrk", "-t1", "-c1", f"-d{FOR_EVER_SECONDS}", url):
            yield Server(server.pid, requests)


class _Sql:
    """One psql that is asked again and again."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout

    def number(self, query: str) -> int:
        """The answer to a query, asked until there is one."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            print(f"select coalesce(({query})::text, '');", file=self._in, flush=True)
            answer = self._out.readline()
            if not answer:
                raise Unanswered("psql has ended")
            if answer.strip():
                return int(answer)
        raise Unanswered(f"nothing comes of {query}")


@contextlib.contextmanager
def postgresql(workshop: Workshop) -> Iterator[Target]:
    """One backend of Debian's PostgreSQL; pgbench's transactions, reading only."""
    programs, user = max(Path("/usr/lib/postgresql").glob("*/bin")), "postgres"
    folder, port = workshop.folder / "postgresql", str(_free_port())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    account = pwd.getpwnam(user)
    os.chown(folder, account.pw_uid, account.pw_gid)
    asked = ("-h", str(folder), "-p", port, "-U", user, user)
    subprocess.run(
        [programs / "initdb", "-D", folder / "data", "-A", "trust", "--no-sync"],
        user=user, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    command = (
        str(programs / "postgres"), "-D", f"{folder}/data", "-p", port, "-k", str(folder),
        "-c", "listen_addresses=", "-c", "fsync=off",
    )  # fmt: skip
    with workshop.running(*command, number=signal.SIGINT, user=user):
        fill = ("pgbench", "-i", "-q", *asked)
        _wait_for(lambda: subprocess.run(fill, check=True, capture_output=True), "PostgreSQL")
        with (
            _load("pgbench", "-S", "-n", "-c1", f"-T{FOR_EVER_SECONDS}", *asked),
            running(
                ("psql", "-Atq", *asked), stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as psql,
        ):
            sql = _Sql(psql)
            # Beside the backend that is measured it would find that one between transactions.
            os.sched_setaffinity(sql.number("select pg_backend_pid()"), os.sched_getaffinity(0))
            backend = sql.number(
                "select pid from pg_stat_activity where query like 'SELECT abalance%' limit 1"
            )
            # Its transactions are numbered, and the one that is under way holds its own number.
            transaction = (
                "select split_part(virtualxid, '/', 2) from pg_locks "
                f"where locktype = 'virtualxid' and pid = {backend}"
            )
            yield Target(backend, partial(sql.number, transaction), _SERVERS_EVERY_SECONDS)
