# SPDX-License-Identifier: Apache-2.0
"""Collections on this machine: folder to folder, what fails, and what a second run does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from batch.collections import DAMAGED, GOOD, contents, fill, lines, pictures
from click.testing import CliRunner, Result
from conftest import drawn
from PIL import Image

import vqcodec
from vqcodec.batch import encode_many
from vqcodec.batch.manifest import NAME
from vqcodec.cli import main
from vqcodec.errors import ModelError, VqcodecError

__all__ = ["pictures"]


def batch(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["batch", *map(str, arguments)])


def test_a_tree_is_mirrored_and_what_is_damaged_is_reported(pictures: Path) -> None:
    result = batch("encode", pictures, "out", "-j", 0, "-e", 1, "--json")
    assert result.exit_code == 1
    figures = json.loads(result.stdout)
    assert (figures["done"], figures["failed"], figures["failures"]) == (GOOD, 2, {"image": 2})
    assert {failed["key"] for failed in figures["errors"]} == DAMAGED
    written = contents(Path("out"))
    assert len(written) == GOOD
    for record in lines(Path("out")):
        if record["key"] not in DAMAGED:
            data = written[record["output"]]
            with Image.open(pictures / record["key"]) as image:
                assert data == vqcodec.encode(image, effort=1, model="tiny")
                assert (record["width"], record["height"]) == image.size
            assert record["bpp"] == pytest.approx(8 * len(data) / record["width"] / record["height"], abs=1e-5)
            assert record["quality"] == 50
    assert written["sub/a.b.c.vq2"]
    assert {name for name in written if "/" not in name and name.startswith("0")} == {"0.vq2", "0.png.vq2"}


def test_processes_give_the_same(pictures: Path) -> None:
    alone = encode_many(pictures, "alone", processes=0, effort=1, fallback=False)
    two = encode_many(pictures, "two", processes=2, threads=1, effort=1, fallback=False)
    assert (alone.done, alone.failed) == (two.done, two.failed) == (GOOD, 2)
    assert contents(Path("alone")) == contents(Path("two"))


def test_there_and_back(pictures: Path) -> None:
    assert batch("encode", pictures, "out", "-j", 0, "-e", 1).exit_code == 1
    assert batch("verify", "out", "checked", "-j", 0).exit_code == 0
    assert contents(Path("checked")) == {}
    assert len(lines(Path("checked"))) == GOOD
    assert batch("decode", "out", "back", "-j", 0, "--format", "webp").exit_code == 0
    back = contents(Path("back"))
    assert len(back) == GOOD
    assert all(name.endswith(".webp") for name in back)
    with Image.open("back/1.webp") as image:
        assert image.tobytes() == vqcodec.decode(Path("out/1.vq2").read_bytes()).tobytes()


def test_a_second_run_does_what_is_missing_or_changed_and_nothing_else(pictures: Path) -> None:
    encode_many(pictures, "out", processes=0, effort=1)
    first = len(lines(Path("out")))
    again = encode_many(pictures, "out", processes=0, effort=1)
    assert (again.done, again.unchanged, again.failed) == (0, GOOD, 2)
    assert len(lines(Path("out"))) == first

    Path("out/1.vq2").unlink()
    Path("out/2.vq2").write_bytes(b"cut")
    drawn(30, 30).save(pictures / "3.png")
    drawn(30, 31).save(pictures / "new.png")
    again = encode_many(pictures, "out", processes=0, effort=1)
    assert {line["key"] for line in lines(Path("out"))[first:]} == {"1.png", "2.png", "3.png", "new.png"}
    assert (again.done, again.unchanged, again.failed) == (4, GOOD - 3, 2)

    other = encode_many(pictures, "out", processes=0, effort=1, quality=20)
    assert (other.done, other.unchanged) == (GOOD + 1, 0)


def test_damaged_ones_are_tried_again_when_they_have_changed_or_it_is_asked(pictures: Path) -> None:
    encode_many(pictures, "out", processes=0, effort=1)
    first = len(lines(Path("out")))
    drawn().save(pictures / "broken.png")
    again = encode_many(pictures, "out", processes=0, effort=1)
    assert (again.done, again.failed) == (1, 1)
    again = encode_many(pictures, "out", processes=0, effort=1, retry_failed=True)
    assert (again.done, again.failed) == (0, 1)
    assert [line["key"] for line in lines(Path("out"))[first:]] == ["broken.png", "sub/empty.jpg"]


def test_failures_that_may_pass_are_tried_again(pictures: Path) -> None:
    os.symlink("nowhere.png", pictures / "linked.png")
    os.mkfifo(pictures / "pipe.png")
    first = encode_many(pictures, "out", processes=0, effort=1)
    assert first.failures == {"image": 2, "input or output": 2}
    drawn().save(pictures / "nowhere.png")
    assert encode_many(pictures, "out", processes=0, effort=1).done == 2


def test_a_name_that_goes_to_another_picture_leaves_no_result_twice(pictures: Path) -> None:
    encode_many(pictures, "out", processes=0, effort=1)
    os.rename(pictures / "0.jpg", pictures / "5.jpg")
    encode_many(pictures, "out", processes=0, effort=1)
    written = contents(Path("out"))
    assert len(written) == GOOD
    with Image.open(pictures / "5.jpg") as image:
        assert written["5.vq2"] == vqcodec.encode(image, effort=1, model="tiny")
    with Image.open(pictures / "0.png") as image:
        assert written["0.vq2"] == vqcodec.encode(image, effort=1, model="tiny")


def test_a_torn_last_line_is_no_obstacle(pictures: Path) -> None:
    encode_many(pictures, "out", processes=0, effort=1)
    path = Path("out", NAME)
    data = path.read_bytes().rstrip(b"\n")
    path.write_bytes(data[: data.rindex(b"\n") + 40])
    again = encode_many(pictures, "out", processes=0, effort=1)
    assert again.done + again.failed - (GOOD + 2 - again.unchanged) == 0
    assert again.unchanged >= GOOD - 1
    assert encode_many(pictures, "out", processes=0, effort=1).unchanged == GOOD


def test_one_job_at_a_time_and_no_folder_of_others(pictures: Path) -> None:
    from vqcodec.batch.manifest import Manifest

    with Manifest(str(Path("out").absolute())), pytest.raises(VqcodecError, match="another job"):
        encode_many(pictures, "out", processes=0)
    with pytest.raises(VqcodecError, match="holds other things"):
        encode_many(pictures, pictures, processes=0)
    assert batch("encode", pictures, pictures, "-j", 0).exit_code == 1
    assert "--force" in batch("encode", pictures, pictures, "-j", 0).stderr
    with pytest.raises(ModelError):
        encode_many(pictures, "other", model="missing")
    assert not Path("other").exists()


def test_lists_and_patterns(pictures: Path) -> None:
    Path("list.txt").write_text("# some\nin/1.png\n\nin/sub/a.b.c.png\nin/1.png\nin/gone.png\n")
    summary = encode_many("list.txt", "listed", processes=0, effort=1)
    assert (summary.done, summary.failures) == (2, {"input or output": 1})
    assert set(contents(Path("listed"))) == {"1.vq2", "sub/a.b.c.vq2"}
    assert batch("encode", "in/*.jpg", "globbed", "-j", 0, "-e", 1).exit_code == 0
    assert set(contents(Path("globbed"))) == {"0.vq2"}
    assert batch("encode", "in", "deep", "--glob", "sub/*.png", "-j", 0, "-e", 1).exit_code == 0
    assert set(contents(Path("deep"))) == {"sub/a.b.c.vq2", "sub/two\nlines.vq2", "sub/deep/#1%20?.vq2"}
    assert encode_many([pictures / "1.png", pictures / "2.png"], "two", processes=0, effort=1).done == 2
    assert batch("encode", "nowhere", "x", "-j", 0).exit_code == 1
    assert "there is no folder" in batch("encode", "nowhere", "x", "-j", 0).stderr


def test_what_the_model_file_lists_again(tiny_folder: Path) -> None:
    """Records of the last run count, one for every key."""
    from vqcodec.batch.manifest import Manifest

    fill(tiny_folder / "in", 2)
    for quality in (10, 20):
        encode_many("in", "out", processes=0, effort=1, quality=quality)
    with Manifest(str(Path("out").absolute())) as manifest:
        records = list(manifest.records())
    assert len({record.key for record in records}) == len(records) == GOOD - 4 + 2
    assert {record.quality for record in records if not record.failure} == {20}
