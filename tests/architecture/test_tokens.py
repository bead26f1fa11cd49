"""A host's string becomes a token in one place, so that redaction cannot be forgotten."""

from __future__ import annotations

import ast

from leakcase_bundle.strings import TOKEN_CLASSES
from tests.architecture.sources import Source, sources

TOKEN_NAMES = {cls.__name__ for cls in TOKEN_CLASSES} | {"Token"}
#: The redactor; and `mark`, whose label is typed for the case and checked where it comes in.
MAKERS = {"leakcase_collector.redact", "leakcase_collector.marks"}


def _constructions(source: Source) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and _called(node) in TOKEN_NAMES
    ]


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func).rsplit(".", 1)[-1]


def _is_our_own_word(argument: ast.expr) -> bool:
    """A literal, or our version: not a string of the host's."""
    if isinstance(argument, ast.Name):
        return argument.id == "__version__"
    return isinstance(argument, ast.Constant)


def test_in_the_collector_only_the_redactor_makes_tokens() -> None:
    wrong = [
        f"{source.path}:{call.lineno} makes a {_called(call)}"
        for source in sources("leakcase_collector")
        if source.module not in MAKERS
        for call in _constructions(source)
        if not all(map(_is_our_own_word, call.args))
    ]
    assert wrong == []


def test_in_the_format_only_reading_makes_tokens() -> None:
    makers = {s.module for s in sources("leakcase_bundle") if _constructions(s)}
    assert makers <= {"leakcase_bundle.schema", "leakcase_bundle.strings"}


def test_this_test_sees_a_token_that_is_made() -> None:
    assert all(_constructions(s) for s in sources("leakcase_collector") if s.module in MAKERS)
