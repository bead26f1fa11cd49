"""Runs inside gdb: steps through a program and writes down where it is and what gdb unwinds.

Arguments come in the environment: LEAKCASE_OUT, the file that is written (one JSON object, then
one a stop); LEAKCASE_STOPS, how many; LEAKCASE_STRIDE, instructions from one to the next.
"""

import contextlib
import json
import os

import gdb

NAMES = ["rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp"]
NAMES += [f"r{number}" for number in range(8, 16)] + ["rip"]
BELOW_BYTES, STACK_BYTES = 128, 16384
# Frames that gdb makes up of debug information, where there is one for two or more functions.
MADE_UP = (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME)


def pcs():
    frame, found = gdb.newest_frame(), []
    while frame is not None and len(found) < 128:
        if frame.type() not in MADE_UP:
            found.append([frame.pc(), frame.name() or ""])
        frame = frame.older()
    return found


def stop(inferior, stack_end):
    newest = gdb.newest_frame()
    registers = [int(newest.read_register(name)) % 2**64 for name in NAMES]
    start = (registers[7] - BELOW_BYTES) // 8 * 8
    size = min(STACK_BYTES, stack_end - start)
    stack = inferior.read_memory(start, size).tobytes()
    return {"registers": registers, "start": start, "stack": stack.hex(), "pcs": pcs()}


def bounds(maps, name):
    (line,) = [line for line in maps.splitlines() if line.endswith(name)]
    return [int(bound, 16) for bound in line.split()[0].split("-")]


def main():
    for setting in ("pagination off", "backtrace past-main on", "debuginfod enabled off"):
        gdb.execute(f"set {setting}")
    gdb.execute("handle SIGUSR1 nostop noprint pass")
    gdb.execute("break main")
    gdb.execute("run", to_string=True)
    # A step would otherwise go on until a signal's handler has returned.
    with contextlib.suppress(gdb.error):
        gdb.execute("break handler")
    inferior = gdb.selected_inferior()
    stops, stride = int(os.environ["LEAKCASE_STOPS"]), int(os.environ["LEAKCASE_STRIDE"])
    with open(f"/proc/{inferior.pid}/maps") as file:
        maps = file.read()
    stack_end = bounds(maps, "[stack]")[1]
    start, end = bounds(maps, "[vdso]")
    vdso = inferior.read_memory(start, end - start).tobytes()
    with open(os.environ["LEAKCASE_OUT"], "w") as out:
        for _ in range(stops):
            gdb.execute(f"stepi {stride}", to_string=True)
            out.write(json.dumps(stop(inferior, stack_end)) + "\n")
        with open(f"/proc/{inferior.pid}/maps") as file:
            out.write(json.dumps({"maps": file.read(), "vdso": vdso.hex()}) + "\n")
    gdb.execute("kill")


main()
