"""``leakcase-collect``: the command line. Only here does an error become an exit status."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Callable, Optional

from . import __version__
from .errors import CollectorError, UsageError

EXIT_PARTIAL = 3
EXIT_INTERRUPTED = 130

_EPILOG = """\
levels: observe (default) reads text under /proc and /sys; read-memory, trace, attach and dump
do more and are asked, or allowed beforehand with --allow LEVEL,...

exit status: 0 done; 2 usage, or the case cannot be written; 3 done, but a probe left a gap;
4 not permitted, or the target is gone; 130 interrupted, with a valid case"""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; the documentation's test reads it, too."""
    parser = argparse.ArgumentParser(
        prog="leakcase-collect",
        description="Record why a process eats memory into one small, redacted file: a case.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"leakcase-collect {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    capture = commands.add_parser("capture", help="watch a process and write a case")
    _add_target(capture)
    add_capture_options(capture)
    capture.add_argument("--core", metavar="FILE",
        help="look at a core file instead of a process (level read-memory)")  # fmt: skip
    capture.add_argument("--json", action="store_true", help="print the outcome as JSON")
    capture.set_defaults(run=_capture)

    planned = commands.add_parser(
        "plan", help="say what a capture would do and cost; touch nothing"
    )
    _add_target(planned)
    add_capture_options(planned)
    planned.add_argument("--json", action="store_true", help="print the plan as JSON")
    planned.set_defaults(run=_plan)

    probes = commands.add_parser("probes", help="list the probes: what each reads, needs and risks")
    probes.add_argument("--json", action="store_true", help="print them as JSON")
    probes.set_defaults(run=_probes)

    top = commands.add_parser("top", help="list the largest processes by RSS, PSS and swap")
    top.add_argument("--json", action="store_true", help="print them as JSON")
    top.set_defaults(run=_top)

    mark = commands.add_parser("mark", help="set a label in a running capture of a process")
    mark.add_argument("pid", metavar="PID", help="the captured process")
    mark.add_argument(
        "label", metavar="LABEL", help="what it does from now on: active, idle, deploy"
    )
    mark.set_defaults(run=_mark)
    return parser


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", metavar="PID|NAME", nargs="?",
        help="the process; without it the largest ones are shown and asked for",
    )  # fmt: skip


def add_capture_options(parser: argparse.ArgumentParser) -> None:
    """The options of a capture, which ``leakcase investigate`` takes as well."""
    add = parser.add_argument
    add("--duration", metavar="TIME", default="2m", help="how long to watch: 30s, 2m, 24h (2m)")
    add("--interval", metavar="TIME", default="1s", help="time between samples (1s)")
    add("-o", "--output", metavar="FILE", help="the case to write (NAME-PID-TIME.leakcase)")
    add("--allow", metavar="LEVEL,...", default="", help="answer these levels with yes beforehand")
    add("--with", dest="with_", metavar="PROBE", action="append",
        help="insist on a probe: a gap in it makes the exit status 3")  # fmt: skip
    add("--without", metavar="PROBE", action="append", help="leave a probe out")
    add("--reachability", action="store_true",
        help="at the end, find memory that nothing refers to (level read-memory)")  # fmt: skip
    add("--trace", choices=("bursts", "full"),
        help="who allocates what stays: in short windows, or throughout (level trace)")  # fmt: skip
    add("--tracer", choices=("auto", "own", "bpftrace", "memleak-bpfcc"), default="auto",
        help="what --trace works with (auto: own, or for full a tool where it cannot)")  # fmt: skip
    add("--max-slowdown", metavar="SHARE", default="1%", help="what the target may lose (1%%)")
    add("--max-pause", metavar="TIME", default="2s", help="the longest the target may be held (2s)")
    add("--no-symbols", action="store_true", help="write no function or type names")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command; returns the exit status and never raises for what a user can do."""
    # Names of processes and files may be anything; printing them must not fail.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed its sentence
        return stop.code if isinstance(stop.code, int) else 2
    try:
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except CollectorError as error:
        return _fail(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _fail(error: CollectorError) -> int:
    print(f"leakcase-collect: {error}", file=sys.stderr)
    return error.exit_code


def _capture(arguments: argparse.Namespace) -> int:
    if arguments.core is not None:
        from .post_mortem import capture_core

        return capture_core(arguments)
    from .capture import capture

    return capture(arguments)


def _plan(arguments: argparse.Namespace) -> int:
    from .capture import choose_on_terminal
    from .options import capture_options, interval_ns, names, opted, select_probes
    from .plan import PlanContext, plan, plan_table
    from .probes import PROBES
    from .redact import Redactor
    from .system.door import System
    from .target import find_target

    system = System()
    wanted = names(arguments.with_)
    probes = select_probes(PROBES, wanted, names(arguments.without), opted(arguments))
    options = capture_options(arguments)
    for probe in probes:
        probe.configure(options)
    interval = interval_ns(arguments.interval)
    with find_target(system, arguments.target, choose_on_terminal()) as identity:
        context = PlanContext(system, identity, Redactor(), interval)
        total_ns = options.duration_ns or 0
        planned = plan(context, probes, total_ns, options.max_slowdown)
    if arguments.json:
        print(json.dumps({"pid": identity.pid, "probes": [item.as_map() for item in planned]}))
    else:
        print(plan_table(planned, total_ns))
    return 0


def _probes(arguments: argparse.Namespace) -> int:
    from .plan import describe, probes_table
    from .probes import PROBES

    print(json.dumps([describe(p) for p in PROBES]) if arguments.json else probes_table(PROBES))
    return 0


def _top(arguments: argparse.Namespace) -> int:
    from .capture import consumers_table
    from .system.door import System
    from .target import consumers

    found = consumers(System())
    if arguments.json:
        print(json.dumps([vars(consumer) for consumer in found]))
    else:
        print(consumers_table(found))
    return 0


def _mark(arguments: argparse.Namespace) -> int:
    from .marks import send_mark
    from .system.door import System

    if not arguments.pid.isdigit():
        raise UsageError(
            f"mark {arguments.pid}: not a pid. Give the number of the captured process."
        )
    taken = send_mark(System(), int(arguments.pid), arguments.label)
    what = "capture" if taken == 1 else f"{taken} captures"
    print(f"marked {arguments.label!r} in the running {what} of {arguments.pid}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
