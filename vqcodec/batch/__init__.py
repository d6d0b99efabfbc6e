# SPDX-License-Identifier: Apache-2.0
"""Many images: steps that overlap, lists in Python."""

from vqcodec.batch.overlap import Options, Outcome, Steps, attempt, decode, encode, run

__all__ = ["Options", "Outcome", "Steps", "attempt", "decode", "encode", "run"]
