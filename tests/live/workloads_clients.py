"""Clients that keep a server busy at an exact and modest rate.

    python workloads_clients.py redis|memcached|orders --port N --rate N --seconds N

What is due at a given second does not depend on how busy the machine is: who is late catches up.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import socket
import time
from collections.abc import Callable, Iterator

TICK_SECONDS = 0.1
VALUE_BYTES = (211, 1_999)
CONNECTIONS = 3


def due(rate: float, seconds: float) -> Iterator[range]:
    """The numbers of the requests that are due at each tick, until the time is over."""
    begun = time.monotonic()
    done = 0
    while (elapsed := time.monotonic() - begun) < seconds:
        target = int(elapsed * rate)
        if target > done:
            yield range(done, target)
            done = target
        time.sleep(TICK_SECONDS)


def _values() -> Callable[[], bytes]:
    randomness = random.Random(11)
    pool = randomness.randbytes(VALUE_BYTES[1] * 4).replace(b"\r", b"r").replace(b"\n", b"n")

    def value() -> bytes:
        begin = randomness.randrange(VALUE_BYTES[1])
        return pool[begin : begin + randomness.randint(*VALUE_BYTES)]

    return value


def redis(port: int, rate: float, seconds: float) -> None:
    """Sets ever new keys, in the RESP protocol, many to a packet."""
    value = _values()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        answers = connection.makefile("rb")
        for numbers in due(rate, seconds):
            commands = []
            for number in numbers:
                key, content = b"session:%010d" % number, value()
                commands.append(
                    b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
                    % (len(key), key, len(content), content)
                )
            connection.sendall(b"".join(commands))
            for _ in numbers:
                _expect(answers.readline(), b"+OK\r\n")


def memcached(port: int, rate: float, seconds: float) -> None:
    """Sets ever new keys, in the text protocol, many to a packet."""
    value = _values()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        answers = connection.makefile("rb")
        for numbers in due(rate, seconds):
            commands = []
            for number in numbers:
                content = value()
                commands.append(
                    b"set session:%010d 0 0 %d\r\n%b\r\n" % (number, len(content), content)
                )
            connection.sendall(b"".join(commands))
            for _ in numbers:
                _expect(answers.readline(), b"STORED\r\n")


def orders(port: int, rate: float, seconds: float) -> None:
    """Posts orders to the Python service, over a few connections that stay open."""
    randomness = random.Random(13)
    connections = [
        http.client.HTTPConnection("127.0.0.1", port, timeout=20) for _ in range(CONNECTIONS)
    ]
    for numbers in due(rate, seconds):
        for number in numbers:
            connection = connections[number % CONNECTIONS]
            order = {"number": randomness.randrange(1_000_000), "note": "x" * (number % 199)}
            connection.request("POST", "/", json.dumps(order))
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"the service answered {answer.status}")


def _expect(answer: bytes, wanted: bytes) -> None:
    if answer != wanted:
        raise SystemExit(f"expected {wanted!r}, the server answered {answer!r}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("redis", "memcached", "orders"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    {"redis": redis, "memcached": memcached, "orders": orders}[options.what](
        options.port, options.rate, options.seconds
    )


if __name__ == "__main__":
    main()
