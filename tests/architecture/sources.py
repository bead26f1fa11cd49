"""The project's own source files and what each of them imports, read without running them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "leakcase_bundle": ROOT / "bundle_spec" / "leakcase_bundle",
    "leakcase_collector": ROOT / "collector" / "leakcase_collector",
    "leakcase_analyzer": ROOT / "analyzer" / "leakcase_analyzer",
}


@dataclass(frozen=True)
class Import:
    """One import: the module's full name, where it stands, and whether only type checkers see it.

    `from a.b import c` counts as `a.b.c`, so that a module imported from its package is seen too.
    """

    module: str
    line: int
    for_types_only: bool


@dataclass(frozen=True)
class Source:
    """One module of ours."""

    module: str
    path: Path

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"))

    def imports(self) -> Iterator[Import]:
        """Every import, those within functions too; relative ones resolved."""
        tree = self.tree
        typing_only = {id(node) for block in _type_checking(tree) for node in ast.walk(block)}
        for node in ast.walk(tree):
            for name in self._names(node):
                yield Import(name, node.lineno, id(node) in typing_only)  # type: ignore[attr-defined]

    def _names(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = self._absolute(node)
            yield from (f"{base}.{alias.name}" for alias in node.names)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.module.split(".")
        package = parts if self.path.name == "__init__.py" else parts[:-1]
        kept = package[: len(package) - node.level + 1]
        return ".".join([*kept, *filter(None, [node.module])])


def _type_checking(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from node.body


def sources(package: str) -> list[Source]:
    """All modules of one of our packages."""
    folder = PACKAGES[package]
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Source(module, path))
    assert found, folder
    return found


def inside(module: str, room: str) -> bool:
    """Whether `module` is `room` or lies below it."""
    return module == room or module.startswith(room + ".")
