"""Redaction: the one place where strings of the host become tokens of a case.

A record takes tokens only (`leakcase_bundle.strings`), so what is not redacted here cannot be
written. Pseudonyms are numbered in order of first appearance: the same value has the same
pseudonym throughout a case, and nothing about the value can be computed from it, which a keyed
hash would not promise once the key is known. The list of what stands for what is the *private
map*; it stays on the host, in a file of mode 0600 beside the case, one JSON object a line, written
as it grows so that a killed collector leaves it whole.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Sequence
from typing import Callable, Optional

from leakcase_bundle.strings import (
    AddressToken,
    ArgumentToken,
    BuildId,
    EnvironmentToken,
    HostToken,
    LabelToken,
    NameToken,
    PackageToken,
    PathToken,
    SymbolToken,
    UserToken,
    VersionToken,
    public_components,
)

from .settings_allowlist import reduce_value

DELETED_SUFFIX = " (deleted)"
MAX_ARGUMENTS = 64

_KERNEL_NAMES = frozenset(
    "[heap] [stack] [vdso] [vvar] [vvar_vclock] [vsyscall] [uprobes] [sigpage] [vectors]".split()
)
#: Files whose names are the same on every machine.
_PUBLIC_FILES = frozenset(
    "/dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/console /dev/ptmx "
    "/dev/shm /dev/kmsg /dev/fuse /dev/nvidiactl /dev/nvidia-uvm /dev/kfd /dev/net/tun "
    "/etc/localtime /etc/ld.so.cache /etc/passwd /etc/hosts /etc/resolv.conf".split()
)
_BASENAME = re.compile(r"[A-Za-z0-9_.+@~%,:=-]{1,128}\Z")
_LONG_OPTION = re.compile(r"--[A-Za-z][A-Za-z0-9_-]{0,37}\Z")
#: Single-dash words that are options of well-known runtimes; of all others only the first letter
#: is sure to be a name (``-psecret``).
_SHORT_WORDS = frozenset("-jar -cp -classpath -server -client -version -daemon -foreground".split())


class Redactor:
    """Turns raw strings into tokens, and keeps the private map.

    `write_map_line` receives each new line of the private map as bytes; None keeps it in memory
    only.
    """

    def __init__(
        self,
        write_map_line: Optional[Callable[[bytes], None]] = None,
        keep_symbols: bool = True,
    ) -> None:
        self._write_map_line = write_map_line
        self._keep_symbols = keep_symbols
        self._pseudonyms: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}
        self._modules: set[str] = set()

    # --- paths and names ------------------------------------------------------------------------

    def path(self, raw: str, *, is_module: bool = False) -> PathToken:
        """A path: system prefixes stay, a module's basename stays, the rest is pseudonyms."""
        raw = raw[: -len(DELETED_SUFFIX)] if raw.endswith(DELETED_SUFFIX) else raw
        if raw in _KERNEL_NAMES or raw in _PUBLIC_FILES:
            return PathToken(raw)
        if raw and not raw.strip("/"):
            return PathToken("/")
        *directories, last = (part for part in raw.split("/") if part) if "/" in raw else [raw]
        if not raw.startswith("/"):
            return PathToken(self._last(last, is_module, public=False))
        public = public_components([*directories, last])
        out = directories[:public]
        out += [self._pseudonym("dir", component) for component in directories[public:]]
        # A path may be 4,096 bytes long, a token may not: keep the two ends.
        if len(out) > 24:
            out = out[:12] + out[-12:]
        out.append(self._last(last, is_module, public > len(directories)))
        return PathToken("/" + "/".join(out))

    def _last(self, component: str, is_module: bool, public: bool) -> str:
        if public or (is_module and _BASENAME.match(component)):
            return component
        return self._pseudonym("file", component)

    def know_module(self, path: str) -> None:
        """Remember a module of the target: names that only repeat its basename may stay."""
        base = path.rsplit("/", 1)[-1]
        if base.endswith(DELETED_SUFFIX):
            base = base[: -len(DELETED_SUFFIX)]
        if _BASENAME.match(base):
            self._modules.add(base)

    def name(self, raw: str) -> NameToken:
        """A name given by the program: a pseudonym unless a module's basename begins with it."""
        if self._repeats_a_module(raw):
            return NameToken(raw)
        return NameToken(self._pseudonym("name", raw))

    def _repeats_a_module(self, raw: str) -> bool:
        # The kernel cuts names at 15 bytes, and python3 runs python3.11: a prefix says no more
        # than the module's own path does.
        return (
            len(raw) > 1
            and _BASENAME.match(raw) is not None
            and any(module.startswith(raw) for module in self._modules)
        )

    def user(self, raw: str) -> UserToken:
        """A user's or group's name."""
        return UserToken(raw if raw == "root" else self._pseudonym("user", raw))

    def host(self, raw: str) -> HostToken:
        """A host's name."""
        return HostToken(raw if raw == "localhost" else self._pseudonym("host", raw))

    # --- the network ----------------------------------------------------------------------------

    def address(self, raw: str, port: Optional[int] = None) -> AddressToken:
        """An IP address: its reach and port stay."""
        try:
            parsed = ipaddress.ip_address(raw)
        except ValueError:
            return self.unix_address(raw)
        mapped = getattr(parsed, "ipv4_mapped", None)
        if mapped is not None:
            parsed = mapped
        token = self._pseudonym(_reach(parsed), str(parsed))
        return AddressToken(token if port is None else f"{token}:{port}")

    def unix_address(self, raw: str) -> AddressToken:
        """A socket in the file system or an abstract one."""
        return AddressToken(self._pseudonym("unix", raw))

    # --- arguments and settings -----------------------------------------------------------------

    def arguments(self, argv: Sequence[str], executable: Optional[str]) -> list[ArgumentToken]:
        """argv[0]'s basename where it names the program, option names, placeholders.

        At most MAX_ARGUMENTS of them.
        """
        if executable is not None:
            self.know_module(executable)
        out: list[ArgumentToken] = []
        for position, raw in enumerate(argv[:MAX_ARGUMENTS]):
            out.append(self._program(raw) if position == 0 else _argument(raw))
        return out

    def _program(self, raw: str) -> ArgumentToken:
        # Programs write their title over argv[0]: "postgres: alice payroll 10.0.0.7(5432) idle".
        first = re.split(r"[\s:]", raw.lstrip("-"), maxsplit=1)[0].rsplit("/", 1)[-1]
        if self._repeats_a_module(first):
            return ArgumentToken(first)
        return ArgumentToken(self._pseudonym("name", raw))

    def option(self, raw: str) -> ArgumentToken:
        """The name of an allow-listed setting or option."""
        return ArgumentToken(raw)

    def setting(self, name: str, raw: str) -> Optional[tuple[EnvironmentToken, Optional[int]]]:
        """The reduced value of an allow-listed setting and its size in bytes, where it is one.

        None for a name that is not on the list.
        """
        reduced = reduce_value(name, raw)
        if reduced is None:
            return None
        text, value_bytes = reduced
        return EnvironmentToken(text), value_bytes

    # --- what is public -------------------------------------------------------------------------

    def version(self, raw: Optional[str]) -> Optional[VersionToken]:
        """A version, or None where it does not look like one."""
        token = VersionToken(raw or "")
        return token if token.is_well_formed() else None

    def package(self, raw: Optional[str]) -> Optional[PackageToken]:
        """A distribution package's name, or None where it does not look like one."""
        token = PackageToken(raw or "")
        return token if token.is_well_formed() else None

    def build_id(self, raw: Optional[str]) -> Optional[BuildId]:
        """An ELF build-id in hexadecimal, or None where it is not."""
        token = BuildId((raw or "").lower())
        return token if token.is_well_formed() else None

    def symbol(self, raw: str) -> Optional[SymbolToken]:
        """A function or type name; None under ``--no-symbols`` or where it is not printable."""
        token = SymbolToken(raw[:512])
        return token if self._keep_symbols and token.is_well_formed() else None

    def label(self, raw: str) -> Optional[LabelToken]:
        """A label typed for the case, or None where it does not obey the grammar."""
        token = LabelToken(raw)
        return token if token.is_well_formed() else None

    # --------------------------------------------------------------------------------------------

    def _pseudonym(self, kind: str, value: str) -> str:
        known = self._pseudonyms.get((kind, value))
        if known is not None:
            return known
        number = self._counts[kind] = self._counts.get(kind, 0) + 1
        made = self._pseudonyms[(kind, value)] = f"<{kind}:{number}>"
        if self._write_map_line is not None:
            line = json.dumps({"pseudonym": made, "value": value})  # ASCII: escapes surrogates
            self._write_map_line(line.encode("ascii") + b"\n")
        return made


def _argument(raw: str) -> ArgumentToken:
    name = raw.split("=", 1)[0]
    if _LONG_OPTION.match(name) or name in _SHORT_WORDS:
        return ArgumentToken(name)
    if raw.startswith("--"):
        return ArgumentToken("<option>" if len(raw) > 2 else "<value>")
    if len(raw) > 1 and raw[0] == "-" and raw[1].isascii() and raw[1].isalpha():
        return ArgumentToken(raw[:2])
    return ArgumentToken("<value>")


def _reach(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if address.is_unspecified:
        return "any"
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast:
        return "multicast"
    return "private" if address.is_private else "public"
