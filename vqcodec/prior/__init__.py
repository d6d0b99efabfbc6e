# SPDX-License-Identifier: Apache-2.0
"""The prior as it is trained: float parameters, simulated integer arithmetic, export to `vqcodec.exact`."""
