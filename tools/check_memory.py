# SPDX-License-Identifier: Apache-2.0
"""Does the memory of one process grow that encodes pictures of ever other sizes?

    python tools/check_memory.py
    python tools/check_memory.py --seconds inf   as if nothing were given back

It prints the resident memory as it goes, and its median and peak by quarter as JSON. Linux only.
"""

from __future__ import annotations

import json
import math
import os
import resource
import statistics
import time
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from vqcodec.codec import load_model
from vqcodec.model import memory


@click.command(help=__doc__)
@click.option("--model", default="", help="Use this model; the default one if none.")
@click.option("--number", default=200, show_default=True, help="Of pictures.")
@click.option("--smallest", default=64, show_default=True, help="Side, in pixels.")
@click.option("--largest", default=1200, show_default=True, help="Side, in pixels.")
@click.option("-e", "--effort", default=1, show_default=True)
@click.option("--decode", is_flag=True, help="Decode each file, too.")
@click.option("--seconds", default=memory.SECONDS, show_default=True, help="Give memory back after so much work.")
def main(model: str, number: int, smallest: int, largest: int, effort: int, decode: bool, seconds: float) -> None:
    memory.SECONDS = seconds
    torch.set_num_threads(1)
    codec, rng = load_model(model or None, "cpu"), np.random.default_rng(0)
    sizes, begun, pixels = [], time.process_time(), 0
    for i in range(number):
        width, height = (int(math.exp(rng.uniform(math.log(smallest), math.log(largest)))) for _ in range(2))
        y, x = np.mgrid[:height, :width]
        picture = np.stack([127 + 100 * np.sin(x * a + y * b) for a, b in rng.uniform(-0.1, 0.1, (3, 2))], 2)
        data = codec.encode(Image.fromarray(picture.astype(np.uint8)), effort=effort, fallback=False)
        if decode:
            codec.decode(data)
        pixels += width * height
        sizes.append(resident() >> 20)
        if i % 10 == 9:
            click.echo(f"{i + 1} pictures: {sizes[-1]} MB", err=True)
    quarters = [sizes[first * number // 4 : (first + 1) * number // 4] for first in range(4)]
    report = {
        "median MB by quarter": [statistics.median(quarter) for quarter in quarters if quarter],
        "highest MB by quarter": [max(quarter) for quarter in quarters if quarter],
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "megapixels": round(pixels / 1e6, 1),
        "processor seconds": round(time.process_time() - begun, 1),
    }
    click.echo(json.dumps(report, indent=1))


def resident() -> int:
    """Resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
