"""The program and its libraries: what their files say, and which packages they came from."""

from __future__ import annotations

from typing import Any, Callable, Optional

from leakcase_bundle.records import Module
from leakcase_bundle.vocabulary import is_word
from leakcase_collector.errors import CollectorError, NotPermitted, NotSupported, TargetGone
from leakcase_collector.system.clock import NS_PER_MS, monotonic_ns
from leakcase_collector.system.elf import ElfFile
from leakcase_collector.system.elf_language import language_hints
from leakcase_collector.system.modules import (
    MappedModule,
    open_program_file,
    program_files,
    program_inode,
)
from leakcase_collector.system.package_owner import PackageOwner
from leakcase_collector.system.packages import Packages

from .base import Cadence, Context, Prediction, Probe

#: A Python service has some 60, a browser 200.
MAX_MODULES = 512
#: The language of a stripped file shows by a search through its constants: a time for all of them.
LANGUAGES_TIME_NS = 300 * NS_PER_MS


def elf_facts(elf: ElfFile) -> dict[str, Any]:
    """The fields of a Module record that need no redaction; what is damaged is left out."""
    facts: dict[str, Callable[[], Any]] = {
        "elf_type": lambda: elf.kind if is_word("elf_type", elf.kind) else "other",
        "machine": lambda: elf.machine,
        "bits": lambda: elf.bits,
        "position_independent": lambda: elf.kind == "shared-object",
        "stripped": lambda: elf.is_stripped,
        "has_debug_info": lambda: elf.has_debug_info,
        "is_static": lambda: elf.is_static,
    }
    return {name: value for name, fact in facts.items() if (value := _told(fact)) is not None}


def _told(fact: Callable[[], Any]) -> Any:
    try:
        return fact()
    except NotSupported:  # ElfError
        return None


class ModulesProbe(Probe):
    """What is loaded: build-ids, stripped or not, languages, libraries, packages."""

    name = "modules"
    cadence = Cadence.ONCE
    reads = "the ELF files that the target has mapped, and the package database of its root"

    def __init__(self) -> None:
        self._packages: Optional[Packages] = None
        self._written: set[tuple[int, str]] = set()
        self._program: Optional[int] = None
        self._index = 0

    def predict(self, context: Context) -> Prediction:
        """Some 0.4 ms a module, and reading the package database."""
        return Prediction(cpu_ns=100 * NS_PER_MS)

    def begin(self, context: Context, taken_ns: int) -> None:
        """Also called after an exec: the new program's modules follow with numbers of their own."""
        self._written.clear()
        self._write_new(context)

    def finish(self, context: Context, taken_ns: int) -> None:
        """What was loaded during the capture."""
        self._write_new(context)

    def _write_new(self, context: Context) -> None:
        system, pid = context.system, context.pid
        self._program = program_inode(system, pid)
        new = [
            module
            for module in program_files(system, pid)
            if (module.inode, module.path) not in self._written
        ]
        room = MAX_MODULES - len(self._written)
        if len(new) > room:
            context.loss("records", len(new) - room)
        new = new[:room]
        owners = self._owners(context, [module.path for module in new])
        deadline_ns = monotonic_ns() + LANGUAGES_TIME_NS
        for module in new:
            context.redactor.know_module(module.path)
            self._write(context, module, owners.get(module.path), deadline_ns)

    def _owners(self, context: Context, paths: list[str]) -> dict[str, Optional[PackageOwner]]:
        if not paths:
            return {}
        if self._packages is None:
            self._packages = Packages(context.system)
        try:
            return self._packages.owners(context.pid, paths)
        except TargetGone:
            raise
        except CollectorError as error:
            context.gap(error, "package-database")
            return {}

    def _write(
        self,
        context: Context,
        module: MappedModule,
        owner: Optional[PackageOwner],
        deadline_ns: int,
    ) -> None:
        redactor = context.redactor
        is_program = module.inode == self._program
        facts: dict[str, Any] = {}
        try:
            with open_program_file(context.system, context.pid, module, is_program) as file:
                facts["size_bytes"] = file.size_bytes
                elf = ElfFile(file)
                facts.update(elf_facts(elf))
                facts["build_id"] = redactor.build_id(_told(lambda: elf.build_id) or "")
                needed = _told(lambda: elf.needed)
                if needed is not None:
                    facts["needed"] = [redactor.path(name, is_module=True) for name in needed]
                link = _told(lambda: elf.debuglink)
                if link is not None:
                    facts["debuglink"] = redactor.path(link[0], is_module=True)
                if is_program or monotonic_ns() < deadline_ns:
                    facts["language"] = _told(lambda: _language(elf))
        except (NotSupported, NotPermitted) as error:
            context.gap(error, "elf")
        if owner is not None:
            facts["package"] = redactor.package(owner.name)
            facts["package_system"] = owner.system
            # Deleted or replaced: the database speaks of the file that has the name now.
            if owner.version is not None and not module.is_deleted:
                facts["package_version"] = redactor.version(owner.version)
        path = redactor.path(module.path, is_module=True)
        context.emit(Module(self._index, path, is_program, module.is_deleted, **facts))
        self._written.add((module.inode, module.path))
        self._index += 1


def _language(elf: ElfFile) -> str:
    language = language_hints(elf)[0].language
    return language if is_word("language", language) else "other"
