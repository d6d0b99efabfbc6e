# SPDX-License-Identifier: Apache-2.0
"""Collections in a bucket, served by a fake of S3 over HTTP: `pip install 's3fs' 'moto[s3]' flask flask-cors`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from batch.collections import GOOD, contents, pictures
from batch.test_shards import members

from vqcodec.batch import encode_many

__all__ = ["pictures"]
pytest.importorskip("moto", reason="moto is not installed")
pytest.importorskip("flask", reason="flask is not installed, which moto serves with")
s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """URL of an empty bucket: the fake keeps them while the process lives, so each has a name of its own."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    s3fs.S3FileSystem.clear_instance_cache()
    name = tmp_path.name.replace("_", "-").strip("-").lower()
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.parametrize(("to", "processes"), [("folder", 1), ("tar", 0)])
def test_a_bucket(bucket: str, pictures: Path, to: str, processes: int) -> None:
    fs = s3fs.S3FileSystem()
    (pictures / "sub" / "two\nlines.png").rename(pictures / "sub" / "two lines.png")  # which the fake refuses
    fs.put(f"{pictures}/", f"{bucket}/in/", recursive=True)
    summary = encode_many(f"{bucket}/in", f"{bucket}/out", processes=processes, effort=1, fallback=False, to=to)
    assert (summary.done, summary.failed) == (GOOD, 2)
    again = encode_many(f"{bucket}/in", f"{bucket}/out", processes=0, effort=1, fallback=False, to=to)
    assert (again.done, again.unchanged, again.failed) == (0, GOOD, 2)
    fs.pipe_file(f"{bucket}/in/1.png", (pictures / "2.png").read_bytes())
    assert encode_many(f"{bucket}/in", f"{bucket}/out", processes=0, effort=1, fallback=False, to=to).done == 1

    (pictures / "1.png").write_bytes((pictures / "2.png").read_bytes())
    encode_many(pictures, "local", processes=0, effort=1, fallback=False, to=to)
    fs.get(f"{bucket}/out/", "fetched/", recursive=True)
    if to == "folder":
        assert contents(Path("fetched")) == contents(Path("local"))
    else:
        held, local = members(Path("fetched")), members(Path("local"))
        assert {key: data for key, (_, data) in held.items()} == {key: data for key, (_, data) in local.items()}
