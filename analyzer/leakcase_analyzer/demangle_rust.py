"""Names of Rust's functions: older symbols (C++ names with a hash at the end) and v0 (RFC 2603)."""

from __future__ import annotations

import re
from collections.abc import Callable

from leakcase_analyzer.demangle import MOST_CHARACTERS, MOST_DEPTH

_HASH = re.compile(r"17h[0-9a-f]{16}E\Z")
_ESCAPES = {
    "SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ",",
}  # fmt: skip
_BASIC = {
    "a": "i8", "b": "bool", "c": "char", "d": "f64", "e": "str", "f": "f32", "h": "u8",
    "i": "isize", "j": "usize", "l": "i32", "m": "u32", "n": "i128", "o": "u128", "s": "i16",
    "t": "u16", "u": "()", "v": "...", "x": "i64", "y": "u64", "z": "!", "p": "_",
}  # fmt: skip


def rust_name(symbol: str) -> str | None:
    """The function; None where the symbol is not one of Rust's, or is not understood."""
    try:
        if symbol.startswith("_ZN") and _HASH.search(symbol):
            return _older(symbol[3 : _HASH.search(symbol).start()])  # type: ignore[union-attr]
        if symbol.startswith("_R"):
            return _Path(symbol[2:]).path()
    except (ValueError, IndexError, RecursionError):
        pass
    return None


def _older(text: str) -> str:
    parts = []
    at = 0
    while at < len(text):
        found = re.compile(r"\d{1,4}").match(text, at)
        if found is None:
            raise ValueError
        at = found.end() + int(found[0])
        parts.append(_unescaped(text[found.end() : at]))
    return "::".join(parts)


def _unescaped(part: str) -> str:
    part = part.removeprefix("_") if part.startswith("_$") else part
    part = re.sub(
        r"\$(?:u([0-9a-f]{1,6})|([A-Z]{1,2}))\$",
        lambda found: chr(int(found[1], 16)) if found[1] else _ESCAPES.get(found[2], found[0]),
        part,
    )
    return part.replace("..", "::")


class _Path:
    """Reads a v0 symbol once, from left to right; a reference goes back in it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._written = 0

    def _take(self) -> str:
        self._at += 1
        return self._text[self._at - 1]

    def _is_next(self, wanted: str) -> bool:
        if not self._text.startswith(wanted, self._at):
            return False
        self._at += len(wanted)
        return True

    def _deeper(self, read: Callable[[], str]) -> str:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise ValueError
        found = read()
        self._depth -= 1
        # References may double what was written at each step.
        self._written += len(found)
        if self._written > 64 * MOST_CHARACTERS or len(found) > MOST_CHARACTERS:
            raise ValueError
        return found

    def path(self) -> str:
        """A path, without what tells crates of one name apart."""
        return self._deeper(self._path)

    def _path(self) -> str:
        kind = self._take()
        if kind == "C":
            return self._identifier()
        if kind == "N":
            space = self._take()
            inside, name, named = self.path(), self._identifier(), space.islower()
            if named:
                return f"{inside}::{name}" if name else inside
            word = {"C": "closure", "S": "shim"}.get(space, space)
            return f"{inside}::{{{word}}}"
        if kind == "M":
            self._impl()
            return f"<{self.type()}>"
        if kind in "XY":
            if kind == "X":
                self._impl()
            return f"<{self.type()} as {self.path()}>"
        if kind == "I":
            return f"{self.path()}<{', '.join(self._until_end(self._argument))}>"
        if kind == "B":
            return self._back(self.path)
        raise ValueError

    def _impl(self) -> None:
        self._disambiguator()
        self.path()

    def _until_end(self, read: Callable[[], str]) -> list[str]:
        found = []
        while not self._is_next("E"):
            one = read()
            if one:
                found.append(one)
        return found

    def _argument(self) -> str:
        if self._is_next("L"):
            self._base62()
            return ""
        return self._constant() if self._is_next("K") else self.type()

    def _constant(self) -> str:
        if self._is_next("B"):
            return self._back(self._constant)
        self._take()
        end = self._text.index("_", self._at)
        digits, self._at = self._text[self._at : end], end + 1
        sign = "-" if digits.startswith("n") else ""
        return sign + str(int(digits.removeprefix("n") or "0", 16))

    def type(self) -> str:
        """A type."""
        return self._deeper(self._type)

    def _type(self) -> str:
        kind = self._take()
        if kind in _BASIC:
            return _BASIC[kind]
        if kind in "RQ":
            if self._is_next("L"):
                self._base62()
            return ("&" if kind == "R" else "&mut ") + self.type()
        if kind in "PO":
            return ("*const " if kind == "P" else "*mut ") + self.type()
        if kind == "S":
            return f"[{self.type()}]"
        if kind == "A":
            return f"[{self.type()}; {self._constant()}]"
        if kind == "T":
            return f"({', '.join(self._until_end(self.type))})"
        if kind == "B":
            return self._back(self.type)
        if kind == "F":
            return self._function()
        if kind == "D":
            return self._trait_object()
        self._at -= 1
        return self.path()

    def _function(self) -> str:
        self._binder()
        unsafe = "unsafe " if self._is_next("U") else ""
        abi = ""
        if self._is_next("K"):
            name = "C" if self._is_next("C") else self._identifier()
            abi = f'extern "{name}" '
        arguments = ", ".join(self._until_end(self.type))
        result = self.type()
        return f"{unsafe}{abi}fn({arguments})" + ("" if result == "()" else f" -> {result}")

    def _trait_object(self) -> str:
        self._binder()
        bounds = self._until_end(self._bound)
        if not self._is_next("L"):
            raise ValueError
        self._base62()
        return "dyn " + " + ".join(bounds)

    def _bound(self) -> str:
        """A trait, with what is said of the types that belong to it."""
        trait, types = self.path(), []
        while self._is_next("p"):
            types.append(f"{self._identifier()} = {self.type()}")
        if not types:
            return trait
        more = ", ".join(types)
        return f"{trait[:-1]}, {more}>" if trait.endswith(">") else f"{trait}<{more}>"

    def _binder(self) -> None:
        if self._is_next("G"):
            self._base62()

    def _back(self, read: Callable[[], str]) -> str:
        mark = self._at - 1
        place = self._base62()
        if place >= mark:
            raise ValueError
        here, self._at = self._at, place
        found = self._deeper(read)
        self._at = here
        return found

    def _base62(self) -> int:
        end = self._text.index("_", self._at)
        digits, self._at = self._text[self._at : end], end + 1
        if not digits:
            return 0
        value = 0
        for digit in digits[:12]:
            if not digit.isalnum() or not digit.isascii():
                raise ValueError
            low, high = ord("a") - 10, ord("A") - 36
            value = value * 62 + (
                int(digit) if digit.isdigit() else ord(digit) - (low if digit.islower() else high)
            )
        return value + 1

    def _disambiguator(self) -> int:
        return self._base62() + 1 if self._is_next("s") else 0

    def _identifier(self) -> str:
        self._disambiguator()
        is_punycode = self._is_next("u")
        found = re.compile(r"\d{1,4}").match(self._text, self._at)
        if found is None:
            raise ValueError
        length = 0 if found[0].startswith("0") else int(found[0])
        self._at = found.end() if length else self._at + 1
        self._is_next("_")
        name = self._text[self._at : self._at + length]
        self._at += length
        if len(name) < length:
            raise ValueError
        return name.replace("_", "-") + " (punycode)" if is_punycode else name
