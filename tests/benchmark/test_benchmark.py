# SPDX-License-Identifier: Apache-2.0
"""The clocks and scales of the benchmark itself: what they count, what they leave alone, and what they survive."""

from __future__ import annotations

import json
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import load_tool
from PIL import Image

from vqcodec import timing
from vqcodec.benchmark import contenders, growth, launch, parts, plots, report, timings
from vqcodec.benchmark.contenders import Ours, Pillow
from vqcodec.benchmark.timings import Direction, Plan, Timing
from vqcodec.codec import Codec
from vqcodec.errors import FormatError

MIB = 1 << 20
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def ours(tiny_models: Path) -> Ours:
    return Ours(str(tiny_models / "tiny.safetensors"), "cpu")


class Ticks:
    """In place of a clock: every look at it, time moves on by what was asked for."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_stages_count_their_own_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = Ticks()
    monkeypatch.setattr(parts, "time", ticks)
    clock = parts.Clock(CPU)
    with clock.part("prior"):
        ticks.now += 2
        for _ in range(3):
            with clock.part("entropy coding"):
                ticks.now += 5
                with clock.part("network"):
                    ticks.now += 7
        ticks.now += 11
    assert {name: seconds for name, seconds in clock.seconds.items() if seconds} == {
        "prior": 13,
        "entropy coding": 15,
        "network": 21,
    }
    assert clock.total == ticks.now


def test_a_gpu_is_waited_for_at_both_ends_of_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = Ticks()
    monkeypatch.setattr(parts, "time", ticks)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: setattr(ticks, "now", ticks.now + 1))
    clock = parts.Clock(torch.device("cuda"))
    with clock.part("prior"), clock.part("network"):
        pass
    # the wait before the network is for what the prior had asked for, the one after it for the network
    assert (clock.seconds["network"], clock.seconds["prior"]) == (1, 2)


def test_the_clock_changes_nothing(tiny: Codec) -> None:
    image = timings.drawn(150, 90)
    data = tiny.encode(image)
    decoded = np.asarray(tiny.decode(data))
    with parts.clocked(CPU) as encoding:
        assert tiny.encode(image) == data
    with parts.clocked(CPU) as decoding:
        assert np.array_equal(np.asarray(tiny.decode(data)), decoded)
    for clock in (encoding, decoding):
        assert all(clock.seconds[part] > 0 for part in parts.PARTS if part != "choice of codes")
        assert clock.seconds["rest"] < 0.5 * clock.total
        assert clock.seconds["prior"] > clock.seconds["input and output"]
    assert encoding.seconds["choice of codes"] > decoding.seconds["choice of codes"] == 0
    with pytest.raises(FormatError), parts.clocked(CPU):
        tiny.decode(data[:-1])
    assert not timing._watchers


def test_memory_is_that_of_the_command_alone() -> None:
    """Not of the process that starts it, which has PyTorch loaded."""
    small, large = (
        launch.run([sys.executable, "-c", f"import os; x = b'1' * {size}; assert os.environ['GREETING'] == 'hi'"],
                   {"GREETING": "hi"})
        for size in (1, 100 * MIB)
    )  # fmt: skip
    assert 90 * MIB < large.peak_bytes - small.peak_bytes < 120 * MIB
    assert small.peak_bytes < 60 * MIB < 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert 0 < small.seconds < 60


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('a line\\nno luck')", "^no luck$"),
        ("import sys; sys.exit(3)", "status 3"),
        (f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})", "signal 9.*memory"),
    ],
)
def test_commands_that_fail(code: str, message: str) -> None:
    with pytest.raises(launch.ProcessFailed, match=message):
        launch.run([sys.executable, "-S", "-c", code], {})


def test_pictures_have_their_size_and_keep_their_detail() -> None:
    source = timings.drawn(60, 40)
    pixels = np.asarray(source)
    for megapixels in (0.0006, 0.05, 1.0):
        image = timings.picture(source, megapixels)
        assert image.width * image.height == pytest.approx(megapixels * 1e6, rel=0.03)
        assert image.width / image.height == pytest.approx(1.5, rel=0.03)
        width, height = min(60, image.width), min(40, image.height)
        assert np.array_equal(np.asarray(image)[:height, :width], pixels[:height, :width])
    large = np.asarray(timings.picture(source, 0.05))
    assert np.array_equal(large[40:80, :60], pixels[::-1])
    assert np.array_equal(large[:40, 120:180], pixels)


def test_the_rivals_quality_is_the_highest_that_fits() -> None:
    image = timings.drawn(96, 64)
    sizes = [len(Pillow("JPEG", quality).encode(image)) for quality in range(1, 101)]
    rival = contenders.within("JPEG", image, sizes[59])
    assert sizes[rival.quality - 1] <= sizes[59] < sizes[rival.quality]
    assert contenders.within("JPEG", image, 10).quality == 1
    assert Pillow("JPEG", 50).decode(Pillow("JPEG", 50).encode(image)).size == image.size


def test_runs_end_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = Ticks()
    monkeypatch.setattr(timings, "time", ticks)

    def call() -> float:
        ticks.now += 4
        return ticks.now

    assert timings.repeated(call, Plan((1,), runs=9, seconds=10)) == [4, 8, 12]
    assert timings.repeated(call, Plan((1,), runs=2, seconds=10)) == [16, 20]
    assert len(timings.repeated(call, Plan((1,), runs=9, seconds=0))) == 1


def test_a_line_and_a_power_law_are_found() -> None:
    sizes = [0.1, 1.0, 4.0, 10.0]
    line = growth.fit(sizes, [3 + 2 * x for x in sizes])
    assert line is not None
    assert (line.constant, line.slope, line.r2, line.points) == (pytest.approx(3), pytest.approx(2), 1, 4)
    square = growth.fit(sizes, [5 * x**2 for x in sizes])
    assert square is not None
    assert square.exponent == pytest.approx(2)
    assert square.r2 < 0.97
    assert growth.fit([1, 2, 2], [1, 2, 2]) is None


@dataclass
class Brittle:
    """A codec whose memory ends above 150 pixels of width, in decoding."""

    error: Exception
    name: str = "brittle"
    setting: str = ""
    device: torch.device = CPU
    suffix: str = ".b"
    threaded: bool = True
    threads: int = 0

    def use_threads(self, number: int) -> None:
        self.threads = number

    def environment(self, threads: int) -> dict[str, str]:
        return {}

    def encode(self, image: Image.Image) -> bytes:
        return b"x" * image.width

    def decode(self, data: bytes) -> Image.Image:
        if len(data) > 150:
            raise self.error
        return Image.new("L", (1, 1))

    def encode_command(self, source: Path, target: Path, threads: int) -> list[str]:
        return [sys.executable, "-S", "-c", "import sys; sys.exit('no memory here' * (len(sys.argv) > 5))"]

    decode_command = encode_command


OUT_OF_MEMORY = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("can't allocate memory")]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_running_out_of_memory_is_reported_and_the_next_size_follows(error: Exception) -> None:
    plan = Plan((0.01, 0.04, 0.012), threads=(1, 2), runs=3, processes=False)
    lines: list[str] = []
    timed = timings.benchmark([Brittle(error)], timings.drawn(), plan, lines.append)
    assert [(m.threads, m.failure is None) for m in timed] == [(1, 1), (2, 1), (1, 0), (2, 0), (1, 1), (2, 1)]
    failed = timed[2]
    assert failed.failure is not None
    assert failed.failure.startswith("out of memory")
    assert failed.encode.seconds is not None
    assert failed.decode == Direction()
    assert failed.file_bytes == failed.width
    assert len(lines) == 6
    assert "**out of memory" in report.markdown(timed, growth.growths(timed))


def test_threads_are_set_for_those_who_can_use_them() -> None:
    several, single = Brittle(MemoryError()), Brittle(MemoryError(), threaded=False)
    timed = timings.benchmark([several, single], timings.drawn(), Plan((0.001,), (1, 3), 1, processes=False))
    assert [m.threads for m in timed] == [1, 3, 1]
    assert (several.threads, single.threads) == (3, 1)
    assert [Pillow(name, 50).threaded for name in contenders.RIVALS] == [False, False, True]


def test_memory_of_a_gpu_is_that_of_each_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter([11, 22])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: next(peaks))
    calls: list[str] = []
    for name in ("synchronize", "reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, name=name: calls.append(name))
    brittle = Brittle(MemoryError(), device=torch.device("cuda"))
    plan = Plan((1,), runs=2, processes=False)
    timing = timings.attempt(brittle, timings.drawn(100, 20), plan, 1)
    assert (timing.encode.gpu_peak_bytes, timing.decode.gpu_peak_bytes) == (11, 22)
    once = ["reset_peak_memory_stats", *["synchronize"] * (calls.count("synchronize") // 2)]
    assert calls == [*once, *once, "empty_cache"]
    assert "GPU peak, MiB" in report.markdown([timing], [])


def test_other_errors_are_not_taken_for_want_of_memory() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        timings.attempt(Brittle(RuntimeError("a bug")), timings.drawn(200, 20), Plan((1,), processes=False), 1)


def test_a_process_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    brittle = Brittle(MemoryError())
    monkeypatch.setattr(brittle, "encode_command", lambda *_: [sys.executable, "-S", "-c", "raise MemoryError('big')"])
    timing = timings.attempt(brittle, timings.drawn(100, 20), Plan((1,)), 1)
    assert timing.failure == "process: MemoryError: big"
    assert timing.encode == timing.decode == Direction()


def test_the_commands_do_what_is_done_in_process(ours: Ours, tmp_path: Path) -> None:
    image = timings.drawn(48, 32)
    image.save(tmp_path / "in.ppm")
    for contender in (ours, Pillow("WebP", 60)):
        contender.use_threads(1)  # another number may round another way
        coded, out = tmp_path / f"a{contender.suffix}", tmp_path / "out.ppm"
        plan = Plan((1,), runs=1)
        encode = timings._process(
            contender.encode_command(tmp_path / "in.ppm", coded, 1), contender.environment(1), plan
        )
        data = contender.encode(image)
        assert coded.read_bytes() == data
        timings._process(contender.decode_command(coded, out, 1), contender.environment(1), plan)
        with Image.open(out) as decoded:
            assert np.array_equal(np.asarray(decoded), np.asarray(contender.decode(data)))
        assert encode.process_seconds is not None
        assert encode.peak_bytes is not None
        assert encode.process_seconds > 0
        assert encode.peak_bytes > (100 if contender is ours else 10) * MIB
    assert ours.environment(2)["OMP_NUM_THREADS"] == "2"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("benchmark")


def test_command_line(tool: ModuleType, tiny_models: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    arguments = ["--model", str(tiny_models / "tiny.safetensors"), "--no-processes", "--sizes", "0.004,0.01,0.04"]
    arguments += ["--threads", "1", "--runs", "2", "--rival", "JPEG", "--rival", "AVIF=30"]
    outputs = ["--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.svg")]
    result = CliRunner().invoke(tool.main, [*arguments, *outputs], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    printed = json.loads((tmp_path / "a.json").read_text())
    rows = [Timing(**row) for row in printed["measurements"]]
    assert [(row.codec, row.threads) for row in rows] == [("vqcodec", 1), ("JPEG", 1), ("AVIF", 1)] * 3
    for row in rows:
        direction = row.decode
        assert direction["seconds"] > 0
        assert direction["runs"] == 2
        assert (direction["parts"] is not None) == (row.codec == "vqcodec")
    jpeg = [row for row in rows if row.codec == "JPEG"]
    assert jpeg[-1].file_bytes <= rows[-3].file_bytes  # matched at the largest size, as all are small
    grown = [(g["codec"], g["threads"], g["direction"], g["quantity"]) for g in printed["growth"]]
    assert ("vqcodec", 1, "decode", "seconds") in grown
    assert len(grown) == 3 * 2
    assert "Where the time goes" in result.stdout
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    "arguments", [["--sizes", "0"], ["--sizes", "a"], ["--threads", ""], ["--rival", "GIF"], ["--rival", "JPEG=0"]]
)
def test_wrong_command_lines(tool: ModuleType, tiny_models: Path, arguments: list[str]) -> None:
    model_option = ["--model", str(tiny_models / "tiny.safetensors")]
    assert CliRunner().invoke(tool.main, [*model_option, *arguments]).exit_code == 2


def test_an_empty_series_can_be_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    nothing = Timing("vqcodec", "m", "cpu", 1, 3, 2, 6e-6, None, Direction(), Direction(), "out of memory: x")
    plots.plot(tmp_path / "a.png", [nothing], [])
    assert (tmp_path / "a.png").stat().st_size > 1000
