# SPDX-License-Identifier: Apache-2.0
"""Many images: steps that overlap, lists in Python."""

from vqcodec.batch.lists import Options, decode, encode
from vqcodec.batch.overlap import Outcome, Steps, attempt, run

__all__ = ["Options", "Outcome", "Steps", "attempt", "decode", "encode", "run"]
