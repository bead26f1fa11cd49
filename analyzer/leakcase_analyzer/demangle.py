"""Names of C++ classes as their authors wrote them, from the names that type information bears.

Type information bears no mangled symbol but the mangled name of a type: so this reads the part of
the Itanium C++ ABI's grammar (5.1, "External Names") that classes need: nested and local names,
anonymous namespaces, templates with types and literals, substitutions. All else stays mangled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

#: A name that is longer when written out says nothing, and a hostile one doubles at every letter.
MOST_CHARACTERS = 2000
MOST_DEPTH = 64
MOST_DIGITS = 20
BUILTINS = {
    "v": "void", "w": "wchar_t", "b": "bool", "c": "char", "a": "signed char",
    "h": "unsigned char", "s": "short", "t": "unsigned short", "i": "int", "j": "unsigned int",
    "l": "long", "m": "unsigned long", "x": "long long", "y": "unsigned long long",
    "n": "__int128", "o": "unsigned __int128", "f": "float", "d": "double", "e": "long double",
    "g": "__float128", "z": "...", "Dn": "decltype(nullptr)", "Di": "char32_t", "Ds": "char16_t",
    "Du": "char8_t",
}  # fmt: skip
ABBREVIATIONS = {
    "Sa": "std::allocator", "Sb": "std::basic_string", "Ss": "std::string",
    "Si": "std::istream", "So": "std::ostream", "Sd": "std::iostream",
}  # fmt: skip
SUFFIXES = {"i": "", "j": "u", "l": "l", "m": "ul", "x": "ll", "y": "ull"}
POINTERS = {"P": "*", "R": "&", "O": "&&"}
QUALIFIERS = {"r": " __restrict", "V": " volatile", "K": " const"}
STRING = "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char>>"


class NotUnderstood(Exception):
    """Not of the part of the grammar that is known."""


def class_name(mangled: str) -> str:
    """The class, or `mangled` itself where it is not understood."""
    reader = NameReader(mangled)
    try:
        written = reader.type().text
    except NotUnderstood:
        return mangled
    return written.replace(STRING, "std::string") if reader.is_at_end else mangled


@dataclass(frozen=True)
class WrittenType:
    """What stands before a declared name, and what stands behind it."""

    left: str
    right: str = ""

    @property
    def text(self) -> str:
        return self.left + self.right

    def followed_by(self, mark: str) -> WrittenType:
        """A pointer, reference or qualified form of it; functions and arrays need parentheses."""
        if self.right and not self.left.endswith(("*", "&", "const", "volatile")):
            return WrittenType(f"{self.left}({mark.strip()}", ")" + self.right)
        return WrittenType(self.left + mark, self.right)


@dataclass
class NameReader:
    """Reads a mangled name once, from left to right."""

    text: str
    at: int = 0
    depth: int = 0
    known: list[WrittenType] = field(default_factory=list)
    #: What may stand before the parts of a nested name and is passed over.
    before_nested: ClassVar[tuple[str, ...]] = tuple(QUALIFIERS)

    @property
    def is_at_end(self) -> bool:
        return self.at == len(self.text)

    def peek(self, count: int = 1) -> str:
        return self.text[self.at : self.at + count]

    def take(self, wanted: str) -> bool:
        """Go on behind `wanted` if it is next."""
        if not self.text.startswith(wanted, self.at):
            return False
        self.at += len(wanted)
        return True

    def expect(self, wanted: str) -> None:
        if not self.take(wanted):
            raise NotUnderstood

    def until(self, end: str, read: Callable[[], str]) -> list[str]:
        """What `read` reads, up to `end`."""
        found = []
        while not self.take(end):
            found.append(read())
        return found

    def remember(self, one: WrittenType) -> WrittenType:
        """A component that S<number>_ may stand for later."""
        if len(one.text) > MOST_CHARACTERS:
            raise NotUnderstood
        self.known.append(one)
        return one

    def number(self, digits: str = "0123456789") -> int:
        """Decimal, or of base 36 in substitutions."""
        start = self.at
        while self.peek() and self.peek() in digits:
            self.at += 1
        if start == self.at or self.at - start > MOST_DIGITS:
            raise NotUnderstood
        return int(self.text[start : self.at], len(digits))

    # --- types ------------------------------------------------------------------------------------

    def type(self) -> WrittenType:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise NotUnderstood
        found = self._type()
        self.depth -= 1
        return found

    def type_text(self) -> str:
        return self.type().text

    def _type(self) -> WrittenType:
        two = self.peek(2)
        if two in ("Dn", "Di", "Ds", "Du"):
            self.at += 2
            return WrittenType(BUILTINS[two])
        one = self.peek()
        if one in BUILTINS:
            self.at += 1
            return WrittenType(BUILTINS[one])
        if one in POINTERS and self.take(one):
            return self.remember(self.type().followed_by(POINTERS[one]))
        if one in QUALIFIERS:
            return self._qualified()
        if one == "F":
            return self._function()
        if one == "A":
            return self._array()
        return self._class()

    def _qualified(self) -> WrittenType:
        marks = "".join(QUALIFIERS[mark] for mark in "rVK" if self.take(mark))
        return self.remember(self.type().followed_by(marks))

    def _function(self) -> WrittenType:
        self.expect("F")
        self.take("Y")
        returned = self.type()
        if returned.right:
            raise NotUnderstood
        arguments = self._arguments(self.until("E", self.type_text))
        return self.remember(WrittenType(returned.left + " ", arguments))

    @staticmethod
    def _arguments(types: list[str]) -> str:
        return "()" if types == ["void"] else f"({', '.join(types)})"

    def _array(self) -> WrittenType:
        self.expect("A")
        count = "" if self.peek() == "_" else str(self.number())
        self.expect("_")
        of = self.type()
        return self.remember(WrittenType(of.left + " ", f"[{count}]{of.right}"))

    # --- names ------------------------------------------------------------------------------------

    def _class(self) -> WrittenType:
        """A class or enumeration, with all that is remembered of it."""
        if self.take("N"):
            return self._nested()
        if self.take("Z"):
            return self._local()
        if self.peek() == "S" and self.peek(2) != "St":
            named, is_known = self._substitution(), True
        else:
            named = self.remember(WrittenType(self._unscoped()))
            is_known = False
        if self.peek() == "I":
            return self.remember(WrittenType(named.text + self._template_arguments()))
        if not is_known or named.text not in ("std::allocator", "std::basic_string"):
            return named
        raise NotUnderstood  # a template alone is no type

    def _unscoped(self) -> str:
        return ("std::" if self.take("St") else "") + self._unqualified()

    def _nested(self) -> WrittenType:
        while self.peek() in self.before_nested:
            self.at += 1
        whole: WrittenType | None = None
        while not self.take("E"):
            if whole is None and self.peek() == "S":
                whole = WrittenType("std") if self.take("St") else self._substitution()
            elif self.peek() == "I" and whole is not None:
                whole = self.remember(WrittenType(whole.text + self._template_arguments()))
            else:
                scope = "" if whole is None else whole.text + "::"
                whole = self.remember(WrittenType(scope + self._part_of(whole)))
        if whole is None:
            raise NotUnderstood
        return whole

    def _part_of(self, _whole: WrittenType | None) -> str:
        """The next part of a nested name, behind what was read of it."""
        return self._unqualified()

    def _local(self) -> WrittenType:
        """A class within a function, which is written with the types of its arguments."""
        function = self._function_name()
        return self.remember(WrittenType(f"{function}::{self._unqualified()}"))

    def _function_name(self) -> str:
        before = len(self.known)
        marks = " const" if self.peek(2) == "NK" else ""
        named = self._class() if self.peek() in ("N", "S") else WrittenType(self._unscoped())
        if len(self.known) > before and self.peek() != "I" and not named.text.endswith(">"):
            self.known.pop()  # the function itself is no type, and no prefix of one
        if named.text.endswith(">") or self.peek() == "I":
            raise NotUnderstood  # whose arguments may be those of the template
        types = self.until("E", self.type_text)
        # `main` is mangled without its arguments.
        return named.text + (self._arguments(types) + marks if types else "")

    def _unqualified(self) -> str:
        self.take("L")
        if self.take("Ul"):
            arguments = self._arguments(self.until("E", self.type_text))
            return f"{{lambda{arguments}#{self._discriminator()}}}"
        if self.take("Ut"):
            return f"{{unnamed type#{self._discriminator()}}}"
        named = self._source_name()
        while self.take("B"):
            named += f"[abi:{self._source_name()}]"
        return named

    def _discriminator(self) -> int:
        number = 1 if self.peek() == "_" else self.number() + 2
        self.expect("_")
        return number

    def _source_name(self) -> str:
        length = self.number()
        name = self.peek(length)
        self.at += length
        if not length or len(name) < length:
            raise NotUnderstood
        return "(anonymous namespace)" if name.startswith("_GLOBAL__N_") else name

    def _substitution(self) -> WrittenType:
        two = self.peek(2)
        if two in ABBREVIATIONS:
            self.at += 2
            return WrittenType(ABBREVIATIONS[two])
        self.expect("S")
        index = 0
        if self.peek() != "_":
            index = self.number("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") + 1
        self.expect("_")
        if index >= len(self.known):
            raise NotUnderstood
        return self.known[index]

    # --- templates --------------------------------------------------------------------------------

    def _template_arguments(self) -> str:
        self.expect("I")
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise NotUnderstood
        arguments = self.until("E", self._template_argument)
        self.depth -= 1
        return f"<{', '.join(one for one in arguments if one)}>"

    def _template_argument(self) -> str:
        if self.take("J"):
            return ", ".join(self.until("E", self._template_argument))
        return self._literal() if self.take("L") else self.type_text()

    def _literal(self) -> str:
        kind = self.peek()
        of = self.type_text()
        sign = "-" if self.take("n") else ""
        value = sign + str(self.number())
        self.expect("E")
        if kind == "b" and value in ("0", "1"):
            return "true" if value == "1" else "false"
        if kind in SUFFIXES:
            return value + SUFFIXES[kind]
        return f"({of}){value}"
