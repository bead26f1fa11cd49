"""keep.py list|cache|extension [FOLDER]: keeps 500 things a second in one of these ways.

A line on standard input is answered by how often it has done so.
"""

import functools
import select
import sys
import time

FOLDER = sys.argv[2:]
sessions = []


class Session:
    def __init__(self, number):
        self.number = number
        self.name = f"session number {number}"


def keep_session(number):
    sessions.append(Session(number))


@functools.lru_cache(maxsize=10_000_000)
def render_page(number):
    return f"page {number}; " * 200


def call_extension(number):
    python_keep.take(1)


def passing(number):
    return [str(number), {number: bytes(700)}]


if sys.argv[1] == "extension":
    sys.path[:0] = FOLDER
    import python_keep
WAYS = {"list": keep_session, "cache": render_page, "extension": call_extension}
handle = WAYS[sys.argv[1]]
handled = 0
print("ready", flush=True)
while True:
    for _ in range(5):
        handle(handled)
        passing(handled)
        handled += 1
    time.sleep(0.01)
    if select.select([sys.stdin], [], [], 0)[0]:
        if not sys.stdin.readline():
            break
        print(handled, flush=True)
