"""Settings of allocators and runtimes that are in force: environment and command line."""

from __future__ import annotations

from typing import ClassVar

from leakcase_bundle.records import Setting
from leakcase_collector.errors import LimitReached, NotPermitted, NotSupported
from leakcase_collector.settings_allowlist import (
    ENVIRONMENT_NAMES,
    PROGRAMS,
    option_settings,
    variable_settings,
)

from .base import Cadence, Context, Probe
from .identity import parse_cmdline

MAX_SETTINGS = 64
_NAMES = frozenset(name.encode() for name in ENVIRONMENT_NAMES)


def parse_environ(content: bytes) -> list[tuple[str, str]]:
    """The variables of ``/proc/PID/environ`` that are on the list; nothing is made of the others.

    It is the environment as it was at exec: what the program set since does not show, and a
    program that writes its title over it leaves less of it (proc_pid_environ(5)).
    """
    found = []
    # By position, so that no other variable is ever copied out of the whole.
    begin = 0
    while begin < len(content):
        end = content.find(b"\0", begin)
        end = len(content) if end < 0 else end
        assigned = content.find(b"=", begin, end)
        if assigned > 0 and content[begin:assigned] in _NAMES:
            value = content[assigned + 1 : end].decode("utf-8", "replace")
            found.append((content[begin:assigned].decode("ascii"), value))
        begin = end + 1
    return found


def known_program(names: list[str]) -> str:
    """The first of the names that has options of its own on the list; "" where none has."""
    return next((name for name in names if name in PROGRAMS), "")


class SettingsProbe(Probe):
    """`Setting` records. After an exec, `begin` may be called again."""

    name: ClassVar[str] = "settings"
    cadence: ClassVar[Cadence] = Cadence.ONCE
    reads: ClassVar[str] = "/proc/PID/environ, cmdline: listed memory settings only"

    def begin(self, context: Context, taken_ns: int) -> None:
        self._emit(context, "environment", self._environment(context))
        self._emit(context, "arguments", self._arguments(context))

    def _environment(self, context: Context) -> list[tuple[str, str]]:
        try:
            variables = parse_environ(context.system.read_bytes(f"/proc/{context.pid}/environ"))
        except (NotPermitted, NotSupported, LimitReached) as error:
            context.gap(error, "environ")
            return []
        return [found for name, raw in variables for found in variable_settings(name, raw)]

    def _arguments(self, context: Context) -> list[tuple[str, str]]:
        try:
            arguments = parse_cmdline(context.system.read_bytes(f"/proc/{context.pid}/cmdline"))
        except (NotPermitted, NotSupported, LimitReached) as error:
            context.gap(error, "cmdline")
            return []
        names = [argument.rsplit("/", 1)[-1] for argument in arguments[:1]]
        return option_settings(arguments[1:], known_program([*names, *self._program(context)]))

    def _program(self, context: Context) -> list[str]:
        try:
            path = context.system.read_link(f"/proc/{context.pid}/exe")
        except (NotPermitted, NotSupported):
            return []
        return [path.rsplit("/", 1)[-1].partition(" ")[0]]

    def _emit(self, context: Context, source: str, settings: list[tuple[str, str]]) -> None:
        # Of an option given twice the last one is in force.
        unique: dict[str, str] = dict(settings)
        for name, raw in list(unique.items())[:MAX_SETTINGS]:
            reduced = context.redactor.setting(name, raw)
            if reduced is None:
                continue
            value, value_bytes = reduced
            option = context.redactor.option(name)
            context.emit(Setting(source=source, name=option, value=value, value_bytes=value_bytes))
