"""Record the memory of programs of known truth, once a second, as CSV.

    python bench/accuracy_record.py FOLDER --seed 1 --seconds 300 [KIND ...]

The recordings under tests/analyzer/series/recordings/ were made so. Programs beyond those of
`accuracy_programs.py` (redis-server, nginx, node) are recorded where they are installed; they
listen on loopback only, and a small client in this process keeps them busy.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from accuracy_programs import KINDS

COLUMNS = "t_ms,anon_kb,threads,descriptors,cpu_us,in_use_kb,free_kb"
NODE_SERVER = """
const http = require('http');
http.createServer((q, r) => {
  const rows = Array.from({length: 200}, (_, i) => ({i, text: 'row ' + Math.random()}));
  r.end(JSON.stringify(rows));
}).listen(PORT, '127.0.0.1');
"""
NGINX_CONF = """
daemon off; master_process off; pid nginx.pid; error_log stderr crit;
events { worker_connections 64; }
http { access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f;
  uwsgi_temp_path u; scgi_temp_path s; gzip on; gzip_types text/html;
  server { listen 127.0.0.1:PORT; root .; } }
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def sample(pid: int) -> tuple[int, int, int, int]:
    """RssAnon + VmSwap in kB, threads, descriptors, CPU time in µs (proc_pid_status(5))."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    anon_kb = int(fields["RssAnon"].split()[0]) + int(fields["VmSwap"].split()[0])
    tasks = os.listdir(f"/proc/{pid}/task")
    ran_ns = 0
    for task in tasks:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            ran_ns += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return anon_kb, int(fields["Threads"]), len(os.listdir(f"/proc/{pid}/fd")), ran_ns // 1000


def _ask(port: int, request: Callable[[random.Random], bytes], per_second: float) -> None:
    """One client for ever: send, read what comes, wait."""
    rng = random.Random(port)
    with contextlib.suppress(OSError):
        while True:
            with socket.create_connection(("127.0.0.1", port), 5) as link:
                for _ in range(50):
                    link.sendall(request(rng))
                    link.recv(1 << 16)
                    time.sleep(rng.expovariate(per_second))


def _redis_set(keys: int) -> Callable[[random.Random], bytes]:
    def request(rng: random.Random) -> bytes:
        value = bytes(rng.randint(100, 3000))
        key = str(rng.randrange(keys)).encode()
        return b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (
            len(key),
            key,
            len(value),
            value,
        )

    return request


def _http_get(rng: random.Random) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n"


def _servers(seed: int) -> dict[str, Callable[[Path, int], tuple[list[str], object, float]]]:
    def redis(keys: int, rate: float) -> Callable[[Path, int], tuple[list[str], object, float]]:
        def build(folder: Path, port: int) -> tuple[list[str], object, float]:
            argv = [
                "redis-server",
                "--port",
                str(port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--maxmemory",
                "8mb",
                "--maxmemory-policy",
                "allkeys-lru",
            ]
            return argv, _redis_set(keys), rate

        return build

    def nginx(folder: Path, port: int) -> tuple[list[str], object, float]:
        (folder / "index.html").write_text("<p>hello</p>" * 2000)
        (folder / "nginx.conf").write_text(NGINX_CONF.replace("PORT", str(port)))
        return ["nginx", "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"], _http_get, 50.0

    def node(folder: Path, port: int) -> tuple[list[str], object, float]:
        return ["node", "-e", NODE_SERVER.replace("PORT", str(port))], _http_get, 40.0

    return {
        "redis-rewrites": redis(500, 60.0),
        "redis-fills-to-maxmemory": redis(10**6, 60.0),
        "nginx": nginx,
        "node-service": node,
    }


def record(
    kind: str, seed: int, seconds: float, out: Path, scratch: Path, stop: threading.Event
) -> None:
    """Start the program, sample it every second until `seconds` are over or `stop`, end it."""
    folder = scratch / kind
    folder.mkdir()
    request: object = None
    per_second, port = 0.0, 0
    if kind in KINDS:
        programs = Path(__file__).with_name("accuracy_programs.py")
        argv = [sys.executable, str(programs), kind, str(seed)]
    else:
        port = _free_port()
        argv, request, per_second = _servers(seed)[kind](folder, port)
    books = folder / "books"
    with books.open("wb") as told:
        child = subprocess.Popen(
            argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=told, stderr=subprocess.DEVNULL
        )
    rows = [COLUMNS]
    try:
        time.sleep(0.5)
        if callable(request):
            threading.Thread(target=_ask, args=(port, request, per_second), daemon=True).start()
        start = time.monotonic()
        for turn in range(int(seconds) + 1):
            if stop.wait(max(0.0, start + turn - time.monotonic())):
                return
            taken_ms = round((time.monotonic() - start) * 1000)
            lines = books.read_text().splitlines() if kind in KINDS else []
            in_use_free = lines[-1].split() if lines else ["", ""]
            rows.append(",".join(map(str, (taken_ms, *sample(child.pid), *in_use_free))))
    finally:
        child.terminate()
        child.wait()
    (out / f"{kind}-{seed}.csv").write_text("\n".join(rows) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=300.0)
    options = parser.parse_intermixed_args()
    servers = [
        name
        for name in _servers(0)
        if shutil.which(name.split("-")[0] + ("-server" if name.startswith("redis") else ""))
    ]
    kinds = options.kinds or [*KINDS, *servers]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        jobs = [
            threading.Thread(
                target=record,
                args=(kind, options.seed, options.seconds, options.folder, Path(scratch), stop),
            )
            for kind in kinds
        ]
        for job in jobs:
            job.start()
        try:
            for job in jobs:
                job.join()
        finally:
            stop.set()
            for job in jobs:
                job.join()


if __name__ == "__main__":
    main()
