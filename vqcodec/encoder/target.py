# SPDX-License-Identifier: Apache-2.0
"""The weight of a bit at which a file has a given size, or a picture a given likeness, in few passes.

Sizes fall nearly as a power of the weight, and those of the lowest effort differ by nearly the same factor everywhere.
So the weight is looked for among such estimates first; then files are made in earnest.
"""

from __future__ import annotations

import math
from collections.abc import Callable

PRECISION = 0.99  # of the target: a file between this and 1 is near enough
AIM = 0.996  # of the target
ENOUGH = 0.97  # of the target, after PASSES
PASSES = 4  # files made in earnest; more only if none of these fits well enough
MORE = 4
ESTIMATES = 6
NEAR = 0.08  # of an estimate's logarithm: then its power law is trusted
USUAL = 0.95  # bytes of a file against its estimate
POWER = -0.6  # of sizes against weights, until two are known
POWERS = (-2.0, -0.2)  # that are believed

LIKENESSES = {"psnr": 0.2, "ssimulacra2": 0.05}  # names, and how much of a unit is a unit of a size's logarithm
HIGHEST = 100.0  # likeness, of equal pictures

Points = list[tuple[float, float]]  # logarithms of weights and sizes


def search(
    size: Callable[[float], float],
    estimate: Callable[[float], float],
    target: float,
    lmbdas: tuple[float, float],
    fixed: float = 0.0,
) -> float:
    """Search the weight of a bit of the largest file of at most `target` bytes that was made.

    Args:
        size: makes a file at a weight and gives its bytes.
        estimate: the bytes of one of the lowest effort.
        target: bytes.
        lmbdas: lowest and highest weight that the model was trained for; the search goes beyond.
        fixed: bytes of a file that have nothing to do with the weight.

    Returns: infinity if no file is so small.
    """
    ends = math.log(lmbdas[0] / 64), math.log(lmbdas[1] * 16)
    if target <= fixed:
        return math.inf
    wanted = math.log(target - fixed)
    start = (math.log(lmbdas[0]) + math.log(lmbdas[1])) / 2
    weight, power = _estimated(estimate, wanted - math.log(USUAL), start, ends, fixed)
    best, largest = math.inf, -math.inf
    points: Points = []
    for attempt in range(PASSES + MORE):
        size_log = math.log(max(1.0, size(math.exp(weight)) - fixed))
        points.append((weight, size_log))
        if largest < size_log <= wanted:
            best, largest = weight, size_log
        near = largest >= wanted + math.log(PRECISION)
        hopeless = size_log > wanted and weight >= ends[1]
        enough = attempt + 1 >= PASSES and largest >= wanted + math.log(ENOUGH)
        if near or enough or hopeless or (largest >= size_log and weight <= ends[0]):
            break
        aim = wanted + math.log(AIM)
        if best == math.inf and attempt + 2 >= PASSES:  # the next must fit
            aim -= 0.02 * 3.0 ** (attempt + 2 - PASSES)
        weight = min(ends[1], max(ends[0], _expected(points, aim, power)))
        if any(abs(weight - other) < 1e-6 for other, _ in points):
            break
    return math.exp(best)


def reach(
    likeness: Callable[[float], float],
    estimate: Callable[[float], float],
    target: float,
    unit: float,
    lmbdas: tuple[float, float],
) -> float:
    """Search the highest weight of a bit, of those that were tried, at which a picture is as like its original as
    asked.

    Likeness falls with the logarithm of the weight nearly as a line, as that of sizes does: what `search` looks for is
    the largest exp(unit * -likeness) not above the target's, over the inverse of the weight.

    Args:
        likeness: makes a picture at a weight and compares it, larger is better.
        estimate: of one of the lowest effort.
        target: at least so like.
        unit: of a likeness, as of `LIKENESSES`.
        lmbdas: lowest and highest weight that the model was trained for.

    Returns: 0 if no picture is so like.
    """

    def size(of: Callable[[float], float]) -> Callable[[float], float]:
        return lambda inverse: math.exp(unit * (HIGHEST - min(HIGHEST, of(1 / inverse))))

    wanted = math.exp(unit * (HIGHEST - min(HIGHEST, target)))
    return 1 / search(size(likeness), size(estimate), wanted, (1 / lmbdas[1], 1 / lmbdas[0]))


def _estimated(
    estimate: Callable[[float], float], wanted: float, start: float, ends: tuple[float, float], fixed: float
) -> tuple[float, float]:
    """Logarithm of the weight at which the estimate's is the wanted one, and the power there."""
    points: Points = []
    weight, power = start, POWER
    for _ in range(ESTIMATES):
        points.append((weight, math.log(max(1.0, estimate(math.exp(weight)) - fixed))))
        power = _power(points, wanted, POWER)
        off = abs(points[-1][1] - wanted)
        weight = min(ends[1], max(ends[0], _expected(points, wanted, POWER)))
        if (off < NEAR and len(points) > 1) or any(abs(weight - other) < 1e-3 for other, _ in points):
            break
    return weight, power


def _power(points: Points, wanted: float, usual: float) -> float:
    """Of the power law through the two points next to the wanted size, one on either side if there are."""
    nearest = sorted(points, key=lambda point: abs(point[1] - wanted))
    weight, size = nearest[0]
    others = sorted(nearest[1:], key=lambda point: (point[1] > wanted) == (size > wanted))
    for other_weight, other_size in others:
        if other_weight != weight:
            return min(POWERS[1], max(POWERS[0], (other_size - size) / (other_weight - weight)))
    return usual


def _expected(points: Points, wanted: float, usual: float) -> float:
    """Logarithm of the weight where the size is expected, strictly between the nearest points on either side."""
    # Of points of one size that on the side of the wanted one: from the other the way would lead to it again.
    weight, size = min(points, key=lambda point: (abs(point[1] - wanted), point[0] * (-1 if point[1] > wanted else 1)))
    weight += (wanted - size) / _power(points, wanted, usual)
    above = max((w for w, s in points if s > wanted), default=-math.inf)
    below = min((w for w, s in points if s <= wanted), default=math.inf)
    if above < below < math.inf and above > -math.inf:
        margin = 0.03 * (below - above)
        weight = min(below - margin, max(above + margin, weight))
    return weight
