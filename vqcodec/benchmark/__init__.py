# SPDX-License-Identifier: Apache-2.0
"""Time and memory of encoding and decoding, by size of the image, threads and device, beside JPEG, WebP and AVIF.

`timings.benchmark` takes times, `growth` fits how they grow, `report` writes them down and draws them.
"""
