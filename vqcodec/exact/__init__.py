# SPDX-License-Identifier: Apache-2.0
"""The probability path: from known indices to integer frequencies, bit-equal on every machine. See `ops`."""
