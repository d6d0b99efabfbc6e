# SPDX-License-Identifier: Apache-2.0
"""Weights files that somebody has tampered with: a ModelError each, before anything large is allocated."""

from __future__ import annotations

import copy
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, load_tool
from internals import inventory, load, load_vae, random_file, schema, shipped, shipped_vae, weights

import vqcodec
from vqcodec import ExactnessError, ModelError, VqcodecError

fuzz = load_tool("fuzz")
MODEL = ROOT / "tests" / "hostile" / "models" / "tiny.safetensors"
SOUND = MODEL.read_bytes()
HEADER, TENSORS = fuzz.weights_of(SOUND)
META = json.loads(HEADER["__metadata__"]["vqcodec"])

WRONG = {  # by type, values that are none of it, or none that a field allows
    "number": (-1, 1 << 40, 1 << 63, -(1 << 63), 1.5, "8", None, True, [8], {}, float("nan")),
    "float": (-1.0, 1e300, "x", None, True, [], float("inf"), float("nan")),
    "bool": (0, 1, "yes", None, []),
    "str": (0, None, "", "spiral", ["waves"], "w" * 1000),
    "list": (0, None, [], {}, [0], [-1, 4], ["4", 4], [4, 4, 4], [None], [1.5, None], [[4], 4], [1 << 40] * 2),
}
ATTACKED = (
    "prior.0.embed",
    "prior.1.table",
    "prior.1.cond_coarse.0",
    "prior.0.attention.0.query.weight",
    "prior.1.head.2.bias",
    "autoencoder.stem.weight",
    "autoencoder.quantizers.0.codebooks",
)


def with_meta(meta: object) -> bytes:
    header = copy.deepcopy(HEADER)
    header["__metadata__"]["vqcodec"] = meta if isinstance(meta, str) else json.dumps(meta)
    return fuzz.weights_file(header, TENSORS)


def with_header(**changed: object) -> bytes:
    return fuzz.weights_file({**HEADER, **changed}, TENSORS)


def with_values(name: str, values: object, at: int = 0) -> bytes:
    """Some values of a tensor replaced."""
    kind = {"F16": "<f2", "F32": "<f4", "I8": "<i1", "I32": "<i4"}[HEADER[name]["dtype"]]
    first, last = HEADER[name]["data_offsets"]
    array = np.frombuffer(TENSORS[first:last], kind).copy()
    array[at : at + np.size(values)] = values
    return fuzz.weights_file(HEADER, TENSORS[:first] + array.tobytes() + TENSORS[last:])


def kind_of(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    return {int: "number", float: "float", str: "str", list: "list"}[type(value)]


def configurations() -> Iterator[tuple[str, bytes]]:
    """Every field of the configuration with every wrong value, and objects that are none."""
    model = META["model"]
    holders = {
        "model": (),
        "autoencoder": ("autoencoder",),
        "level": ("autoencoder", "levels", 1),
        "prior": ("priors", 1),
    }
    for label, way in holders.items():
        holder = model
        for key in way:
            holder = holder[key]
        for field, value in holder.items():
            if isinstance(value, dict) or field in ("levels", "priors", "factors"):
                continue
            for wrong in WRONG[kind_of(value)]:
                if wrong == value and type(wrong) is type(value):
                    continue
                meta = copy.deepcopy(META)
                section = meta["model"]
                for key in way:
                    section = section[key]
                section[field] = wrong
                yield f"{label}.{field}={str(wrong)[:20]}", with_meta(meta)
        if way:
            meta = copy.deepcopy(META)
            section = meta["model"]
            for key in way[:-1]:
                section = section[key]
            for wrong in (None, 3, "x", [], {}):
                section[way[-1]] = wrong
                yield f"{label}={wrong}", with_meta(meta)


def structures() -> Iterator[tuple[str, bytes]]:
    """Configurations whose parts do not belong together, and JSON that is none."""

    def changed(change) -> bytes:
        meta = copy.deepcopy(META)
        change(meta["model"])
        return with_meta(meta)

    yield "no-model", with_meta({"training": {}})
    yield "model-a-list", with_meta({"model": [1]})
    yield "meta-a-list", with_meta([META])
    yield "meta-a-number", with_meta("17")
    yield "meta-no-json", with_meta("{")
    yield "meta-deep", with_meta("[" * 100_000 + "]" * 100_000)
    yield "meta-deep-objects", with_meta('{"a":' * 50_000 + "1" + "}" * 50_000)
    yield "meta-of-many-digits", with_meta('{"model": ' + "9" * 10_000 + "}")
    yield "meta-missing", with_header(__metadata__={"other": "x"})
    yield "metadata-missing", with_header(__metadata__=None)
    yield "a-vae", with_meta({"model": {"system": "vae", "widths": [4], "latents": 4}})
    yield "another-system", changed(lambda model: model.update(system="jpeg"))
    yield "an-unknown-field", changed(lambda model: model["priors"][0].update(wings=2))
    yield "a-prior-too-few", changed(lambda model: model["priors"].pop())
    yield "a-prior-too-many", changed(lambda model: model["priors"].append(model["priors"][0]))
    yield "no-priors", changed(lambda model: model.update(priors=[]))
    yield "no-levels", changed(lambda model: model["autoencoder"].update(levels=[]))
    yield "levels-swapped", changed(lambda model: model["autoencoder"]["levels"].reverse())
    yield "priors-swapped", changed(lambda model: model["priors"].reverse())
    yield "a-level-missing", changed(lambda model: model["autoencoder"]["levels"].pop())
    yield "heads-that-do-not-divide", changed(lambda model: model["priors"][0].update(heads=3))
    yield "heads-more-than-channels", changed(lambda model: model["priors"][0].update(heads=16))
    yield "groups-that-do-not-divide", changed(lambda model: model["autoencoder"]["levels"][1].update(groups=3))
    yield "tiles-no-power", changed(lambda model: model.update(tile_size=24))
    yield "tiles-smaller-than-a-stride", changed(lambda model: model.update(tile_size=4))
    yield "tiles-of-32768", changed(lambda model: model.update(tile_size=1 << 15))
    yield "rates-falling", changed(lambda model: model.update(rates=[2.0, 0.1]))
    yield "factors-too-few", changed(lambda model: model.update(factors=[[1.0, 1.0]]))
    yield "channels-of-terabytes", changed(lambda model: model["priors"][0].update(channels=1024, heads=1))
    yield (
        "all-at-most",
        changed(lambda model: model["priors"][1].update(channels=1024, layers=256, cond_blocks=256, out_blocks=256)),
    )
    yield "autoencoder-of-gigabytes", changed(lambda model: model["autoencoder"].update(widths=[4096, 4096]))
    yield "blocks-too-many", changed(lambda model: model["autoencoder"].update(decoder_blocks=[256, 256]))


def inventories() -> Iterator[tuple[str, bytes]]:
    """Tensors missing, renamed, of another type or shape, or nowhere; headers that lie."""
    names = [name for name in HEADER if name != "__metadata__"]
    for name in ATTACKED:
        entry = HEADER[name]
        yield f"{name}-missing", fuzz.weights_file({k: v for k, v in HEADER.items() if k != name}, TENSORS)
        renamed = {("x." + k if k == name else k): v for k, v in HEADER.items()}
        yield f"{name}-renamed", fuzz.weights_file(renamed, TENSORS)
        yield f"{name}-another-type", with_header(**{name: {**entry, "dtype": "I64"}})
        yield f"{name}-unknown-type", with_header(**{name: {**entry, "dtype": "Q7"}})
        yield f"{name}-flat", with_header(**{name: {**entry, "shape": [int(np.prod(entry["shape"])), 1, 1, 1, 1]}})
        yield f"{name}-huge", with_header(**{name: {**entry, "shape": [1 << 40, 1 << 40]}})
        yield f"{name}-negative", with_header(**{name: {**entry, "shape": [-1, 4]}})
        yield f"{name}-no-shape", with_header(**{name: {"dtype": "I8"}})
        yield f"{name}-nothing", with_header(**{name: None})
        yield f"{name}-elsewhere", with_header(**{name: {**entry, "data_offsets": [1 << 40, (1 << 40) + 4]}})
        yield f"{name}-backwards", with_header(**{name: {**entry, "data_offsets": entry["data_offsets"][::-1]}})
        yield f"{name}-over-another", with_header(**{name: {**entry, "data_offsets": [0, entry["data_offsets"][1]]}})
    yield (
        "one-too-many",
        fuzz.weights_file(
            {**HEADER, "prior.0.more": {"dtype": "I8", "shape": [4], "data_offsets": [len(TENSORS), len(TENSORS) + 4]}},
            TENSORS + bytes(4),
        ),
    )
    yield "a-level-too-many", with_header(**{"prior.2.base": HEADER[names[0]]})
    yield "nothing-at-all", b""
    yield "no-tensors", fuzz.weights_file({"__metadata__": HEADER["__metadata__"]}, b"")
    yield "cut-by-a-byte", SOUND[:-1]
    yield "cut-in-the-header", SOUND[:200]
    yield "seven-bytes", SOUND[:7]
    yield "a-byte-too-many", SOUND + b"\0"
    yield "header-of-exabytes", b"\xff" * 8 + SOUND[8:]
    yield "header-of-nothing", bytes(8) + SOUND[8:]
    yield "header-longer-than-the-file", (len(SOUND)).to_bytes(8, "little") + SOUND[8:]
    yield "header-no-json", SOUND[:8] + b"x" + SOUND[9:]
    yield "header-a-list", fuzz.weights_file([HEADER], TENSORS)
    deep = b"[" * 200_000
    yield "header-deep", len(deep).to_bytes(8, "little") + deep
    yield "a-zip-file", b"PK\x03\x04" + SOUND
    yield "a-pickle", b"\x80\x04\x95" + SOUND


def values() -> Iterator[tuple[str, bytes]]:
    """Numbers that no training gives."""
    floats = [name for name, entry in HEADER.items() if entry.get("dtype") in ("F16", "F32")]
    for name in [*floats[::6], "autoencoder.stem.weight", "autoencoder.head.bias"]:
        for number in (np.nan, np.inf, -np.inf):
            yield f"{name}={number}", with_values(name, number)
    for level in range(2):
        prior = f"prior.{level}"
        for name in ("embed", "base", "rate", "told", "stage", "layer.0.cond.weight", "head.0.weight"):
            yield f"{prior}.{name}=-128", with_values(f"{prior}.{name}", -128)
        for name in ("layer.0.bias", "head.0.bias"):
            for number in (-(2**31), 2**31 - 1, 2**24):
                yield f"{prior}.{name}={number}", with_values(f"{prior}.{name}", number)
        for number in (0, -1, 2**24, 2**23, -(2**31)):
            yield f"{prior}.table={number}", with_values(f"{prior}.table", [number] * 2)
        yield f"{prior}.table-rising", with_values(f"{prior}.table", [5], at=255)
        yield f"{prior}.table-nothing-at-the-end", with_values(f"{prior}.table", [0], at=255)
        yield f"{prior}.exp_table-rising", with_values(f"{prior}.exp_table", [9], at=255)
        yield f"{prior}.exp_table-of-zeros", with_values(f"{prior}.exp_table", [0] * 256)
        yield f"{prior}.exp_table-negative", with_values(f"{prior}.exp_table", [-1], at=255)


def rejected(data: bytes, tmp_path: Path) -> VqcodecError:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    start = time.process_time()
    with pytest.raises((ModelError, ExactnessError)) as caught:  # the latter: a product that could be inexact
        load(path)
    assert time.process_time() - start < 10
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))
    return caught.value


@pytest.mark.parametrize("attacks", [configurations, structures, inventories, values], ids=lambda made: made.__name__)
def test_attacks(attacks, tmp_path):
    made = dict(attacks())
    assert len(made) >= 25
    for name, data in made.items():
        assert data != SOUND
        try:
            rejected(data, tmp_path)
        except BaseException as error:
            raise AssertionError(name) from error


def test_there_are_five_hundred_of_them():
    assert sum(len(dict(attacks())) for attacks in (configurations, structures, inventories, values)) >= 500


def test_the_file_itself_is_sound(tmp_path):
    codec = load(MODEL)
    assert codec.config == schema.model_config(META["model"])
    assert [level.maps for level in codec.config.autoencoder.levels] == [2, 4]
    assert [prior.order for prior in codec.config.priors] == ["waves", "seven"]
    assert codec.identity == weights.load_model(MODEL).identity
    (tmp_path / "copy.safetensors").write_bytes(fuzz.weights_file(HEADER, TENSORS))
    copied = load(tmp_path / "copy.safetensors")
    file, _ = random_file(codec, 21, 18)
    assert copied.identity != codec.identity
    assert codec.decode(file).size == (21, 18)


def test_huge_weights_never_give_a_black_picture(tmp_path):
    path = tmp_path / "model.safetensors"
    name = next(n for n, e in HEADER.items() if e.get("dtype") == "F32" and n.endswith("codebooks"))
    path.write_bytes(with_values(name, [3e38] * 16))
    codec = load(path)
    with pytest.raises(ModelError, match="no finite picture"):
        codec.decode(random_file(codec, 21, 18)[0])


@pytest.mark.parametrize("kind", ["fifo", "device", "endless", "folder", "missing", "dangling"])
def test_what_is_no_ordinary_file(kind, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind in ("device", "endless"):
        path.symlink_to("/dev/null" if kind == "device" else "/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    for load_it in (load, load_vae, vqcodec.load_model, weights.load_model, weights.load, weights.load_meta):
        with pytest.raises(ModelError):
            load_it(path)
    monkeypatch.setenv("VQCODEC_MODELS", str(tmp_path))
    assert vqcodec.load_model("vqvae-base").name == "vqvae-base"  # and it is in nobody's way


def test_a_codec_is_no_vae_and_the_other_way_round(tmp_path):
    with pytest.raises(ModelError, match="is no VAE"):
        load_vae(MODEL)
    vae = shipped_vae("vae-base")
    with pytest.raises(ModelError, match="is a VAE"):
        load(vae)
    header, tensors = fuzz.weights_of(vae.read_bytes())
    for change in ({"latents": 0}, {"latents": 1 << 30}, {"widths": "x"}, {"tile_size": 1.5}, {"wings": 2}):
        meta = json.loads(header["__metadata__"]["vqcodec"])
        meta["model"].update(change)
        changed = {**header, "__metadata__": {"vqcodec": json.dumps(meta)}}
        (tmp_path / "vae.safetensors").write_bytes(fuzz.weights_file(changed, tensors))
        with pytest.raises(ModelError):
            load_vae(tmp_path / "vae.safetensors")


def test_shipped_models_have_the_inventory_of_their_configuration():
    for name in ("vq2-light", "vq2-base", "vqvae-base"):
        codec = shipped(name)
        file = weights.load_model(codec_path(name))
        inventory.check_model(codec.config, file.entries)
        assert file.identity == codec.identity


def codec_path(name: str) -> Path:
    return ROOT / "models" / f"{name}.safetensors"


def test_random_mutations(tmp_path):
    rng = random.Random(0)
    path, loaded = tmp_path / "model.safetensors", 0
    source = random_file(load(MODEL), 21, 18)[0]
    start = time.process_time()
    for _ in range(400):
        path.write_bytes(fuzz.mutated_weights(SOUND, rng))
        try:
            load(path).decode(source)
        except VqcodecError:
            continue
        loaded += 1
    assert not loaded  # a changed file has another identity
    assert time.process_time() - start < 120
