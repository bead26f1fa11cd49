"""Where in a running process the calls of its allocator are watched.

The functions are those that the process's own calls reach: of the first module in the loader's
order that defines each, in the file that is really mapped. Each gets the cheapest place within
its first instructions (see `probe_site`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from leakcase_collector.errors import CollectorError, NotSupported
from leakcase_collector.system.door import System
from leakcase_collector.system.elf import PT_LOAD, ElfError, ElfFile
from leakcase_collector.system.elf_symbols import Symbol
from leakcase_collector.system.entry_point import EntryPoint
from leakcase_collector.system.files import TargetFile
from leakcase_collector.system.identity import ProcessIdentity
from leakcase_collector.system.modules import open_program_file, program_files, program_inode
from leakcase_collector.trace.allocator_functions import (
    ALWAYS,
    ARGUMENTS,
    NULL_IS_NOTHING,
    WITHOUT_RETURN,
    AllocatorFunction,
    mapping_functions,
    own_functions,
    standard_functions,
)
from leakcase_collector.trace.hazards import kernel_release, new_may_fail, return_hazard, translator
from leakcase_collector.trace.linkage_table import tail_jump
from leakcase_collector.trace.loaded_code import (
    LoadedCode,
    OpenModule,
    code_of,
    functions_named,
)
from leakcase_collector.trace.mapped_code import MappedCode
from leakcase_collector.trace.probe_site import BODY_BYTES, choose_site, machine_of

#: What a hit costs where the kernel carries the instruction out by itself, and where it
#: single-steps: on the machine itself, and in a virtual one, where each trap may leave it.
EMULATED_NS, STEPPED_NS, STEPPED_VIRTUAL_NS = 1_000, 3_000, 25_000
#: Of a function whose size nobody knows.
_UNSIZED_BYTES = 256
_LONGEST_INSTRUCTION_BYTES = 15
_FIRST_PROCESSOR_BYTES = 8 * 1024


class Refusal(NamedTuple):
    """Calls that cannot be watched: `reason` is a word of the vocabulary ``gap_detail``."""

    call: str
    reason: str


class EntryPoints:
    """The places found, with their files held open; a context manager.

    `allocator`: a word of the vocabulary ``allocator``, whose malloc the process's calls reach.
    The caller drops those `points` whose `hit_ns` times their calls is more than it may spend.
    """

    def __init__(
        self, system: System, identity: ProcessIdentity, calls: Collection[str] = ARGUMENTS
    ) -> None:
        self._calls = calls
        self._system, self._identity, self._pid = system, identity, identity.pid
        self._files: dict[int, tuple[TargetFile, ElfFile]] = {}
        self._taken: set[tuple[int, int]] = set()
        self._mapped = MappedCode(system, identity)
        self._kernel = kernel_release(system)
        self._new_may_fail = new_may_fail(system, identity.pid)
        self._stepped_ns = STEPPED_VIRTUAL_NS if _is_virtual(system) else STEPPED_NS
        self.allocator = "other"
        self.points: list[EntryPoint] = []
        self.refused: list[Refusal] = []

    def close(self) -> None:
        """The points can no longer be attached; those that are attached stay so."""
        self._mapped.close()
        for file, _ in self._files.values():
            file.close()
        self._files.clear()

    def __enter__(self) -> EntryPoints:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def watches(self, call: str) -> bool:
        return any(point.call == call for point in self.points)

    def find(self) -> None:
        """Fill in the points. NotSupported where allocations cannot be watched at all."""
        with LoadedCode(self._system, self._pid) as code:
            self.allocator = code.allocator
            self._require_own_execution(code)
            effective = next((found for found in code.order if found.facts.defines_malloc), None)
            if effective is not None:
                self._require_harmless(effective.elf)
                self._add_standard(code, effective)
            for module in code.modules:
                self._add_all(code, module, own_functions(module.facts.kind or "other"))
            if not (self.watches("malloc") and self.watches("free")):
                raise _refusal(
                    f"cannot watch the allocations of process {self._pid}: no malloc and free "
                    "were found in its files as it executes them. It is stripped and static, has "
                    "memory management of its own as Go has, or something has patched its code. "
                    "Growth of its memory is still measured.",
                    "no-entry-point",
                )
            for module in code.order:
                if self._add_all(code, module, mapping_functions()):
                    break

    def add_function(self, call: str, address: int, skipped: int = 0) -> EntryPoint | None:
        """A further function, at `address` in the process, called like `call` but with `skipped`
        more arguments in front; None where it is watched already.

        NotSupported where no file is mapped there as code, or no place in it would do.
        """
        found = self._mapped.place_of(address)
        if found is None:
            raise NotSupported(
                f"cannot watch the function at {address:#x} of process {self._pid}: no file is "
                "mapped there as code. Its calls stay unseen."
            )
        inode, offset = found
        file, elf = self._opened(inode)
        symbol = Symbol(_address_of(elf, offset), 0)
        return self._add(file, elf, AllocatorFunction(f"{address:#x}", call), symbol, skipped)

    def _opened(self, inode: int) -> tuple[TargetFile, ElfFile]:
        if inode not in self._files:
            program = program_inode(self._system, self._pid)
            for module in program_files(self._system, self._pid):
                if module.inode == inode:
                    file = open_program_file(self._system, self._pid, module, inode == program)
                    self._files[inode] = file, ElfFile(file)
                    break
            else:
                raise NotSupported(
                    f"cannot watch code of process {self._pid} that is in no program file. "
                    "Its calls stay unseen."
                )
        return self._files[inode]

    def _require_own_execution(self, code: LoadedCode) -> None:
        name = translator(module.facts.module.path for module in code.modules)
        if name is not None:
            raise _refusal(
                f"did not trace the allocations of process {self._pid}: it runs inside {name}, "
                "which would take a probe for a fault of the program's. Trace it without; all "
                "else is measured.",
                "uprobe",
            )

    def _require_harmless(self, elf: ElfFile) -> None:
        hazard = return_hazard(self._system, self._pid, self._kernel, elf.machine)
        if hazard is not None:
            raise _refusal(
                f"did not trace the allocations of process {self._pid}: {hazard}. "
                "Trace it under a newer kernel; all else is measured.",
                "uprobe",
            )

    def _add_standard(self, code: LoadedCode, effective: OpenModule) -> None:
        own = own_functions(effective.facts.kind or "other")
        self._add_all(code, effective, [*standard_functions(code.allocator), *own])
        if code.allocator != "other":
            return
        # A malloc that we do not know may be a layer over the C library's, which then still serves
        # what the layer does not define.
        for module in code.order:
            if module is not effective and module.facts.defines_malloc:
                missing = (
                    function
                    for function in standard_functions(module.facts.kind or "other")
                    if not self.watches(function.call)
                )
                self._add_all(code, module, list(missing))

    def _add_all(
        self, code: LoadedCode, module: OpenModule, functions: Iterable[AllocatorFunction]
    ) -> bool:
        """Add those that the module defines and somebody may call; whether there are any."""
        functions = [function for function in functions if function.call in self._calls]
        if not functions:
            return False
        try:
            symbols = functions_named(module, [function.symbol for function in functions])
        except ElfError:
            return False
        if not module.facts.is_program:
            wanted = ALWAYS | code.imported(symbols.keys() - ALWAYS)
            symbols = {name: symbols[name] for name in symbols if name in wanted}
        known = {symbol.address for symbol in symbols.values()}
        for function in functions:
            symbol = symbols.get(function.symbol)
            if symbol is None or self._only_jumps(module.elf, symbol, known):
                continue
            if function.may_throw and self._new_may_fail:
                self.refused.append(Refusal(function.call, "no-entry-point"))
                continue
            self._files[module.file.inode] = code.keep(module), module.elf
            try:
                self._add(module.file, module.elf, function, symbol, 0)
            except CollectorError:
                self.refused.append(Refusal(function.call, "no-entry-point"))
        return bool(symbols)

    def _only_jumps(self, elf: ElfFile, symbol: Symbol, known: set[int]) -> bool:
        """Whether it does no more than call another that is watched, which would count it twice."""
        try:
            target = tail_jump(elf, symbol.address)
        except ElfError:
            return False
        return target in known and target != symbol.address

    def _add(
        self,
        file: TargetFile,
        elf: ElfFile,
        function: AllocatorFunction,
        symbol: Symbol,
        skipped: int,
    ) -> EntryPoint | None:
        if (file.inode, symbol.address) in self._taken:
            return None
        code = code_of(elf, symbol, _UNSIZED_BYTES, BODY_BYTES)
        site = choose_site(
            machine_of(elf.machine),
            code,
            symbol.address,
            [number + skipped for number in ARGUMENTS[function.call]],
            returns=function.call not in WITHOUT_RETURN,
            null_is_nothing=function.call in NULL_IS_NOTHING and not skipped,
            kernel=self._kernel.version,
        )
        if site is None:
            raise ElfError(f"no place in {function.symbol} was found where a probe sees every call")
        before = code[: site.address - symbol.address + _LONGEST_INSTRUCTION_BYTES]
        if not self._mapped.is_unchanged(file.inode, elf.offset_of(symbol.address), before):
            raise ElfError(f"{function.symbol} is not executed as it stands in the file")
        self._taken.add((file.inode, symbol.address))
        point = EntryPoint(
            function.call,
            file.descriptor_path,
            elf.offset_of(site.address),
            function.call not in WITHOUT_RETURN,
            site.emulated,
            EMULATED_NS if site.emulated else self._stepped_ns,
            function.symbol,
            site.arguments,
            function.may_throw,
        )
        self.points.append(point)
        return point


def find_entry_points(
    system: System, identity: ProcessIdentity, calls: Collection[str] = ARGUMENTS
) -> EntryPoints:
    """The places where `calls` of that process can be watched; the caller closes them.

    NotSupported, with a `gap_detail`, where there are none or where watching could harm it.
    """
    points = EntryPoints(system, identity, calls)
    try:
        points.find()
        # What was read by the process's number was its own only if it still lives.
        identity.require_alive()
    except CollectorError:
        points.close()
        raise
    return points


def _refusal(sentence: str, gap_detail: str) -> NotSupported:
    error = NotSupported(sentence)
    error.gap_detail = gap_detail
    return error


def _address_of(elf: ElfFile, offset: int) -> int:
    """The virtual address of a file offset, as the file's symbol table counts."""
    for segment in elf.segments:
        if segment.kind == PT_LOAD and 0 <= offset - segment.offset < segment.file_bytes:
            return offset - segment.offset + segment.address
    raise ElfError("a mapped place in it belongs to no loaded segment")


def _is_virtual(system: System) -> bool:
    """Whether the first processor says that it runs under a hypervisor (x86's CPUID does)."""
    for line in system.read_chunks("/proc/cpuinfo"):
        return b" hypervisor" in line[:_FIRST_PROCESSOR_BYTES]
    return False
