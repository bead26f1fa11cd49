"""Memory that the target holds on a GPU: DRM's fdinfo, and nvidia-smi for NVIDIA's own driver.

A process that has no such device open costs one look at its descriptors at the start and one at
the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Callable, NamedTuple, Optional

from leakcase_bundle.records import GpuMemory
from leakcase_bundle.vocabulary import is_word
from leakcase_collector.errors import CollectorError, NotPermitted, NotSupported, TargetGone
from leakcase_collector.system.clock import NS_PER_SECOND, monotonic_ns
from leakcase_collector.system.commands import CommandResult, run

from .base import Cadence, Context, Probe

#: Devices are opened early, so that theirs are among the lowest descriptors.
MAX_DESCRIPTORS = 4096
MAX_CLIENTS = 256
NVIDIA_SMI = (
    "nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits",
)  # fmt: skip
NVIDIA_SMI_SECONDS = 5.0
#: Between two runs of nvidia-smi, at least this and this many times as long as one takes: it
#: wakes a sleeping GPU, and the capture waits for it.
_NVIDIA_PAUSE_NS = 30 * NS_PER_SECOND
_NVIDIA_PAUSE_FACTOR = 100

_UNITS: Mapping[str, int] = {"": 1, "KiB": 1024, "MiB": 1 << 20}
_FIGURES = ("total", "shared", "resident", "purgeable", "memory")


class DrmClient(NamedTuple):
    """One open DRM file: the figures in bytes by the driver's own name of the memory region."""

    driver: str
    device: str
    client_id: Optional[int]
    regions: dict[str, dict[str, int]]


class Usage(NamedTuple):
    """GPU memory of a process in one region, over all its clients; None: not told."""

    driver: str
    region: str
    clients: int
    resident_bytes: Optional[int] = None
    total_bytes: Optional[int] = None
    shared_bytes: Optional[int] = None
    purgeable_bytes: Optional[int] = None


def parse_drm_fdinfo(text: str, device: str = "") -> Optional[DrmClient]:
    """The fdinfo of a DRM file (Documentation/gpu/drm-usage-stats.rst); None for any other file.

    `device` stands in where the file names no PCI device (``drm-pdev``).
    """
    values: dict[str, str] = {}
    regions: dict[str, dict[str, int]] = {}
    for line in text.split("\n"):
        key, colon, value = line.partition(":")
        if not colon or not key.startswith("drm-"):
            continue
        key, value = key[4:].strip(), value.strip()
        figure, dash, region = key.partition("-")
        if dash and figure in _FIGURES and not region.startswith("cycles"):
            amount = _bytes(value)
            if amount is not None:
                regions.setdefault(region, {})[figure] = amount
        else:
            values[key] = value
    if not values.get("driver"):
        return None
    client = values.get("client-id", "")
    return DrmClient(
        values["driver"],
        values.get("pdev") or device,
        int(client) if client.isdecimal() and len(client) < 20 else None,
        regions,
    )


def _bytes(value: str) -> Optional[int]:
    number, _, unit = value.partition(" ")
    factor = _UNITS.get(unit.strip())
    if factor is None or not number.isdecimal() or len(number) > 15:
        return None
    return factor * int(number)


def region_word(name: str) -> str:
    """The word of ``gpu_region`` for a driver's name of a region: vram1 is vram, system0 system."""
    base = name.rstrip("0123456789")
    if base.startswith("stolen"):
        return "stolen"
    return base if is_word("gpu_region", base) else "other"


def driver_word(name: str) -> str:
    """The word of ``gpu_driver`` for the name that a DRM driver registers."""
    base = "virtio" if name.startswith("virtio") else name
    return base if is_word("gpu_driver", base) else "other"


def add_up(clients: Iterable[DrmClient]) -> list[Usage]:
    """The sums by driver and region; a client that several descriptors share counts once."""
    distinct: dict[tuple[str, str, object], DrmClient] = {}
    for position, client in enumerate(clients):
        # Without an id nothing tells whether two descriptors share a client.
        identity: object = client.client_id if client.client_id is not None else (position,)
        distinct.setdefault((client.driver, client.device, identity), client)
    sums: dict[tuple[str, str], Usage] = {}
    for client in distinct.values():
        driver = driver_word(client.driver)
        by_word: dict[str, Usage] = {}
        for name, figures in client.regions.items():
            word = region_word(name)
            told = Usage(
                driver,
                word,
                0,
                # drm-memory-* is the older name of drm-resident-*; amdgpu writes both.
                figures.get("resident", figures.get("memory")),
                figures.get("total"),
                figures.get("shared"),
                figures.get("purgeable"),
            )
            # A client with vram0 and vram1 is one client of vram.
            by_word[word] = _plus(by_word.get(word, Usage(driver, word, 1)), told)
        for word, usage in by_word.items():
            sums[driver, word] = _plus(sums.get((driver, word), Usage(driver, word, 0)), usage)
    return [sums[key] for key in sorted(sums)]


def _plus(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.driver,
        one.region,
        one.clients + other.clients,
        *(_sum(mine, theirs) for mine, theirs in zip(one[3:], other[3:])),
    )


def _sum(one: Optional[int], other: Optional[int]) -> Optional[int]:
    return one if other is None else other + (one or 0)


def parse_compute_apps(text: str, pid: int) -> Optional[Usage]:
    """What ``nvidia-smi --query-compute-apps=pid,used_memory`` says of one process; None: nothing.

    One row per GPU or MIG instance, in MiB; ``[N/A]`` or ``[Not Supported]`` where the driver does
    not tell: then the sum is not known either.
    """
    clients = 0
    used: Optional[int] = None
    is_known = True
    for line in text.split("\n"):
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 2 or fields[0] != str(pid):
            continue
        clients += 1
        number = fields[1].partition(" ")[0]
        if number.isdecimal() and len(number) < 12:
            used = (used or 0) + (int(number) << 20)
        else:
            is_known = False
    if not clients:
        return None
    return Usage("nvidia", "process", clients, used if is_known else None)


class _Devices(NamedTuple):
    """The GPU devices that the target has open: descriptor and path of those under /dev/dri."""

    drm: list[tuple[str, str]]
    has_nvidia: bool


class GpuProbe(Probe):
    """Memory on the GPU, which no figure of the kernel's process accounting contains."""

    name = "gpu"
    cadence = Cadence.PACED
    reads = "/proc/PID/fdinfo of /dev/dri devices; nvidia-smi where /dev/nvidia* is open"

    def __init__(self, run_command: Callable[..., CommandResult] = run) -> None:
        self._run = run_command
        self._has_gpu = False
        self._nvidia_due_ns = 0

    def begin(self, context: Context, taken_ns: int) -> None:
        self._take(context, taken_ns)

    def sample(self, context: Context, taken_ns: int) -> None:
        if self._has_gpu:
            self._take(context, taken_ns)

    def finish(self, context: Context, taken_ns: int) -> None:
        self._nvidia_due_ns = 0
        self._take(context, taken_ns)

    def _take(self, context: Context, taken_ns: int) -> None:
        devices = _open_devices(context)
        self._has_gpu = bool(devices.drm) or devices.has_nvidia
        if devices.drm:
            self._take_drm(context, taken_ns, devices.drm)
        if devices.has_nvidia and taken_ns >= self._nvidia_due_ns:
            self._take_nvidia(context, taken_ns)

    def _take_drm(
        self, context: Context, taken_ns: int, descriptors: list[tuple[str, str]]
    ) -> None:
        clients: list[DrmClient] = []
        for name, path in descriptors[:MAX_CLIENTS]:
            try:
                text = context.system.read_text(f"/proc/{context.pid}/fdinfo/{name}")
            except NotSupported:
                continue  # closed meanwhile
            client = parse_drm_fdinfo(text, path)
            if client is not None:
                clients.append(client)
        usages = add_up(clients)
        for usage in usages:
            context.emit(_record(taken_ns, "fdinfo", usage))
        if len(descriptors) > MAX_CLIENTS:
            context.loss("descriptors", len(descriptors) - MAX_CLIENTS)
        if not usages:
            context.gap(
                NotSupported(
                    "the GPU's driver does not tell how much memory a process holds "
                    "(no drm-memory or drm-resident in its fdinfo). GPU memory stays unseen; "
                    "a newer kernel may tell."
                ),
                "drm",
            )

    def _take_nvidia(self, context: Context, taken_ns: int) -> None:
        started_ns = monotonic_ns()
        usage: Optional[Usage] = None
        try:
            result = self._run(NVIDIA_SMI, NVIDIA_SMI_SECONDS)
            usage = parse_compute_apps(result.stdout.decode("utf-8", "replace"), context.pid)
            if usage is None:
                raise NotSupported(
                    f"nvidia-smi does not list process {context.pid} (exit status "
                    f"{result.exit_status}), though it has an NVIDIA device open: it may only "
                    "draw, or live in another pid namespace. Its GPU memory stays unseen."
                )
            context.emit(_record(taken_ns, "nvidia-smi", usage))
        except TargetGone:
            raise
        except CollectorError as error:
            context.gap(error, "nvidia-smi")
        pause_ns = _NVIDIA_PAUSE_FACTOR * (monotonic_ns() - started_ns)
        self._nvidia_due_ns = taken_ns + max(_NVIDIA_PAUSE_NS, pause_ns)


def _open_devices(context: Context) -> _Devices:
    drm: list[tuple[str, str]] = []
    has_nvidia = False
    names = context.system.list_directory(f"/proc/{context.pid}/fd")
    for name in names[:MAX_DESCRIPTORS]:
        try:
            path = context.system.read_link(f"/proc/{context.pid}/fd/{name}")
        except (NotSupported, NotPermitted):
            continue
        if path.startswith("/dev/dri/"):
            drm.append((name, path))
        elif path.startswith("/dev/nvidia"):
            has_nvidia = True
    return _Devices(drm, has_nvidia)


def _record(taken_ns: int, source: str, usage: Usage) -> GpuMemory:
    return GpuMemory(
        taken_ns,
        source,
        usage.driver,
        usage.region,
        usage.clients,
        usage.resident_bytes,
        usage.total_bytes,
        usage.shared_bytes,
        usage.purgeable_bytes,
    )
