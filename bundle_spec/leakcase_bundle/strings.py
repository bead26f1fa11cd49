"""Field classes: the only ways in which a string may enter a case.

A `Token` is a string that redaction has passed. Its type says by which rule, and the writer
refuses anything else (`leakcase_bundle.schema`), so a raw string from the target cannot reach a
case by accident: mypy refuses the program, the writer the value. Tokens are made in two places
only, the collector's ``redact`` and the reader; an architecture test keeps it so.

Each class also has a grammar (SPEC.md, "Strings") that is checked when a record is written: a
second wall behind the redactor.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from re import Pattern
from typing import ClassVar

MAX_TOKEN_LENGTH = 512

#: Path components that say nothing about the owner. A component stays only while all before it
#: stayed and none of them is `_OWNED`, so ``/home/usr/lib`` becomes ``/home/<dir:1>/<dir:2>``.
SYSTEM_COMPONENTS: frozenset[str] = frozenset(
    """
    bin boot dev etc home lib lib32 lib64 libx32 media mnt opt proc root run sbin snap srv sys tmp
    usr var games include libexec local share src shm hugepages pts dri nvidiactl nvidia-uvm
    nvidia-modeset kfd log cache spool empty lock mail udev
    aarch64-linux-gnu arm-linux-gnueabihf i386-linux-gnu powerpc64le-linux-gnu riscv64-linux-gnu
    s390x-linux-gnu x86_64-linux-gnu glibc-hwcaps x86-64-v2 x86-64-v3 x86-64-v4 gconv locale
    python3 dist-packages site-packages lib-dynload nodejs node_modules jvm server jli perl perl5
    ruby php postgresql nginx modules redis erlang dotnet go ossl-modules engines-3 security
    zoneinfo fonts mime ca-certificates ssl systemd system user
    init.scope system.slice user.slice machine.slice kubepods kubepods.slice burstable besteffort
    guaranteed docker lxc containerd crio podman libpod_parent
    """.split()
)

#: Numbered or versioned components of the same kind: python3.11, 15; user-1000 is not one of them.
_SYSTEM_PATTERN = re.compile(
    r"(?:python[23]?\.[0-9]{1,2}|ruby[0-9]?\.?[0-9]{0,2}|perl-?[0-9]\.[0-9]{1,2}"
    r"|[0-9]{1,2}(?:\.[0-9]{1,2}){0,2}|nvidia[0-9]{1,2}|card[0-9]{1,2}|renderD[0-9]{1,3}"
    r"|(?:java|openjdk)-[0-9]{1,2}(?:-openjdk(?:-(?:amd64|arm64))?)?)\Z"
)
_PSEUDONYM = r"<(?:dir|file|name|user|host|value|option|peer|anon|unix):[0-9]{1,9}>"
_BASENAME = r"[A-Za-z0-9_.+@~%,:=-]{1,128}"
_KERNEL_MAPPING = r"\[(?:heap|stack|vdso|vvar|vvar_vclock|vsyscall|uprobes|sigpage|vectors)\]"
#: Single-dash words that are options of well-known runtimes; of all others only the first letter
#: is sure to be a name (``-psecret``).
SHORT_OPTION_WORDS: frozenset[str] = frozenset(
    "-jar -cp -classpath -server -client -version -daemon -foreground".split()
)
_OPTION = re.compile(
    rf"(?:--[A-Za-z][A-Za-z0-9_-]{{0,37}}|-[A-Za-z]|{'|'.join(sorted(SHORT_OPTION_WORDS))}"
    rf"|<value>|<option>|{_PSEUDONYM})\Z"
)


#: Below these everything is the owner's, whatever it is called: a user may be named "server".
_OWNED = frozenset("home root srv media mnt opt tmp shm".split())


def public_components(components: Sequence[str]) -> int:
    """How many leading components of a path are words of the system rather than of the owner."""
    for position, component in enumerate(components):
        if component not in SYSTEM_COMPONENTS and not _SYSTEM_PATTERN.match(component):
            return position
        if component in _OWNED:
            return position + 1
    return len(components)


class Token(str):
    """A redacted string. Subclasses name the rule that passed it."""

    field_class: ClassVar[str] = ""
    grammar: ClassVar[Pattern[str]]
    meaning: ClassVar[str] = ""

    def is_well_formed(self) -> bool:
        """Whether the token obeys its class's grammar; the writer refuses one that does not."""
        return len(self) <= MAX_TOKEN_LENGTH and self.grammar.match(self) is not None

    @classmethod
    def may_stand_together(cls, tokens: Sequence[str]) -> bool:
        """Whether well-formed tokens may stand in one list in this order."""
        return True


class PathToken(Token):
    """A path whose private components are pseudonyms, or a bare module basename."""

    field_class = "path"
    meaning = (
        "System prefixes and the basenames of modules stay; other components are pseudonyms "
        "(`/home/<dir:1>/<file:2>`). The kernel's own names of mappings (`[heap]`) stay."
    )
    grammar = re.compile(
        rf"(?:{_KERNEL_MAPPING}|(?:/(?:{_PSEUDONYM}|{_BASENAME}))+|/|{_BASENAME}|{_PSEUDONYM})\Z"
    )

    def is_well_formed(self) -> bool:
        if not super().is_well_formed():
            return False
        if not self.startswith("/"):
            return True
        directories = self.split("/")[1:-1]
        public = public_components(directories)
        # Behind the public prefix only pseudonyms may stand, and nothing public after one.
        return all(component.startswith("<") for component in directories[public:])


class NameToken(Token):
    """A thread's, process's, mapping's or label's name: a pseudonym."""

    field_class = "name"
    meaning = (
        "A pseudonym (`<name:4>`), unless the name is (the start of) the basename of a module "
        "of the same process, which a path would show anyway."
    )
    grammar = re.compile(rf"(?:{_PSEUDONYM}|{_BASENAME})\Z")


class UserToken(Token):
    """A user's or group's name: a pseudonym; `root` stays."""

    field_class = "user"
    meaning = "A pseudonym (`<user:1>`); `root` stays."
    grammar = re.compile(r"(?:<user:[0-9]{1,9}>|root)\Z")


class HostToken(Token):
    """A host's name: a pseudonym; `localhost` stays."""

    field_class = "host"
    meaning = "A pseudonym (`<host:1>`); `localhost` stays."
    grammar = re.compile(r"(?:<host:[0-9]{1,9}>|localhost)\Z")


class AddressToken(Token):
    """A network address: a pseudonym that keeps its reach and its port."""

    field_class = "address"
    meaning = (
        "A pseudonym that keeps loopback, private, link-local, public or unspecified, and the "
        "port: `<private:2>:5432`; sockets in the file system and abstract ones: `<unix:1>`."
    )
    grammar = re.compile(
        r"(?:<(?:loopback|private|link-local|public|any|multicast):[0-9]{1,9}>(?::[0-9]{1,5})?"
        r"|<unix:[0-9]{1,9}>)\Z"
    )


class ArgumentToken(Token):
    """One argument: argv[0]'s basename, an option's or setting's name, or a placeholder.

    Only the first of a list may be a bare word: anywhere else it would be an option's value.
    """

    field_class = "arguments"
    meaning = (
        "argv[0]'s basename where it names the program, option names (`--port`), and `<value>` "
        "for everything else. Alone: the name of an allow-listed setting."
    )
    grammar = re.compile(rf"(?:<value>|<option>|{_PSEUDONYM}|{_BASENAME})\Z")

    @classmethod
    def may_stand_together(cls, tokens: Sequence[str]) -> bool:
        return all(_OPTION.match(token) for token in tokens[1:])


class EnvironmentToken(Token):
    """The value of an allow-listed setting: numbers, sizes and known words."""

    field_class = "environment"
    meaning = (
        "The value of an allow-listed allocator or runtime setting, reduced to numbers, sizes, "
        "booleans and known words; anything else in it is `<value>`."
    )
    grammar = re.compile(r"(?:[A-Za-z0-9_.:,=+;%-]|<value>){0,256}\Z")


class SymbolToken(Token):
    """A function, class or type name of a program."""

    field_class = "symbol"
    meaning = "Kept as it is; `--no-symbols` drops it."
    grammar = re.compile(r"[\x20-\x7e]{1,512}\Z")


class PackageToken(Token):
    """The name of a distribution package, as a public archive lists it."""

    field_class = "package"
    meaning = "Kept: the name of the Debian, RPM or Alpine package that owns a module."
    grammar = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._:-]{0,127}\Z")


class VersionToken(Token):
    """A version number, a kernel release, a distribution's id."""

    field_class = "version"
    meaning = "Kept: a version of a package, library, runtime, kernel or distribution."
    grammar = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~^_-]{0,79}\Z")


class BuildId(Token):
    """An ELF build-id in lower-case hexadecimal."""

    field_class = "build_id"
    meaning = "Kept: an ELF build-id, lower-case hexadecimal."
    grammar = re.compile(r"(?:[0-9a-f]{2}){1,32}\Z")


class LabelToken(Token):
    """A label that the person who captures typed for the case."""

    field_class = "label"
    meaning = "Kept: typed by the person who captures, for this case (`leakcase-collect mark`)."
    grammar = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")


TOKEN_CLASSES: tuple[type[Token], ...] = (
    PathToken,
    NameToken,
    UserToken,
    HostToken,
    AddressToken,
    ArgumentToken,
    EnvironmentToken,
    SymbolToken,
    PackageToken,
    VersionToken,
    BuildId,
    LabelToken,
)
TOKENS_BY_FIELD_CLASS: dict[str, type[Token]] = {c.field_class: c for c in TOKEN_CLASSES}
