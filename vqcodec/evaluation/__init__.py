# SPDX-License-Identifier: Apache-2.0
"""Rate-distortion of this codec beside JPEG, WebP, AVIF and JPEG XL, from the bytes of real files.

`codecs` says who competes, `measuring` turns images and codecs into rows and rows into means, `curves` reads curves of
means, `tables` writes them down, `equal_bytes` makes every codec spend the same on one image. How they are shown is
the business of `vqcodec.report`. Needs the `eval` extra.
"""
