# SPDX-License-Identifier: Apache-2.0
"""Drawing images: which indices a seed gives, at which temperature, around what; then the command."""

from __future__ import annotations

import decimal
import random
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import vqcodec
from vqcodec import sampling
from vqcodec.cli import main
from vqcodec.codec import Codec
from vqcodec.errors import ImageError, ModelError
from vqcodec.exact import ops, orders
from vqcodec.exact.engine import known
from vqcodec.images.sheets import grid
from vqcodec.model import registry, weights
from vqcodec.model.maps import IndexMaps
from vqcodec.sampling import Keep, draw, keep_top, keep_upper, sample, sample_indices, temperature_table
from vqcodec.stream.writer import frequencies
from vqcodec.training.presets import VAE_PRESETS
from vqcodec.vae.model import VAEModel
from vqcodec.vae.network import VAE

SIZE = (130, 70)  # six tiles, four of them cut
ROWS = 32  # of its upper half, in pixels


@pytest.fixture(scope="session")
def source(tiny: Codec, photo: NDArray[np.uint8]) -> IndexMaps:
    """Index maps of a part of a photograph of that size."""
    return tiny.to_indices(np.ascontiguousarray(photo[100:170, 100:230]))


@torch.inference_mode()
def reference(codec: Codec, width: int, height: int, seed: int, keep: Keep | None = None) -> IndexMaps:
    """What a seed means: index by index from whole maps and the model's own table, in Python's integers."""
    generator = random.Random(seed)
    tiles: list[Tensor] = []
    for level, prior in enumerate(codec.priors):
        tiling = codec.tiling(level, width, height)
        shape = (tiling.grid[0] * tiling.grid[1], *tiling.tile_shape)
        valid = tiling.valid()
        maps = torch.zeros(shape[0], prior.level.maps, shape[1] * shape[2], dtype=torch.int64)
        kept = None
        if keep is not None:
            kept = tiling.split(keep.maps.levels[level]), tiling.split(keep.masks[level][None])[:, 0]
        condition = prior.condition(tiles, shape, valid)
        for step in orders.order(prior.config.order, *shape[1:]).step.unique().tolist():
            for stage in range(prior.level.stages):
                batches = known(prior, maps.view(shape[0], -1, *shape[1:]), condition, valid)
                coded = [(b, f) for b, _, f in batches if (b.step, b.stage) == (step, stage)]
                if not coded:
                    continue  # all have stopped
                batch, frequencies = coded[0]
                rows = iter(frequencies.long().tolist())
                for tile, position in zip(batch.tiles.tolist(), batch.positions.tolist(), strict=True):
                    for m in range(*prior.level.stage_maps(stage).indices(prior.level.maps)):
                        ends = list(accumulate(next(rows)))
                        word = int.from_bytes(generator.randbytes(8), "little") >> 24
                        chosen = next(k for k, end in enumerate(ends) if end > word * ends[-1] >> 40)
                        if kept is not None and kept[1][tile].flatten()[position]:
                            chosen = int(kept[0][tile, m].flatten()[position])
                        maps[tile, m, position] = chosen
        tiles.append(maps.view(shape[0], -1, *shape[1:]))
    levels = (tiling.join(maps) for tiling, maps in zip(codec.tilings(width, height), tiles, strict=True))
    return IndexMaps(tuple(levels), width, height)


def test_what_a_seed_means(tiny: Codec, one_level: Codec, staged: Codec) -> None:
    for codec in (tiny, one_level, staged):
        for seed in (0, 5):
            assert sample_indices(codec, 70, 24, seed=seed).equal(reference(codec, 70, 24, seed))
    assert sample_indices(tiny, 70, 24, seed=5, temperature=1).equal(reference(tiny, 70, 24, 5))


def test_what_is_kept_informs_what_is_drawn(tiny: Codec, staged: Codec) -> None:
    for codec in (tiny, staged):
        maps = sample_indices(codec, 70, 40, seed=9)
        keep = keep_upper(codec, maps)
        drawn = sample_indices(codec, 70, 40, seed=3, keep=keep)
        assert drawn.equal(reference(codec, 70, 40, 3, keep))
        assert not drawn.equal(sample_indices(codec, 70, 40, seed=3))


def test_stops_are_drawn(staged: Codec) -> None:
    """Nothing is drawn behind a stop, and what is drawn can be coded; the trade-off matters."""
    drawn = sample_indices(staged, *SIZE, seed=2, tradeoff=9)
    for level, maps in zip(staged.config.autoencoder.levels, drawn.levels, strict=True):
        live = torch.ones_like(maps[0], dtype=torch.bool)
        for stage in range(level.stages):
            part = maps[level.stage_maps(stage)]
            assert not part[:, ~live].any()
            assert part.any()
            live = live & part.any(0)
        assert 0 < live.double().mean() < 0.95
    assert staged.decompress(staged.compress(drawn, 9), *SIZE, tradeoff=9).equal(drawn)
    assert not sample_indices(staged, *SIZE, seed=2, tradeoff=255).equal(drawn)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_each_of_many_is_what_its_seed_gives_alone(
    tiny: Codec, source: IndexMaps, threads: int, temperature: float
) -> None:
    torch.set_num_threads(threads)
    for keep in (None, keep_top(tiny, source)):
        drawn = list(draw(tiny, *SIZE, range(5, 28), temperature=temperature, keep=keep))  # three batches
        assert len(drawn) == 23
        for i in (0, 9, 10, 22):
            alone = sample_indices(tiny, *SIZE, seed=5 + i, temperature=temperature, keep=keep)
            assert drawn[i].equal(alone)
        fine = {maps.levels[1].numpy().tobytes() for maps in drawn}
        assert len(fine) == 23


@pytest.mark.parametrize("size", [(0, 5), (5, -1)])
def test_wrong_arguments(tiny: Codec, source: IndexMaps, size: tuple[int, int]) -> None:
    keep = keep_top(tiny, source)
    with pytest.raises(ValueError, match="at least 1"):
        sample_indices(tiny, *size)
    with pytest.raises(ValueError, match="negative"):
        sample(tiny, 8, 8, seed=-1)
    for temperature in (0, -1, 10.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature"):
            sample(tiny, 8, 8, temperature=temperature)
    with pytest.raises(ValueError, match="not those of an image of 130x80"):
        sample(tiny, 130, 80, keep=keep)
    with pytest.raises(ValueError, match="masks"):
        sample(tiny, *SIZE, keep=Keep(keep.maps, keep.masks[::-1]))


@pytest.mark.parametrize("codes", [16, 256, 512])
def test_the_table_at_temperature_1_is_that_of_models(codes: int) -> None:
    top = ops.frequency_top(codes)
    assert [max(1, value) for value in temperature_table(top, 1, 1)] == ops.exp_table(top, 1).tolist()


@pytest.mark.parametrize(
    ("temperature", "start", "later", "last", "checksum"),
    [
        (0.8, [16384, 15153, 14014, 12961], 7, 0, 2900305),
        (2, [16384, 15880, 15391, 14918], 720, 1, 17256709),
        (2.5, [16384, 15979, 15585, 15200], 1345, 1, 26544026),
    ],
)
def test_the_table_is_the_same_everywhere(
    temperature: float, start: list[int], later: int, last: int, checksum: int
) -> None:
    with decimal.localcontext(decimal.Context(prec=2, rounding=decimal.ROUND_UP)):
        table = temperature_table(2**14, 1, temperature)
    assert (table[:4], table[100], table[255]) == (start, later, last)
    assert sum(i * value for i, value in enumerate(table, 1)) == checksum
    assert len(table) == 256
    assert table == sorted(table, reverse=True)


def test_extreme_temperatures(tiny: Codec) -> None:
    assert temperature_table(2**14, 3, 1e-300) == [2**14] + 255 * [0]
    assert temperature_table(2**14, 3, 10)[254:] == [3349, 3]
    coldest = sample_indices(tiny, *SIZE, seed=1, temperature=1e-3)
    for maps in frequencies(tiny, coldest):
        for coded in maps:
            chosen = coded.frequencies.gather(1, coded.symbols[:, None])[:, 0]
            assert torch.equal(chosen, coded.frequencies.amax(1))


def test_colder_samples_are_likelier(tiny: Codec) -> None:
    def bits(temperature: float) -> float:
        drawn = sample_indices(tiny, 256, 256, seed=1, temperature=temperature)
        coded = [one for maps in frequencies(tiny, drawn) for one in maps]
        pairs = [(one.symbols, one.frequencies) for one in coded]
        return -sum(float((f.gather(1, i[:, None])[:, 0] / f.sum(1)).double().log2().sum()) for i, f in pairs)

    before = [prior.table.clone() for prior in tiny.priors]
    costs = [bits(temperature) for temperature in (0.1, 0.5, 1, 2, 10)]
    assert all(0.9 * b > a for a, b in zip(costs, costs[1:], strict=False))
    assert all(torch.equal(a, prior.table) for a, prior in zip(before, tiny.priors, strict=True))


def test_the_top_map_is_kept(tiny: Codec, source: IndexMaps) -> None:
    keep = keep_top(tiny, source)
    samples = [sample_indices(tiny, *SIZE, seed=seed, keep=keep).levels for seed in (1, 2)]
    for maps in samples:
        assert torch.equal(maps[0], source.levels[0])
        assert (maps[1] != source.levels[1]).double().mean() > 0.5
    assert (samples[0][1] != samples[1][1]).double().mean() > 0.5
    # the finer level is drawn under what is kept, not under what the seed would have drawn
    assert not torch.equal(samples[0][1], sample_indices(tiny, *SIZE, seed=1).levels[1])


@pytest.mark.parametrize("size", [SIZE, (600, 610)])
def test_the_upper_half_is_kept_at_all_levels(tiny: Codec, size: tuple[int, int]) -> None:
    """The second size is drawn in two batches of tiles."""
    width, height = size
    known = sample_indices(tiny, width, height, seed=8, temperature=3)
    sample = sample_indices(tiny, width, height, seed=1, keep=keep_upper(tiny, known))
    again = sample_indices(tiny, width, height, seed=2, keep=keep_upper(tiny, known))
    for i, level in enumerate(tiny.config.autoencoder.levels):
        rows = height // 2 // 8 * 8 // level.stride
        for other in (sample, again):
            assert torch.equal(other.levels[i][:, :rows], known.levels[i][:, :rows])
            assert (other.levels[i][:, rows:] != known.levels[i][:, rows:]).double().mean() > 0.4
        assert not torch.equal(sample.levels[i][:, rows], again.levels[i][:, rows])


def test_one_level_and_small_images(tiny: Codec, one_level: Codec) -> None:
    maps = sample_indices(one_level, *SIZE, seed=1)
    drawn = sample_indices(one_level, *SIZE, seed=2, keep=keep_upper(one_level, maps))
    assert torch.equal(drawn.levels[0][:, : ROWS // 4], maps.levels[0][:, : ROWS // 4])
    assert not drawn.equal(maps)
    assert sample(one_level).size == (64, 64)
    with pytest.raises(ModelError, match="single level"):
        keep_top(one_level, maps)
    with pytest.raises(ImageError, match="needs 16"):
        keep_upper(tiny, sample_indices(tiny, 20, 15))


def test_grid() -> None:
    pictures = [Image.new("RGB", (5, 3), (i, i, i)) for i in range(5)]
    sheet = np.array(grid(iter(pictures), 5, 3))
    assert sheet.shape == (3 + 2 + 3, 5 + 2 + 5 + 2 + 5, 3)
    for i in range(5):
        y, x = i // 3 * 5, i % 3 * 7
        assert (sheet[y : y + 3, x : x + 5] == i).all()
        sheet[y : y + 3, x : x + 5] = 255
    assert (sheet == 255).all()
    assert grid(iter(pictures[:2]), 2, 9).size == (12, 3)


# The command


@pytest.fixture
def folder(tiny_folder: Path, source: IndexMaps, tiny: Codec) -> Path:
    """The working directory, with a.png; the tiny model is installed and the default."""
    Image.fromarray(tiny.from_indices(source)).save("a.png")
    return tiny_folder


@pytest.fixture
def vae(folder: Path) -> str:
    """The path of the weights file of an untrained VAE."""
    torch.manual_seed(0)
    tensors = {f"vae.{name}": value for name, value in VAE(VAE_PRESETS["tiny"]).state_dict().items()}
    weights.save("vae.safetensors", tensors, {"model": VAE_PRESETS["tiny"].to_dict()})
    return "./vae.safetensors"


def vq(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["sample", *map(str, arguments), "--device", "cpu"])


def shows(path: str, expected: Image.Image) -> bool:
    with Image.open(path) as image:
        return image.mode == "RGB" and image.size == expected.size and image.tobytes() == expected.tobytes()


def test_a_sheet_and_separate_files(folder: Path, tiny: Codec) -> None:
    result = vq("s.png", "--count", 3, "--tiles", "2x1", "--seed", 7)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "3 of 128x64, seed 7" in result.stderr
    pictures = [sample(tiny, 128, 64, seed=7 + i) for i in range(3)]
    assert shows("s.png", grid(iter(pictures), 3, 2))
    assert vq("row.png", "--count", 3, "--tiles", "2x1", "--seed", 7, "--columns", 3).exit_code == 0
    assert shows("row.png", grid(iter(pictures), 3, 3))
    assert vq("t.png", "--count", 3, "--width", 128, "--seed", 7, "--separate").exit_code == 0
    assert all(shows(f"t-{i}.png", picture) for i, picture in enumerate(pictures))
    assert not Path("t.png").exists()
    Path("t-0.png").unlink()
    refused = vq("t.png", "--count", 3, "--separate")
    assert (refused.exit_code, "t-1.png: exists already" in refused.stderr) == (1, True)
    assert not Path("t-0.png").exists()


def test_temperature(folder: Path, tiny: Codec) -> None:
    assert vq("s.png", "--seed", 7, "--temperature", "0.5").exit_code == 0
    assert shows("s.png", sample(tiny, seed=7, temperature=0.5))
    assert not shows("s.png", sample(tiny, seed=7))


@pytest.mark.parametrize("like", ["a.png", "a.vq2"])
def test_around_an_image(folder: Path, tiny: Codec, like: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.open("a.png")
    maps = tiny.to_indices(np.asarray(image))
    Path("a.vq2").write_bytes(tiny.encode(image))
    if like == "a.vq2":
        monkeypatch.setattr(registry, "DEFAULT_MODEL", "missing")  # the file names its model
    assert vq("top.png", "--like", like, "--keep", "top", "--seed", 3).exit_code == 0
    assert shows("top.png", sample(tiny, *SIZE, seed=3, keep=keep_top(tiny, maps)))
    assert vq("upper.png", "--like", like, "--keep", "upper", "--seed", 3, "--count", 2).exit_code == 0
    pictures = [sample(tiny, *SIZE, seed=3 + i, keep=keep_upper(tiny, maps)) for i in range(2)]
    assert shows("upper.png", grid(iter(pictures), 2, 2))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tiles", "2"],
        ["--tiles", "0x1"],
        ["--tiles", "2x1", "--width", "64"],
        ["--tiles", "1025x1"],
        ["--tiles", "300x300"],
        ["--count", "0"],
        ["--count", "65536", "--width", "65"],
        ["--temperature", "0"],
        ["--temperature", "11"],
        ["--temperature", "nan"],
        ["--like", "a.png"],
        ["--keep", "top"],
        ["--like", "a.png", "--keep", "lower"],
        ["--like", "a.png", "--keep", "top", "--height", "5"],
        ["--separate", "--columns", "2"],
        ["--columns", "0"],
        ["--seed", "-1"],
    ],
)
def test_wrong_usage(folder: Path, arguments: list[str]) -> None:
    result = vq("s.png", *arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert [path.name for path in folder.iterdir()] == ["a.png"]


def test_errors(folder: Path, one_level_file: Path, other: Codec, vae: str) -> None:
    Path("other.vq2").write_bytes(other.encode(Image.open("a.png")))
    Path("text.png").write_text("no image")
    Image.new("RGB", (40, 15)).save("flat.png")
    before = set(folder.iterdir())
    for arguments, message in (
        (["--like", "a.png", "--keep", "top", "--model", one_level_file], "single level"),
        (["--like", "a.png", "--keep", "top", "--model", vae], "is a VAE"),
        (["--like", "flat.png", "--keep", "upper"], "no upper half"),
        (["--like", "missing.png", "--keep", "upper"], "missing.png: No such file"),
        (["--like", "text.png", "--keep", "upper"], "not an image"),
        (["--like", "other.vq2", "--keep", "upper"], f"{other.identity.hex()}, which is not installed"),
        (["--like", "other.vq2", "--keep", "upper", "--model", "tiny"], f"needs model {other.identity.hex()}"),
        (["--model", "missing"], "'missing' is not installed"),
    ):
        result = vq("s.png", *arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("vqcodec: error: "), result.output
        assert result.stderr.count("\n") == 1
        assert message in result.stderr
    assert set(folder.iterdir()) == before


def test_a_vae_is_sampled_but_is_no_codec(folder: Path, vae: str) -> None:
    loaded = sampling.load_sampler(vae, "cpu")
    assert isinstance(loaded, VAEModel)
    assert vq("s.png", "--model", vae, "--seed", 4, "--count", 2, "--tiles", "2x1").exit_code == 0
    pictures = [loaded.sample(64, 32, seed=4 + i, temperature=1) for i in range(2)]
    assert shows("s.png", grid(iter(pictures), 2, 2))
    with pytest.raises(ModelError, match="vae is a VAE: .* no codec"):
        vqcodec.load_model(vae, "cpu")
    assert isinstance(sampling.load_any(None, "cpu"), Codec)
    assert sampling.load_sampler(None, "cpu").tile_size == 64
