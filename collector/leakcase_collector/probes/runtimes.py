"""Whose malloc the target's calls reach, and which language runtimes it hosts."""

from __future__ import annotations

from leakcase_bundle.records import Allocator, Runtime
from leakcase_collector.errors import NotPermitted, NotSupported
from leakcase_collector.system.allocator import ModuleFacts, allocator_facts, allocators
from leakcase_collector.system.clock import NS_PER_MS
from leakcase_collector.system.elf import ElfFile
from leakcase_collector.system.modules import (
    MappedModule,
    open_program_file,
    program_files,
    program_inode,
)
from leakcase_collector.system.runtime import Runtime as FoundRuntime
from leakcase_collector.system.runtime import java_version, runtime_of

from .base import Cadence, Context, Prediction, Probe
from .modules import MAX_MODULES


class RuntimesProbe(Probe):
    """The allocator and the runtime, which decide how the heap can be read and what is normal."""

    name = "runtime"
    cadence = Cadence.ONCE
    reads = "symbols and constants of the ELF files that the target has mapped"

    def predict(self, context: Context) -> Prediction:
        """0.1 ms a library; a large program's symbol table or constants take the most."""
        return Prediction(cpu_ns=50 * NS_PER_MS)

    def begin(self, context: Context, taken_ns: int) -> None:
        system, pid = context.system, context.pid
        inode = program_inode(system, pid)
        modules = program_files(system, pid)
        if len(modules) > MAX_MODULES:
            context.loss("records", len(modules) - MAX_MODULES)
        facts: list[ModuleFacts] = []
        for module in modules[:MAX_MODULES]:
            is_program = module.inode == inode
            try:
                with open_program_file(system, pid, module, is_program) as file:
                    elf = ElfFile(file)
                    facts.append(allocator_facts(elf, module, is_program))
                    self._write_runtime(context, module, runtime_of(elf, module.path, is_program))
            except (NotSupported, NotPermitted) as error:
                context.gap(error, "elf")
        self._write_allocators(context, facts)

    def _write_runtime(
        self, context: Context, module: MappedModule, found: FoundRuntime | None
    ) -> None:
        if found is None:
            return
        version = found.version
        if found.kind == "jvm" and version is None:
            version = java_version(context.system, context.pid, module.path)
        context.emit(
            Runtime(
                found.kind,
                found.evidence,
                context.redactor.version(version) if version else None,
                context.redactor.path(module.path, is_module=True),
            )
        )

    def _write_allocators(self, context: Context, facts: list[ModuleFacts]) -> None:
        for found in allocators(facts):
            context.emit(
                Allocator(
                    found.kind,
                    found.linkage,
                    found.is_effective,
                    found.evidence,
                    context.redactor.version(found.version) if found.version else None,
                    context.redactor.path(found.path, is_module=True),
                )
            )
