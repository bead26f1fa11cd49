"""Real servers under a modest load, on 127.0.0.1 only, each in a folder of its own.

    with redis(folder, seconds=150) as serving:
        ...  # look at serving.pid
        assert serving.still_serves()

Each ends by itself some time after its load: a test that is killed leaves none behind. Where tests
run as root, servers that others wrote run as nobody, as PostgreSQL and memcached refuse root.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.live.processes import (
    HERE,
    START_SECONDS,
    Serving,
    children,
    client,
    find_program,
    free_port,
    load,
    run,
    serving,
    started,
    wait_for,
)

LEAK_LIMIT_BYTES = 2 << 30
ORDERS_PER_SECOND = 97
POSTGRES_FOLDERS = "usr/lib/postgresql/*/bin"

#: Takes an empty folder and for how long to be under load.
Start = Callable[[Path, float], AbstractContextManager[Serving]]


# --- redis, memcached ---------------------------------------------------------------------------


@contextmanager
def redis(
    folder: Path, seconds: float, *, cap: str = "64mb", title: bool = False
) -> Iterator[Serving]:
    """An LRU cache that 1,700 keys of some 1.2 KB a second fill; `cap`: its --maxmemory.

    With a `title` redis writes one over its command line, as it does unless told otherwise: then
    nobody can see the cap.
    """
    port = free_port()
    server = [
        find_program("redis-server"), "--port", port, "--bind", "127.0.0.1", "--save", "",
        "--maxmemory", cap, "--maxmemory-policy", "allkeys-lru",
        "--set-proc-title", "yes" if title else "no", "--dir", folder,
    ]  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(started(server, folder, seconds))

        def answering_pid() -> int:
            told = _ask(port, b"INFO server\r\n", until=b"process_id:")
            return int(told[b"process_id"])

        pid = wait_for(answering_pid)
        work = stack.enter_context(client("redis", port, 1_700, seconds))
        yield serving(pid, answering_pid, work)


@contextmanager
def memcached(folder: Path, seconds: float) -> Iterator[Serving]:
    """64 MB, filled in 40 s and then churned."""
    port = free_port()
    server = [find_program("memcached"), "-l", "127.0.0.1", "-p", port, "-m", "64", "-t", "2"]
    with ExitStack() as stack:
        stack.enter_context(started(server, folder, seconds))

        def answering_pid() -> int:
            return int(_ask(port, b"stats\r\n", until=b"END")[b"STAT pid"])

        pid = wait_for(answering_pid)
        work = stack.enter_context(client("memcached", port, 1_500, seconds))
        yield serving(pid, answering_pid, work)


def _ask(port: int, question: bytes, until: bytes) -> dict[bytes, bytes]:
    """The lines of an answer as name and last word."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(question)
        told: dict[bytes, bytes] = {}
        for line in connection.makefile("rb"):
            name, _, value = line.strip().replace(b":", b" ").rpartition(b" ")
            told[name] = value
            if line.startswith(until):
                return told
    raise ConnectionError(f"no {until!r} in the answer")


# --- nginx --------------------------------------------------------------------------------------

_NGINX_CONF = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr crit;
events {{ worker_connections 256; }}
http {{
  access_log access.log combined buffer=32k;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  gzip on; gzip_types text/plain; gzip_min_length 100;
  server {{ listen 127.0.0.1:{port}; root pages; default_type text/plain; }}
}}
"""


@contextmanager
def nginx(folder: Path, seconds: float, *, pause_seconds: float = 5) -> Iterator[Serving]:
    """The one worker of nginx, which compresses pages for 20 connections in bursts of a second."""
    port = free_port()
    bench = find_program("wrk")
    (folder / "pages").mkdir(mode=0o755)
    (folder / "pages" / "index.html").write_text("the quick brown fox\n" * 1_000)
    (folder / "nginx.conf").write_text(_NGINX_CONF.format(port=port))
    server = [
        find_program("nginx"), "-p", f"{folder}/", "-c", folder / "nginx.conf", "-e", "stderr",
    ]  # fmt: skip
    burst = f"{bench} -t1 -c20 -d1s -H 'Accept-Encoding: gzip' http://127.0.0.1:{port}/"
    bursts = f"while {burst} | grep -q 'requests in'; do sleep {pause_seconds}; done; exit 1"
    with ExitStack() as stack:
        master = stack.enter_context(started(server, folder, seconds))

        def answering_pid() -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
            (worker,) = children(master)
            return worker

        pid = wait_for(answering_pid)
        work = stack.enter_context(load(["sh", "-c", bursts], seconds))
        yield serving(pid, answering_pid, work)


# --- PostgreSQL ---------------------------------------------------------------------------------


_PREPARE = """\
\\set n random(1, 1000000000000)
prepare statement_:n as select :n, relname, attname from pg_class join pg_attribute
  on attrelid = pg_class.oid where pg_class.oid = :n;
"""


@contextmanager
def postgresql(folder: Path, seconds: float, *, forgets: bool = False) -> Iterator[Serving]:
    """The backend that serves pgbench's one connection: 47 transactions a second.

    `forgets`: each prepares a statement that nobody uses or drops.
    """
    port = free_port()
    bin_folders = sorted(Path("/").glob(POSTGRES_FOLDERS))
    path = os.pathsep.join([*map(str, reversed(bin_folders)), os.environ.get("PATH", "")])
    at = ["-h", "127.0.0.1", "-p", str(port), "-U", "bench"]
    data = folder / "data"
    initdb = [find_program("initdb", path), "-D", data, "-U", "bench", "-A", "trust", "--no-sync"]
    run(initdb, folder)
    server = [
        find_program("postgres", path), "-D", data, "-h", "127.0.0.1", "-p", port, "-k", "", "-F",
    ]  # fmt: skip
    with ExitStack() as stack:
        # SIGINT: it disconnects its clients and ends (pg_ctl's "fast").
        stack.enter_context(started(server, folder, seconds, end_by=signal.SIGINT))
        pgbench, psql = find_program("pgbench", path), find_program("psql", path)
        wait_for(lambda: run([psql, *at, "-c", "select 1", "postgres"], folder))
        run([pgbench, *at, "-i", "-q", "-s", "1", "postgres"], folder)
        bench = [pgbench, *at, "-c", "1", "-R", "47", "-n", "-T", "9999"]
        if forgets:
            (folder / "prepare.sql").write_text(_PREPARE)
            bench += ["-M", "simple", "-f", folder / "prepare.sql"]
        else:
            bench += ["-M", "prepared"]
        work = stack.enter_context(load([*bench, "postgres"], seconds))
        # pgbench looks around over a connection that it closes again before it begins.
        ask = (
            "select pid from pg_stat_activity where application_name = 'pgbench' and"
            " backend_start < now() - interval '1 s' and state_change > now() - interval '5 s'"
        )

        def answering_pid() -> int:
            return int(run([psql, *at, "-At", "-c", ask, "postgres"], folder))

        yield serving(wait_for(answering_pid), answering_pid, work)


# --- a Python service ---------------------------------------------------------------------------


@contextmanager
def python_service(folder: Path, seconds: float, *, forgets: bool = False) -> Iterator[Serving]:
    """A busy service with a bounded cache; `forgets`: its native library leaks at every request."""
    port = free_port()
    library = folder / "frames.so"
    compiler = ["-O2", "-g", "-shared", "-fPIC", "-o", library, HERE / "native" / "frames.c"]
    run([find_program("cc"), *compiler], folder)
    service: list[Any] = [
        sys.executable, "-I", HERE / "workloads_service.py",
        "--port", port, "--library", library, "--seconds", seconds + START_SECONDS,
    ]  # fmt: skip
    service += ["--forget"] if forgets else []
    with ExitStack() as stack:
        own = stack.enter_context(started(service, folder, seconds, as_nobody=False))

        def answering_pid() -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/")
            return int(json.load(connection.getresponse())["pid"])

        pid = wait_for(answering_pid)
        assert pid == own
        resource.prlimit(pid, resource.RLIMIT_AS, (LEAK_LIMIT_BYTES, LEAK_LIMIT_BYTES))
        work = stack.enter_context(client("orders", port, ORDERS_PER_SECOND, seconds))
        yield serving(pid, answering_pid, work)
