"""Names of functions as their authors wrote them: C++ and Rust, without the arguments.

A stack names a function by its line or offset, so which of several overloads it is need not be
told; and without arguments nothing has to be known of a template's return type. Of the Itanium C++
ABI (5.1.2 to 5.1.8) this reads names; Rust's older symbols are such names with a hash at the end.
"""

from __future__ import annotations

import re

from leakcase_analyzer.demangle import QUALIFIERS, NameReader, NotUnderstood, WrittenType
from leakcase_analyzer.demangle_rust import rust_name

#: What compilers append to the name of a piece or a copy of a function.
_PIECE = re.compile(
    r"(?:\.(?:part|constprop|isra|cold|clone|lto_priv|localalias|llvm|warm|hot)(?:\.\d+)*)+\Z"
)
_VERSION = re.compile(r"@@?[A-Za-z][\w.]*\Z")
#: Itanium C++ ABI, 5.1.3.
_OPERATORS = {
    "nw": " new", "na": " new[]", "dl": " delete", "da": " delete[]", "aw": " co_await",
    "ps": "+", "ng": "-", "ad": "&", "de": "*", "co": "~", "pl": "+", "mi": "-", "ml": "*",
    "dv": "/", "rm": "%", "an": "&", "or": "|", "eo": "^", "aS": "=", "pL": "+=", "mI": "-=",
    "mL": "*=", "dV": "/=", "rM": "%=", "aN": "&=", "oR": "|=", "eO": "^=", "ls": "<<", "rs": ">>",
    "lS": "<<=", "rS": ">>=", "eq": "==", "ne": "!=", "lt": "<", "gt": ">", "le": "<=", "ge": ">=",
    "ss": "<=>", "nt": "!", "aa": "&&", "oo": "||", "pp": "++", "mm": "--", "cm": ",", "pm": "->*",
    "pt": "->", "cl": "()", "ix": "[]", "qu": "?",
}  # fmt: skip


def function_name(symbol: str) -> str:
    """The function, or `symbol` itself (without a compiler's suffix) where it is not understood."""
    plain = _PIECE.sub("", _VERSION.sub("", symbol))
    rust = rust_name(plain)
    if rust is not None:
        return rust
    if not plain.startswith("_Z"):
        return plain
    reader = _FunctionReader(plain, at=2)
    try:
        return reader.encoding()
    except (NotUnderstood, RecursionError):
        return plain


class _FunctionReader(NameReader):
    """Reads the name at the start of an encoding; arguments behind it are passed over."""

    #: A member function may be for lvalues or rvalues only.
    before_nested = (*QUALIFIERS, "R", "O")

    def encoding(self) -> str:
        """The function's name, in full."""
        if self.take("Th") or self.take("Tv"):
            while self.peek() and self.peek() in "n0123456789_":
                self.at += 1
        elif self.peek() in ("T", "G"):
            raise NotUnderstood  # tables and guards, which are no functions
        return self._function_name()

    def _function_name(self) -> str:
        if self.take("N"):
            return self._nested().text
        if self.take("Z"):
            return self._local().text
        if self.peek() == "S" and self.peek(2) != "St":
            named = self._substitution()
        else:
            named = self.remember(WrittenType(self._unscoped()))
        return named.text + (self._template_arguments() if self.peek() == "I" else "")

    def _part_of(self, whole: WrittenType | None) -> str:
        return self._made_or_ended(whole) or self._unqualified()

    def _made_or_ended(self, whole: WrittenType | None) -> str | None:
        """A constructor's or destructor's name, which is its class's."""
        mark = self.peek(2)
        if whole is None or not re.fullmatch("C[1-5]|D[0-5]", mark):
            return None
        self.at += 2
        text = whole.text
        if text.endswith(">"):
            depth = 0
            for place in range(len(text) - 1, -1, -1):
                depth += (text[place] == ">") - (text[place] == "<")
                if not depth:
                    text = text[:place]
                    break
        return ("~" if mark[0] == "D" else "") + text.rpartition("::")[2]

    def _local(self) -> WrittenType:
        function = self._function_name()
        self.until("E", self.type_text)
        if self.take("s"):
            return WrittenType(function)
        inner = self._nested().text if self.take("N") else self._unqualified()
        if self.take("_"):
            self.take("_")
            self.number()
        return self.remember(WrittenType(f"{function}()::{inner}"))

    def _unqualified(self) -> str:
        two = self.peek(2)
        if two in _OPERATORS:
            self.at += 2
            return "operator" + _OPERATORS[two]
        if self.take("cv"):
            return "operator " + self.type_text()
        if self.take("li"):
            return 'operator"" ' + self._source_name()
        return super()._unqualified()

    def _type(self) -> WrittenType:
        if self.take("T"):  # of a generic lambda's argument
            if self.peek() != "_":
                self.number("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
            self.expect("_")
            return self.remember(WrittenType("auto"))
        if self.take("M"):
            scope = self.type_text()
            return self.remember(self.type().followed_by(f" {scope}::*"))
        if self.take("Dp") or self.take("Do"):
            return self.type()
        return super()._type()
