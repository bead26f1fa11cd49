"""Runs inside gdb on a core file: writes what it unwinds of each thread to LEAKCASE_OUT, as JSON.

By the thread's number, addresses and functions' names, innermost first, without the frames that gdb
makes up of debug information.
"""

import json
import os

import gdb

MADE_UP = (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME)


def pcs():
    frame, found = gdb.newest_frame(), []
    while frame is not None and len(found) < 128:
        if frame.type() not in MADE_UP:
            found.append([frame.pc(), frame.name() or ""])
        frame = frame.older()
    return found


stacks = {}
gdb.execute("set backtrace past-main on")
for thread in gdb.selected_inferior().threads():
    thread.switch()
    stacks[thread.ptid[1]] = pcs()
with open(os.environ["LEAKCASE_OUT"], "w") as out:
    json.dump(stacks, out)
