# SPDX-License-Identifier: Apache-2.0
"""Small hostile files, and the class of the error that each must give: `expected.json`.

`models/tiny.safetensors` is an untrained model of all that a configuration can have, and the one that they name. Its
weights are random; it stays as it is, for files depend on it. `make.py` writes the others, which never change either.
"""
