"""A busy Python service: orders come in as JSON, are checked by a native library, and pages about
them go out, from a bounded cache.

    python workloads_service.py --port N --library frames.so [--forget] --seconds N

With --forget the native library forgets one buffer per request: the only difference.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import os
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CACHED_PAGES = 509
DIFFERENT_PAGES = 2_003
LINES_PER_PAGE = 23
#: Bytes that glibc takes for a buffer of native/frames.c: 5,003 + 8, rounded up to 16.
FORGOTTEN_BYTES_PER_REQUEST = 5_024


@functools.lru_cache(maxsize=CACHED_PAGES)
def page(number: int) -> str:
    """What the service tells about an order; some 2 KB."""
    randomness = random.Random(number)
    lines = [
        {"line": line, "price": randomness.randrange(10_000), "note": f"{randomness.random():.30f}"}
        for line in range(LINES_PER_PAGE)
    ]
    return json.dumps({"order": number, "lines": sorted(lines, key=lambda line: line["price"])})


class Orders(BaseHTTPRequestHandler):
    """GET / tells the pid; POST / takes an order and answers with a page."""

    protocol_version = "HTTP/1.1"
    # Headers and body in one segment: two would wait for each other's acknowledgement.
    wbufsize = -1
    sum_frame: Any

    def do_GET(self) -> None:
        self._answer({"pid": os.getpid()})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        order = json.loads(body)
        about = json.loads(page(order["number"] % DIFFERENT_PAGES))
        about["total"] = sum(line["price"] for line in about["lines"])
        about["sum"] = self.sum_frame(body, len(body))
        self._answer(about)

    def _answer(self, content: dict[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--library", required=True)
    parser.add_argument("--forget", action="store_true")
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    library = ctypes.CDLL(options.library)
    function = library.frames_sum_and_forget if options.forget else library.frames_sum
    function.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    function.restype = ctypes.c_uint32
    Orders.sum_frame = staticmethod(function)
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Orders)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Event().wait(options.seconds)


if __name__ == "__main__":
    main()
