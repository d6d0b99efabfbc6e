# SPDX-License-Identifier: Apache-2.0
"""Showing what `vqcodec.evaluation` measured: plots, a strip of pictures, and a page that holds all it needs.

`page` puts the page together from `charts` (curves as SVG), `tables`, `pictures` (the viewer's data) and the files
`head.html`, `template.html`, `style.css`, `charts.js` and `viewer.js`; `bits` says where in an image the bits go.
"""
