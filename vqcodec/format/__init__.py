# SPDX-License-Identifier: Apache-2.0
"""The file: container, chunks, and what one holds. Knows neither PyTorch nor numpy."""
