# SPDX-License-Identifier: Apache-2.0
"""Damaged files: `verify` finds out what is wrong with one, `salvage` shows what is left of it."""
