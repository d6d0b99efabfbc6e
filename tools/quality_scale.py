# SPDX-License-Identifier: Apache-2.0
"""Does the quality scale keep its promises? On every image of some folders: size and PSNR rise with the quality, and
target sizes are hit from below. Exits with 1 where they do not.

    python tools/quality_scale.py FOLDER... --qualities 0,10,20,30,40,50,60,70,80,90,100 --targets 0.2,0.5
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from vqcodec.encoder.request import DEFAULT_EFFORT
from vqcodec.evaluation import metrics
from vqcodec.evaluation.measuring import load_rgb
from vqcodec.evaluation.workers import Workers
from vqcodec.images.listing import images_of


class Checked(NamedTuple):
    """Of one image. points: bytes and PSNR by rising quality. targets: bytes of the file over bytes asked for; 0 where
    the encoder said that it cannot reach the target."""

    name: str
    points: tuple[tuple[int, float], ...]
    targets: tuple[float, ...]

    @property
    def falls(self) -> int:
        """How often the next quality is no larger or no better."""
        pairs = zip(self.points, self.points[1:], strict=False)
        return sum(below[0] >= above[0] or below[1] >= above[1] for below, above in pairs)


def check(path: Path, model: str | None, effort: int, qualities: Sequence[float], targets: Sequence[float]) -> Checked:
    """Encode an image at all qualities and all targets.

    Args:
        path: of the image.
        model: name or path; None: the default model.
        effort: 1 to 9.
        qualities: 0 to 100.
        targets: bits per pixel.
    """
    from vqcodec import load_model
    from vqcodec.errors import ImageError

    codec = load_model(model)
    image = load_rgb(path)
    pixels, points, hits = np.asarray(image), [], []
    for quality in qualities:
        data = codec.encode(image, quality=quality, effort=effort, fallback=False)
        points.append((len(data), metrics.psnr(pixels, np.asarray(codec.decode(data)))))
    for bpp in targets:
        asked = math.floor(bpp * image.width * image.height / 8)
        try:
            hits.append(len(codec.encode(image, size=asked, effort=effort, fallback=False)) / asked)
        except ImageError:
            hits.append(0.0)
    return Checked(path.name, tuple(points), tuple(hits))


def numbers(_context: click.Context, _option: click.Parameter, value: str) -> tuple[float, ...]:
    """Parse comma-separated numbers, and sort them.

    Args:
        value: as it was given.
    """
    try:
        return tuple(sorted(float(item) for item in value.split(",") if item.strip()))
    except ValueError:
        raise click.BadParameter("give numbers as in 10,20,30") from None


@click.command(help=__doc__)
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", help="Use this model, a name or a path; the default model if not given.")
@click.option("-e", "--effort", default=DEFAULT_EFFORT, show_default=True)
@click.option("--qualities", default=",".join(str(q) for q in range(0, 101, 10)), show_default=True, callback=numbers)
@click.option("--targets", default="0.2,0.5", show_default=True, callback=numbers, help="Ask for these bits per pixel.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(1), help="Use N processes.")
def main(
    folders: tuple[Path, ...],
    model: str | None,
    effort: int,
    qualities: tuple[float, ...],
    targets: tuple[float, ...],
    jobs: int,
) -> None:
    bad = 0
    with Workers(jobs) as workers:
        for folder in folders:
            tasks = [(path, model, effort, qualities, targets) for path in images_of(folder)]
            checked = [image for _, image in sorted(workers.run(check, tasks))]
            steps = len(checked) * max(0, len(qualities) - 1)
            falls = sum(image.falls for image in checked)
            click.echo(f"{folder.name}: {len(checked)} images, {falls} of {steps} steps of the quality do not rise")
            for image in checked:
                if image.falls:
                    click.echo(f"  {image.name}: {' '.join(f'{s}/{p:.2f}' for s, p in image.points)}")
            bad += falls
            for i, bpp in enumerate(targets):
                fractions = [image.targets[i] for image in checked if image.targets[i]]
                missed = [image.name for image in checked if not image.targets[i]]
                wrong = sum(not 0.97 <= fraction <= 1 for fraction in fractions)
                span = f"{min(fractions):.4f} to {max(fractions):.4f} of the bytes asked for" if fractions else "none"
                click.echo(f"  target {bpp:g} bpp: {span}; out of reach for {len(missed)}: {', '.join(missed) or '-'}")
                bad += wrong
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
