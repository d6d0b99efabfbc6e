# SPDX-License-Identifier: Apache-2.0
"""Shards in and out, URLs, indices: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from batch.collections import DAMAGED, GOOD, contents, fill, lines, pictures
from batch.test_local import batch
from conftest import drawn
from PIL import Image

import vqcodec
from vqcodec import indices
from vqcodec.batch import encode_many
from vqcodec.batch.manifest import NAME

__all__ = ["pictures"]
pq = pytest.importorskip("pyarrow.parquet", reason="the extra `batch` is not installed")
fsspec = pytest.importorskip("fsspec", reason="the extra `batch` is not installed")


def members(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Key -> name of the shard and bytes of all results in tar shards; keys are there once."""
    held: dict[str, tuple[str, bytes]] = {}
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            read = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        assert all(name.rsplit("/", 1)[-1].count(".") == 1 for name in read)
        for name, data in read.items():
            if name.endswith(".json"):
                key = json.loads(data)["vqcodec_key"]
                assert key not in held
                held[key] = path.name, next(read[other] for other in read if other != name and same(other, name))
    return held


def same(name: str, other: str) -> bool:
    return name.rsplit(".", 1)[0] == other.rsplit(".", 1)[0]


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Key -> row of Parquet shards; keys are there once."""
    read = [row for path in folder.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    held = {row["key"]: row for row in read}
    assert len(held) == len(read)
    return held


def test_tar_shards_there_and_back(pictures: Path) -> None:
    summary = encode_many(pictures, "shards", processes=0, effort=1, to="tar", per_shard=5)
    assert (summary.done, summary.failed) == (GOOD, 2)
    held = members(Path("shards"))
    assert len(held) == GOOD
    assert len({shard for shard, _ in held.values()}) == 3
    for key, (_, data) in held.items():
        with Image.open(pictures / key) as image:
            assert data == vqcodec.encode(image, effort=1, model="tiny")
    assert encode_many(pictures, "shards", processes=0, effort=1, to="tar", per_shard=5).unchanged == GOOD

    assert batch("decode", "shards", "back", "-j", 0).exit_code == 0
    encode_many(pictures, "files", processes=0, effort=1)
    assert batch("decode", "files", "direct", "-j", 0).exit_code == 0
    assert sorted(contents(Path("back")).values()) == sorted(contents(Path("direct")).values())


def test_what_changed_leaves_its_shard(pictures: Path) -> None:
    options: dict[str, Any] = {"processes": 0, "effort": 1, "to": "tar", "per_shard": 5}
    encode_many(pictures, "shards", **options)
    before = members(Path("shards"))
    drawn(60, 20).save(pictures / "1.png")
    again = encode_many(pictures, "shards", **options)
    assert (again.done, again.unchanged) == (1, GOOD - 1)
    after = members(Path("shards"))
    assert {key for key in after if after[key][1] != before[key][1]} == {"1.png"}
    assert encode_many(pictures, "shards", **options).done == 0


def test_shards_that_nobody_recorded_are_no_results(pictures: Path) -> None:
    """As if the job had been killed after it wrote a shard, before it said so."""
    options: dict[str, Any] = {"processes": 0, "effort": 1, "to": "tar", "per_shard": 5}
    encode_many(pictures, "shards", **options)
    expected = {key: data for key, (_, data) in members(Path("shards")).items()}
    manifest = Path("shards", NAME).read_bytes().splitlines(keepends=True)
    Path("shards", NAME).write_bytes(b"".join(manifest[:3]))
    assert encode_many(pictures, "shards", **options).done >= GOOD - 5
    assert {key: data for key, (_, data) in members(Path("shards")).items()} == expected


def test_parquet_has_failures_too_and_is_a_source(pictures: Path) -> None:
    summary = encode_many(pictures, "shards", processes=0, effort=1, to="parquet", per_shard=6)
    assert (summary.done, summary.failed) == (GOOD, 2)
    held = rows(Path("shards"))
    assert {key for key, row in held.items() if row["error"]} == DAMAGED
    for key in held.keys() - DAMAGED:
        with Image.open(pictures / key) as image:
            assert held[key]["bytes"] == vqcodec.encode(image, effort=1, model="tiny")
            assert (held[key]["width"], held[key]["height"], held[key]["quality"]) == (*image.size, 50)
    drawn().save(pictures / "broken.png")
    assert encode_many(pictures, "shards", processes=0, effort=1, to="parquet").done == 1
    assert {key for key, row in rows(Path("shards")).items() if row["error"]} == {"sub/empty.jpg"}

    assert batch("verify", "shards", "checked", "-j", 0).exit_code == 0
    assert {line["key"] for line in lines(Path("checked"))} == held.keys() - {"sub/empty.jpg"}


def test_pictures_in_tar_and_parquet_files_of_others(tiny_folder: Path) -> None:
    import pyarrow as pa

    files = {name: io.BytesIO() for name in ("000.jpg", "000.cls", "001.jpg")}
    for name, file in files.items():
        drawn(40, 20).save(file, "JPEG") if name.endswith("jpg") else file.write(b"7")
    for shard in ("a", "b"):
        with tarfile.open(f"{shard}.tar", "w") as tar:
            for name, file in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(file.getvalue())
                tar.addfile(member, io.BytesIO(file.getvalue()))
    assert encode_many("a.tar", "one", processes=0, effort=1).done == 2
    assert set(contents(Path("one"))) == {"000.vq2", "001.vq2"}
    assert encode_many("*.tar", "two", processes=0, effort=1).done == 4
    assert set(contents(Path("two"))) == {f"{shard}/{name}.vq2" for shard in "ab" for name in ("000", "001")}

    data = [files[name].getvalue() for name in ("000.jpg", "001.jpg")]
    pq.write_table(pa.table({"image": [{"bytes": one, "path": "x.jpg"} for one in data]}), "hub.parquet")
    pq.write_table(pa.table({"name": ["p.jpg", "q.jpg"], "pixels": data}), "own.parquet")
    assert encode_many("hub.parquet", "hub", processes=0, effort=1).done == 2
    assert encode_many("own.parquet", "own", processes=0, effort=1, column="pixels").done == 2
    assert set(contents(Path("own"))) == {"p.vq2", "q.vq2"}
    assert batch("encode", "own.parquet", "x", "-j", 0).exit_code == 1


@pytest.mark.parametrize("to", ["folder", "tar"])
def test_urls(pictures: Path, to: str) -> None:
    """By way of a file system that lives in this process, which is all that `memory://` has."""
    memory = fsspec.filesystem("memory")
    if memory.exists("/job"):
        memory.rm("/job", recursive=True)
    memory.put(str(pictures), "/job/in", recursive=True)
    summary = encode_many("memory://job/in", "memory://job/out", effort=1, to=to)
    assert (summary.done, summary.failed) == (GOOD, 2)
    again = encode_many("memory://job/in", "memory://job/out", effort=1, to=to)
    assert (again.done, again.unchanged, again.failed) == (0, GOOD, 2)
    memory.pipe_file("/job/in/1.png", (pictures / "2.png").read_bytes())
    assert encode_many("memory://job/in", "memory://job/out", effort=1, to=to).done == 1
    memory.get("/job/out", "fetched", recursive=True)
    encode_many(pictures, "local", processes=0, effort=1, to=to)
    if to == "folder":
        local, fetched = contents(Path("local")), contents(Path("fetched"))
        assert {name for name in local if local[name] != fetched[name]} == {"1.vq2"}
        assert fetched["1.vq2"] == local["2.vq2"]
    else:
        assert members(Path("fetched")).keys() == members(Path("local")).keys()


def test_indices_of_pictures_and_files(pictures: Path) -> None:
    assert batch("indices", pictures, "npz", "-j", 0, "-e", 1, "-q", 30).exit_code == 1
    held = contents(Path("npz"))
    assert len(held) == GOOD
    with Image.open(pictures / "1.png") as image:
        expected = vqcodec.to_indices(image, quality=30, effort=1)
    assert held["1.npz"] == indices.dumps(expected)

    assert batch("encode", pictures, "files", "-j", 0, "-e", 1, "--glob", "?.png").exit_code == 0
    Path("files/whole.vq2").write_bytes(vqcodec.encode(drawn(), lossless=True))
    result = batch("indices", "files", "rows", "-j", 0, "--to", "parquet", "--json")
    assert json.loads(result.stdout)["failures"] == {"no indices": 1}
    row = rows(Path("rows"))["1.vq2"]
    taken = vqcodec.to_indices(Path("files/1.vq2").read_bytes())
    assert [level["indices"] for level in row["levels"]] == [maps.tobytes() for maps in taken.levels]
    assert [level["stages"] for level in row["levels"]] == list(indices.stages_used(taken))
    assert (row["width"], row["height"], row["identity"]) == (taken.width, taken.height, taken.identity)


def test_names_that_are_no_utf8(tiny_folder: Path) -> None:
    fill(tiny_folder / "in", 1)
    drawn().save(tiny_folder / "in" / "x.png")
    os.rename("in/x.png", b"in/\xff\xfe.png")
    for to in ("folder", "tar", "parquet"):
        summary = encode_many("in", to, processes=0, effort=1, to=to)
        assert summary.failures == {"image": 2}
        assert encode_many("in", to, processes=0, effort=1, to=to).done == 0
    assert Path(os.fsdecode(b"folder/\xff\xfe.vq2")).is_file()
