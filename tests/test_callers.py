# SPDX-License-Identifier: Apache-2.0
"""Whatever the calling program has set, however it forks and however many threads it has: the same indices."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from internals import Codec, IndexMaps, index_maps, load, random_file

from vqcodec.errors import ExactnessError
from vqcodec.exact import check, ops, settings

MODEL = Path(__file__).resolve().parent / "hostile" / "models" / "tiny.safetensors"
SIZE = 37, 53


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load(MODEL)


def digest(codec: Codec, file: bytes) -> str:
    """Of indices and pixels."""
    maps = b"".join(m.tobytes() for m in index_maps(codec, file))
    return hashlib.sha256(maps + codec.decode(file).tobytes()).hexdigest()


@contextlib.contextmanager
def changed(module: object, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextlib.contextmanager
def called(set_it: Callable[[object], object], value: object, before: object) -> Iterator[None]:
    set_it(value)
    try:
        yield
    finally:
        set_it(before)


def precision(of: str, value: str) -> contextlib.AbstractContextManager[None]:
    """A setting of PyTorch 2.9 and newer."""
    module = torch.backends.mkldnn if of == "all" else getattr(torch.backends.mkldnn, of, None)
    if not hasattr(module, "fp32_precision"):
        pytest.skip("this PyTorch does not have it")
    return changed(module, "fp32_precision", value)


@pytest.fixture(autouse=True, scope="module")
def precisions_as_before() -> Iterator[None]:
    """Left as they were for the tests of other files: old and new ways to set a precision do not undo each other."""
    mkldnn = torch.backends.mkldnn
    with contextlib.ExitStack() as stack:
        for module in (getattr(mkldnn, "conv", None), getattr(mkldnn, "matmul", None), mkldnn):
            if hasattr(module, "fp32_precision"):
                stack.enter_context(changed(module, "fp32_precision", module.fp32_precision))
        yield


CALLERS: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
    "tf32": lambda: called(torch.set_float32_matmul_precision, "high", "highest"),
    "bf16": lambda: called(torch.set_float32_matmul_precision, "medium", "highest"),
    "bf16 of oneDNN's products": lambda: precision("matmul", "bf16"),
    "bf16 of oneDNN's convolutions": lambda: precision("conv", "bf16"),
    "bf16 of oneDNN": lambda: precision("all", "bf16"),
    "no oneDNN": lambda: changed(torch.backends.mkldnn, "enabled", False),
    "double": lambda: called(torch.set_default_dtype, torch.float64, torch.float32),
    "half": lambda: called(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "meta": lambda: called(torch.set_default_device, "meta", None),
    "a GPU, whether there is one or not": lambda: called(torch.set_default_device, "cuda", None),
    "meta, in a block": lambda: torch.device("meta"),
    "deterministic": lambda: called(torch.use_deterministic_algorithms, True, False),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "gradients": torch.enable_grad,
    "denormals": lambda: called(torch.set_flush_denormal, True, False),
    "one thread": lambda: called(torch.set_num_threads, 1, torch.get_num_threads()),
    "three threads": lambda: called(torch.set_num_threads, 3, torch.get_num_threads()),
}


def as_maps(levels, width: int, height: int) -> IndexMaps:
    return IndexMaps(tuple(torch.tensor(m, device="cpu") for m in levels), width, height)


@pytest.mark.parametrize("caller", CALLERS)
def test_settings_of_the_caller(codec, caller):
    """The same file and indices, from a model that was loaded before and from one that is loaded now; and all settings
    are afterwards as they were."""
    file, maps = random_file(codec, *SIZE, 77)
    expected = digest(codec, file)
    with CALLERS[caller]():
        before = settings.key()
        hashed = digest(codec, file)
        again = load(MODEL)
        streams = again.compress(as_maps(maps, *SIZE), 77)
        assert settings.key() == before
    assert hashed == expected == digest(again, file)
    assert all(words in file for words in streams)


@pytest.mark.parametrize("newer", [False, True])
def test_convolutions_on_cuda_are_in_float32(newer):
    """cuDNN's default is TF32; after the codec it is what it was, whichever way the caller has set it."""
    cudnn = torch.backends.cudnn
    if not newer:
        assert cudnn.allow_tf32
        with settings.needed():
            assert not cudnn.allow_tf32
        assert cudnn.allow_tf32
        return
    if not hasattr(cudnn, "conv"):
        pytest.skip("this PyTorch does not have it")
    with changed(cudnn.rnn, "fp32_precision", "ieee"):  # now the older flag can no longer be read
        with settings.needed():
            assert cudnn.conv.fp32_precision == "ieee"
        assert cudnn.conv.fp32_precision == "tf32"


def test_settings_are_held_until_the_last_thread_has_left():
    with CALLERS["double"]():
        with settings.needed():
            inside, leave = threading.Event(), threading.Event()

            def other() -> None:
                with settings.needed():
                    inside.set()
                    leave.wait(10)

            thread = threading.Thread(target=other)
            thread.start()
            assert inside.wait(10)
        assert torch.get_default_dtype() == torch.float32
        leave.set()
        thread.join()
        assert torch.get_default_dtype() == torch.float64


def test_a_setting_that_changed_is_checked_again(codec, monkeypatch):
    """Every test of the known answers is remembered with the settings that it was made under."""
    file, maps = random_file(codec, *SIZE)
    monkeypatch.setattr(check, "_passed", set())
    codec.decode(file)

    def sloppy(x: torch.Tensor, parameters: ops.Linear) -> torch.Tensor:
        return ((x.bfloat16() @ parameters.weight.bfloat16()).float() + parameters.bias).floor()

    monkeypatch.setattr(ops, "rounded", sloppy)
    check.check_device("cpu")  # remembered
    with CALLERS["no oneDNN"]():
        for use in (lambda: codec.decode(file), lambda: codec.compress(as_maps(maps, *SIZE))):
            with pytest.raises(ExactnessError, match="matrix products"):
                use()


def test_what_pytorch_refuses_is_an_exactness_error(monkeypatch):
    def refuse(*arguments: object) -> None:
        raise RuntimeError("no deterministic implementation\nfor this")

    monkeypatch.setattr(check, "_passed", set())
    monkeypatch.setattr(ops, "embedded", refuse)
    with pytest.raises(ExactnessError, match="no deterministic implementation for this"):
        check.check_device("cpu")


def test_four_threads_on_one_model(codec):
    made = [random_file(codec, 30 + i, 40 - i, 9 * i) for i in range(8)]
    expected = [digest(codec, file) for file, _ in made]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda one: digest(codec, one[0]), made)) == expected
        written = pool.map(lambda i: codec.compress(as_maps(made[i][1], 30 + i, 40 - i), 9 * i), range(8))
        assert all(words in made[i][0] for i, streams in enumerate(written) for words in streams)


# The program below is run on its own: a fork of the tests would take their threads and their output along.


class Files(torch.utils.data.Dataset[str]):
    """What a DataLoader's workers decode."""

    def __init__(self, codec: Codec, file: bytes) -> None:
        self._codec, self._file = codec, file

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> str:
        return digest(self._codec, self._file)


def loaded_digest(file: bytes) -> str:
    return digest(load(MODEL), file)


def main() -> None:
    """Compute with several threads, so that they exist; then let children of every kind decode."""
    torch.set_num_threads(3)
    torch.randn(999, 999) @ torch.randn(999, 999)
    codec = load(MODEL)
    file, _ = random_file(codec, *SIZE)
    expected = digest(codec, file)
    warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: it is what is tested
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1 if method == "spawn" else 3) as pool:
            assert pool.map(loaded_digest, [file] * 4) == [expected] * 4, method
    for workers in (0, 2):
        options = {"multiprocessing_context": "fork"} if workers else {}
        loader = torch.utils.data.DataLoader(Files(codec, file), None, num_workers=workers, **options)
        assert list(loader) == [expected] * 4, workers
    assert torch.get_num_threads() == 3  # of the parent


def test_children():
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system does not fork")
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    result = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr


if __name__ == "__main__":
    main()
