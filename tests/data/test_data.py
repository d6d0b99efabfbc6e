# SPDX-License-Identifier: Apache-2.0
"""Datasets: the samples of files and of all kinds of shards are those of the codec; workers divide them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import drawn
from torch.utils.data import DataLoader

import vqcodec
from vqcodec import data
from vqcodec.batch import Encoder, encode_many
from vqcodec.batch.failures import NoIndices
from vqcodec.cli import main
from vqcodec.errors import VqcodecError

pytest.importorskip("pyarrow", reason="the extra `batch` is not installed")
NUMBER = 7


@pytest.fixture
def coded(tiny_folder: Path) -> Path:
    """Seven pictures in `in`, coded in `files`, `tar` and `parquet`."""
    for i in range(NUMBER):
        Path(f"in/{i % 2}").mkdir(parents=True, exist_ok=True)
        drawn(32, 20 + 2 * i).save(f"in/{i % 2}/{i}.png")
    for to in ("folder", "tar", "parquet"):
        assert encode_many("in", to, processes=0, effort=1, to=to, per_shard=2, fallback=False).done == NUMBER
    return tiny_folder


def expected(key: str) -> np.ndarray[Any, Any]:
    return np.asarray(vqcodec.decode(Path(f"folder/{Path(key).with_suffix('.vq2')}").read_bytes()))


@pytest.mark.parametrize("where", ["folder", "tar", "parquet"])
def test_pictures(coded: Path, where: str) -> None:
    files = data.Files(where, label=lambda key: int(key[0]))
    assert len(files) == len(set(files.keys)) == NUMBER
    for number, key in enumerate(files.keys):
        sample = files[number]
        assert torch.equal(sample["image"], torch.from_numpy(expected(key).transpose(2, 0, 1)))
        assert (sample["key"], sample["label"]) == (key, int(key[0]))


@pytest.mark.parametrize("to", ["tar", "parquet"])
@pytest.mark.parametrize("of", ["in", "folder"])
def test_indices(coded: Path, to: str, of: str) -> None:
    main(["batch", "indices", of, "codes", "-j", "0", "-e", "1", "--to", to, "--per-shard", "3"], standalone_mode=False)
    stream = data.Stream("codes", "indices")
    assert len(stream.shards) >= 3
    samples = list(stream)
    assert len(samples) == NUMBER
    for sample in samples:
        file = Path("folder", Path(sample["key"]).with_suffix(".vq2")).read_bytes()
        taken = vqcodec.to_indices(file)
        assert [level.numpy().tolist() for level in sample["levels"]] == [maps.tolist() for maps in taken.levels]
        assert (sample["width"], sample["height"]) == (taken.width, taken.height)
    pictures = list(data.Stream("codes", "images"))
    for sample in pictures:
        assert torch.equal(sample["image"], torch.from_numpy(expected(sample["key"]).transpose(2, 0, 1)))


def test_workers_divide_shards_and_a_buffer_draws_an_order(coded: Path) -> None:
    stream = data.Stream("tar", "indices", transform=lambda sample: sample["key"])
    in_order = list(stream)
    loader = DataLoader(stream, batch_size=None, num_workers=2)
    assert sorted(loader) == sorted(in_order)
    drawn_order = data.Stream("tar", "indices", buffer=4, seed=3, transform=lambda sample: sample["key"])
    first = list(drawn_order)
    assert first == list(drawn_order) != in_order
    drawn_order.set_epoch(1)
    assert list(drawn_order) != first
    assert sorted(first) == sorted(in_order)


def test_files_without_indices_and_wrong_wishes(coded: Path) -> None:
    Path("folder/whole.vq2").write_bytes(vqcodec.encode(drawn(), lossless=True))
    files = data.Files("folder", "indices")
    with pytest.raises(NoIndices):
        files[files.keys.index("whole.vq2")]
    with pytest.raises(ValueError, match="images or indices"):
        data.Files("folder", "pictures")
    with pytest.raises(VqcodecError, match="no shards"):
        data.Stream("in")


def test_encoder_of_batches(coded: Path) -> None:
    encoder = Encoder(effort=1, fallback=False)
    paths = sorted(Path("in").rglob("*.png"))
    batch = encoder({"bytes": [*(path.read_bytes() for path in paths), b"no"], "path": [*map(str, paths), "x"]})
    assert list(batch["vq2"][:-1]) == [
        Path("folder", path.relative_to("in").with_suffix(".vq2")).read_bytes() for path in paths
    ]
    assert batch["vq2"][-1] is None
    assert [bool(error) for error in batch["error"]] == [False] * NUMBER + [True]
    assert list(batch["path"]) == [*map(str, paths), "x"]
    arrays = np.stack([np.asarray(drawn(32, 20))] * 2)
    assert list(encoder({"image": arrays})["vq2"]) == [vqcodec.encode(drawn(32, 20), effort=1, fallback=False)] * 2
    with pytest.raises(ValueError, match="no column"):
        encoder({"pixels": arrays})
