"""GPU memory, on texts in the format of drm-usage-stats.rst as each driver fills it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakcase_bundle.records import GpuMemory
from leakcase_bundle.vocabulary import VOCABULARIES
from leakcase_collector.errors import NotSupported
from leakcase_collector.probes.gpu import (
    GpuProbe,
    Usage,
    add_up,
    driver_word,
    parse_compute_apps,
    parse_drm_fdinfo,
    region_word,
)
from leakcase_collector.system.commands import CommandResult
from leakcase_collector.system.door import System
from tests.collector.probes.children import python
from tests.collector.probes.context import SECOND_NS, RecordingContext, run
from tests.collector.probes.recording import machine
from tests.collector.probes.texts import changed

KB, MB = 1024, 1 << 20
HEAD = "pos:\t0\nflags:\t02100002\nmnt_id:\t25\nino:\t471\n"

AMDGPU = (
    HEAD
    + """drm-driver:\tamdgpu
drm-client-id:\t31
drm-pdev:\t0000:03:00.0
pasid:\t32771
drm-total-cpu:\t0
drm-shared-cpu:\t0
drm-active-cpu:\t0
drm-resident-cpu:\t0
drm-purgeable-cpu:\t0
drm-total-gtt:\t2048 KiB
drm-shared-gtt:\t0
drm-active-gtt:\t0
drm-resident-gtt:\t2048 KiB
drm-total-vram:\t96 MiB
drm-shared-vram:\t16 MiB
drm-active-vram:\t0
drm-resident-vram:\t81920 KiB
drm-purgeable-vram:\t0
drm-memory-vram:\t81920 KiB
drm-memory-gtt: \t2048 KiB
drm-memory-cpu: \t0 KiB
amd-evicted-vram:\t16384 KiB
amd-requested-vram:\t98304 KiB
drm-engine-gfx:\t17179869 ns
"""
)
AMDGPU_BEFORE_6_13 = (
    HEAD
    + """pasid:\t32771
drm-driver:\tamdgpu
drm-pdev:\t0000:03:00.0
drm-client-id:\t31
drm-memory-vram:\t81920 KiB
drm-memory-gtt: \t2048 KiB
drm-memory-cpu: \t4 KiB
amd-memory-visible-vram:\t81920 KiB
"""
)
I915 = (
    HEAD
    + """drm-driver:\ti915
drm-client-id:\t39
drm-pdev:\t0000:00:02.0
drm-total-system0:\t6044 KiB
drm-shared-system0:\t0
drm-active-system0:\t0
drm-resident-system0:\t6040 KiB
drm-purgeable-system0:\t1688 KiB
drm-total-stolen-system0:\t12 KiB
drm-shared-stolen-system0:\t0
drm-active-stolen-system0:\t0
drm-resident-stolen-system0:\t12 KiB
drm-purgeable-stolen-system0:\t0
drm-engine-render:\t346249 ns
drm-engine-capacity-video:\t2
"""
)
XE = (
    HEAD
    + """drm-driver:\txe
drm-client-id:\t3
drm-pdev:\t0000:03:00.0
drm-total-system:\t0
drm-shared-system:\t0
drm-active-system:\t0
drm-resident-system:\t0
drm-purgeable-system:\t0
drm-total-gtt:\t192 KiB
drm-shared-gtt:\t0
drm-active-gtt:\t0
drm-resident-gtt:\t192 KiB
drm-total-vram0:\t24000 KiB
drm-shared-vram0:\t16 MiB
drm-active-vram0:\t0
drm-resident-vram0:\t23000 KiB
drm-total-vram1:\t1000 KiB
drm-shared-vram1:\t0
drm-active-vram1:\t0
drm-resident-vram1:\t500 KiB
drm-total-stolen:\t0
drm-resident-stolen:\t0
drm-cycles-rcs:\t28257900
drm-total-cycles-rcs:\t7655183225
"""
)
NOUVEAU = HEAD + "drm-driver:\tnouveau\ndrm-client-id:\t7\ndrm-pdev:\t0000:01:00.0\n"
MSM = (
    HEAD
    + """drm-driver:\tmsm
drm-client-id:\t11
drm-engine-gpu:\t4734 ns
drm-cycles-gpu:\t1000
drm-maxfreq-gpu:\t800000000 Hz
drm-total-memory:\t40 MiB
drm-shared-memory:\t8 MiB
drm-active-memory:\t0
drm-resident-memory:\t36 MiB
drm-purgeable-memory:\t2 MiB
"""
)
PANFROST = (
    HEAD
    + """drm-driver:\tpanfrost
drm-client-id:\t5
drm-engine-fragment:\t1846584880 ns
drm-cycles-fragment:\t1424359409
drm-maxfreq-fragment:\t799999987 Hz
drm-curfreq-fragment:\t799999987 Hz
drm-total-memory:\t290 MiB
drm-shared-memory:\t0 MiB
drm-active-memory:\t226 MiB
drm-resident-memory:\t36496 KiB
drm-purgeable-memory:\t128 KiB
"""
)
ALL = {
    "amdgpu": AMDGPU, "amdgpu before 6.13": AMDGPU_BEFORE_6_13, "i915": I915, "xe": XE,
    "nouveau": NOUVEAU, "msm": MSM, "panfrost": PANFROST,
}  # fmt: skip


def usages(*texts: str) -> dict[tuple[str, str], Usage]:
    clients = [parse_drm_fdinfo(text, "/dev/dri/renderD128") for text in texts]
    return {(u.driver, u.region): u for u in add_up(c for c in clients if c is not None)}


def test_amdgpu_tells_vram_and_gtt() -> None:
    found = usages(AMDGPU)
    assert found["amdgpu", "vram"] == Usage(
        "amdgpu", "vram", 1, 80 * MB, 96 * MB, 16 * MB, 0
    )  # fmt: skip
    assert found["amdgpu", "gtt"] == Usage("amdgpu", "gtt", 1, 2 * MB, 2 * MB, 0, None)
    assert found["amdgpu", "cpu"].resident_bytes == 0
    assert len(found) == 3


def test_older_amdgpu_calls_resident_memory_just_memory() -> None:
    found = usages(AMDGPU_BEFORE_6_13)
    assert found["amdgpu", "vram"] == Usage("amdgpu", "vram", 1, 80 * MB, None, None, None)
    assert found["amdgpu", "cpu"].resident_bytes == 4 * KB


def test_i915_tells_system_and_stolen_memory() -> None:
    found = usages(I915)
    assert found["i915", "system"] == Usage(
        "i915", "system", 1, 6040 * KB, 6044 * KB, 0, 1688 * KB
    )  # fmt: skip
    assert found["i915", "stolen"].total_bytes == 12 * KB


def test_a_client_of_two_memories_of_one_kind_is_one_client() -> None:
    vram = usages(XE)["xe", "vram"]
    assert vram == Usage("xe", "vram", 1, 23500 * KB, 25000 * KB, 16 * MB, None)
    assert ("xe", "other") not in usages(XE)


def test_drivers_without_memory_of_their_own_tell_system_memory() -> None:
    assert usages(MSM)["msm", "memory"] == Usage(
        "msm", "memory", 1, 36 * MB, 40 * MB, 8 * MB, 2 * MB
    )
    assert usages(PANFROST)["panfrost", "memory"] == Usage(
        "panfrost", "memory", 1, 36496 * KB, 290 * MB, 0, 128 * KB
    )


def test_a_driver_that_tells_no_memory_gives_nothing() -> None:
    assert usages(NOUVEAU) == {}
    assert parse_drm_fdinfo(HEAD) is None


def test_descriptors_that_share_a_client_count_once_and_others_add_up() -> None:
    other_client = AMDGPU.replace("drm-client-id:\t31", "drm-client-id:\t32")
    other_card = AMDGPU.replace("0000:03:00.0", "0000:04:00.0")
    assert usages(AMDGPU, AMDGPU, AMDGPU)["amdgpu", "vram"].clients == 1
    assert usages(AMDGPU, other_client, other_card)["amdgpu", "vram"] == Usage(
        "amdgpu", "vram", 3, 240 * MB, 288 * MB, 48 * MB, 0
    )


def test_without_an_id_every_descriptor_is_a_client_of_its_own() -> None:
    nameless = AMDGPU.replace("drm-client-id:\t31\n", "")
    assert usages(nameless, nameless)["amdgpu", "vram"].clients == 2


def test_names_of_drivers_and_regions_become_words_of_the_vocabulary() -> None:
    assert [driver_word(name) for name in ("xe", "virtio_gpu", "secret")] == [
        "xe", "virtio", "other",
    ]  # fmt: skip
    names = ("vram0", "local1", "stolen-local0", "system", "doorbell", "")
    assert [region_word(name) for name in names] == [
        "vram", "local", "stolen", "system", "other", "other",
    ]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(ALL)).flatmap(lambda name: changed(ALL[name].encode())))
def test_any_text_gives_words_and_figures_that_a_case_can_hold(text: bytes) -> None:
    client = parse_drm_fdinfo(text.decode("utf-8", "surrogateescape"))
    for usage in add_up([client] if client else []):
        assert usage.driver in VOCABULARIES["gpu_driver"]
        assert usage.region in VOCABULARIES["gpu_region"]
        for figure in usage[3:]:
            assert figure is None or 0 <= figure < 1 << 63


# --- nvidia-smi ---------------------------------------------------------------------------------


def test_nvidia_smi_tells_mebibytes_by_process() -> None:
    text = "4711, 1234\n4712, 99\n"
    assert parse_compute_apps(text, 4711) == Usage("nvidia", "process", 1, 1234 * MB)
    assert parse_compute_apps("4711, 1234 MiB\n", 4711) == Usage("nvidia", "process", 1, 1234 * MB)
    assert parse_compute_apps(text, 471) is None


def test_several_gpus_or_mig_instances_add_up() -> None:
    text = "4711, 100\n4711, 23\n4711, 9\n"
    assert parse_compute_apps(text, 4711) == Usage("nvidia", "process", 3, 132 * MB)


@pytest.mark.parametrize("word", ["[N/A]", "[Not Supported]", "[Insufficient Permissions]", ""])
def test_what_the_driver_does_not_tell_is_unknown_and_not_zero(word: str) -> None:
    assert parse_compute_apps(f"4711, {word}\n", 4711) == Usage("nvidia", "process", 1, None)
    assert parse_compute_apps(f"4711, 5\n4711, {word}\n", 4711) == Usage(
        "nvidia", "process", 2, None
    )


@pytest.mark.parametrize(
    "text", ["", "No running processes found\n", "NVIDIA-SMI has failed because ...\n", "4711\n"]
)
def test_a_process_that_is_not_listed_has_no_figure(text: str) -> None:
    assert parse_compute_apps(text, 4711) is None


@settings(max_examples=100, deadline=None)
@given(changed(b"4711, 1234 MiB\n4711, [N/A]\n"))
def test_any_output_of_nvidia_smi_is_read(text: bytes) -> None:
    usage = parse_compute_apps(text.decode("utf-8", "replace"), 4711)
    assert usage is None or usage.resident_bytes is None or 0 <= usage.resident_bytes < 1 << 63


# --- the probe ----------------------------------------------------------------------------------


def a_machine(tmp_path: Path, devices: dict[int, tuple[str, str]]) -> System:
    """A process 4711 whose descriptors lead to these devices, with this fdinfo."""
    files = {f"/proc/4711/fdinfo/{fd}": text.encode() for fd, (_, text) in devices.items()}
    links = {f"/proc/4711/fd/{fd}": path for fd, (path, _) in devices.items()}
    return machine(tmp_path, files, {**links, "/proc/4711/fd/0": "/dev/null"})


class _Smi:
    """Stands for nvidia-smi; counts how often it was run."""

    def __init__(self, output: str) -> None:
        self._output = output.encode()
        self.runs = 0

    def __call__(self, arguments: Sequence[str], timeout_seconds: float) -> CommandResult:
        assert arguments[0] == "nvidia-smi"
        self.runs += 1
        return CommandResult(self._output, b"", 0, 1, 1)


def test_open_drm_devices_are_recorded_at_every_call(tmp_path: Path) -> None:
    render, card = "/dev/dri/renderD128", "/dev/dri/card0"
    system = a_machine(tmp_path, {5: (render, AMDGPU), 6: (render, AMDGPU), 7: (card, I915)})
    context = run(GpuProbe(), RecordingContext(4711, system))
    records = context.emitted(GpuMemory)
    assert len(records) == 3 * 5
    vram = [r for r in records if r.region == "vram"]
    assert [(r.source, r.driver, r.clients, r.resident_bytes) for r in vram] == [
        ("fdinfo", "amdgpu", 1, 80 * MB)
    ] * 3
    assert context.gaps == []


def test_a_driver_that_tells_nothing_leaves_a_gap(tmp_path: Path) -> None:
    system = a_machine(tmp_path, {5: ("/dev/dri/renderD128", NOUVEAU)})
    context = run(GpuProbe(), RecordingContext(4711, system))
    assert context.gaps == [("not-supported", "drm")]
    assert context.records == []


def test_nvidia_smi_runs_only_for_a_process_that_has_the_device_and_not_at_every_call(
    tmp_path: Path,
) -> None:
    smi = _Smi("4711, 77\n")
    system = a_machine(tmp_path, {5: ("/dev/nvidia0", ""), 6: ("/dev/nvidiactl", "")})
    context = run(GpuProbe(smi), RecordingContext(4711, system), samples=20)
    records = context.emitted(GpuMemory)
    assert smi.runs == len(records) == 2
    assert {(r.source, r.driver, r.region, r.resident_bytes) for r in records} == {
        ("nvidia-smi", "nvidia", "process", 77 * MB)
    }
    context = run(GpuProbe(smi), RecordingContext(4711, system, interval_ns=60 * SECOND_NS), 3)
    assert smi.runs == 2 + 5 - 1  # the first sample is at begin's own time


def test_a_missing_or_silent_nvidia_smi_leaves_a_gap(tmp_path: Path) -> None:
    def missing(arguments: Sequence[str], timeout_seconds: float) -> CommandResult:
        raise NotSupported("cannot run nvidia-smi: it is not installed. Install it.")

    system = a_machine(tmp_path, {5: ("/dev/nvidia0", "")})
    for stand_in in (missing, _Smi("No running processes found\n")):
        context = run(GpuProbe(stand_in), RecordingContext(4711, system))
        assert context.gaps == [("not-supported", "nvidia-smi")]
        assert context.records == []


def test_a_process_without_a_gpu_is_looked_at_twice_and_leaves_no_trace() -> None:
    class Counting(System):
        listed = 0

        def list_directory(self, path: str, limit_entries: int = 1_000_000) -> list[str]:
            self.listed += 1
            return super().list_directory(path, limit_entries)

    system = Counting()
    with python("") as child:
        context = run(GpuProbe(), RecordingContext(child.pid, system), samples=50)
    assert (context.records, context.rows, context.gaps) == ([], [], [])
    assert system.listed == 2
