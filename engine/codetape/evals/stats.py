"""The statistics of a paired comparison: exact where possible, seeded elsewhere, with the standard library alone.

The unit is the task. Each difference is one task's solve rate in the candidate minus that in the control.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import compress
from math import ceil, comb, exp, lcm, lgamma, log, sqrt
from statistics import NormalDist, pstdev

_EXACT_SUMS = 200_000  # a sign-flip distribution of more sums than these is drawn, not counted
_DRAWS = 20_000
_MOST_TASKS = 1_000_000
_EXACT_STEPS = 1_000_000  # of a bootstrap: beyond them draws are sampled
_LEAST_CHANCE = 1e-250
_EXACT_CHANGED = 1_000  # beyond so many changed tasks the normal approximation replaces exact tails


def mcnemar(worse: int, better: int) -> float:
    """Return the exact two-sided p of a paired comparison with one attempt a side, from the tasks that changed.

    Source: McNemar 1947, as a binomial test of the discordant pairs.
    """
    changed = worse + better
    tail = sum(comb(changed, i) for i in range(min(worse, better) + 1))
    return min(1.0, float(Fraction(2 * tail, 2**changed))) if changed else 1.0


_TOP_BIT = bytes(128) + b"\1" * 128


def sign_flip(differences: Sequence[Fraction], *, seed: int = 0) -> float:
    """Return the two-sided p of a mean difference: how often it is as large if a coin gave each task its sign.

    Exact as long as the distribution of sums is small; sampled with a fixed seed beyond that.
    """
    nonzero = [d for d in differences if d]  # a zero has no sign to flip
    if not nonzero:
        return 1.0
    scale = lcm(*(d.denominator for d in nonzero))
    sizes = [int(abs(d) * scale) for d in nonzero]
    observed = abs(int(sum(nonzero) * scale))
    total = sum(sizes)
    if total * len(sizes) > _EXACT_SUMS * 50:
        draw = random.Random(seed)  # noqa: S311 - a permutation test, no secret
        hits = 0
        for _ in range(_DRAWS):
            # the top bit of each word of 32: what as many draws of a single bit would give
            words = draw.getrandbits(32 * len(sizes)).to_bytes(4 * len(sizes), "little")
            positive = sum(compress(sizes, words[3::4].translate(_TOP_BIT)))
            hits += abs(2 * positive - total) >= observed
        return (hits + 1) / (_DRAWS + 1)  # the observed signs count as one draw: a sampled p is never 0
    if not observed:
        return 1.0
    # the product of (1 + x**size) has at x**k how many choices of signs let the positive ones sum up to k; as one integer,
    # so many bits a coefficient that none reaches into the next
    bits, product = len(sizes) + 1, 1
    for size in sizes:
        product += product << (size * bits)
    as_low = product & ((1 << (bits * ((total - observed) // 2 + 1))) - 1)
    choices = as_low % ((1 << bits) - 1)  # the sum of its coefficients
    return float(Fraction(2 * choices, 2 ** len(sizes)))


def bootstrap(differences: Sequence[Fraction], *, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Return a percentile interval of the mean difference, tasks drawn with replacement.

    Exact as long as the distribution of the drawn mean is small; sampled with a fixed seed beyond that.
    """
    if not differences:
        return 0.0, 0.0
    cut = (1 - level) / 2
    exact = _drawn_means(differences)
    if exact is not None:
        return _quantile(exact, cut), _quantile(exact, 1 - cut)
    values = [float(d) for d in differences]
    size, rounds = len(values), max(1000, min(10_000, 1_000_000 // len(values)))
    pick = random.Random(seed).random  # noqa: S311 - likewise
    means = sorted(sum([values[int(pick() * size)] for _ in values]) / size for _ in range(rounds))
    return means[int(cut * rounds)], means[min(rounds - 1, int((1 - cut) * rounds))]


def _drawn_means(differences: Sequence[Fraction]) -> list[tuple[float, float]] | None:
    """Return each mean that so many draws with replacement can have, and its chance; None where they are too many."""
    scale, size = lcm(*(d.denominator for d in differences)), len(differences)
    counts = Counter(int(d * scale) for d in differences)
    least, most = min(counts), max(counts)
    if size * size * (most - least) * len(counts) > 2 * _EXACT_STEPS:
        return None
    chances = [1.0]
    for _ in range(size):
        step = [0.0] * (len(chances) + most - least)
        for value, count in counts.items():
            share, shift = count / size, value - least
            for position, chance in enumerate(chances, shift):
                step[position] += chance * share
        chances = step
    return [((size * least + position) / (scale * size), chance) for position, chance in enumerate(chances)]


def _quantile(distribution: list[tuple[float, float]], share: float) -> float:
    """Return the least value that at least this share of the distribution does not exceed."""
    reached = 0.0
    for value, chance in distribution:
        reached += chance
        if reached >= share - 1e-12:
            return value
    return distribution[-1][0]


def wilson(rate: float, count: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a rate over a count of independent units. Source: Wilson 1927."""
    if not count:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * sqrt(max(0.0, rate * (1 - rate) / count + z * z / (4 * count * count)))
    return max(0.0, middle - half), min(1.0, middle + half)


def pass_at_k(attempts: int, solved: int, k: int) -> float:
    """Return the unbiased estimate of solving a task with the best of k attempts. Source: Chen et al. 2021."""
    if not 0 <= solved <= attempts or not 1 <= k <= attempts:
        raise ValueError(f"pass@{k} cannot be told from {solved} of {attempts}")
    return float(1 - Fraction(comb(attempts - solved, k), comb(attempts, k)))


# ---- power


@cache
def power(tasks: int, worse: float, better: float, *, alpha: float = 0.05) -> float:
    """Return the power of `mcnemar` for so many tasks, each of which turns worse or better with these chances."""
    changed = worse + better
    if not changed:
        return 0.0
    # ten standard deviations either side: the binomial weight beyond them is too small to add anything
    spread = 10 * sqrt(tasks * changed * max(1e-9, 1 - changed)) + 10
    low, high = max(0, int(tasks * changed - spread)), min(tasks, int(tasks * changed + spread))
    weights = zip(range(low, high + 1), _binomials(tasks, low, changed), strict=False)
    return sum(weight * _detects(n, worse / changed, alpha) for n, weight in weights)


@cache
def _detects(changed: int, worse: float, alpha: float) -> float:
    critical = _critical(changed, alpha)
    if critical is None:
        return 0.0
    if changed > _EXACT_CHANGED and 0 < worse < 1:
        mean, deviation = changed * worse, sqrt(changed * worse * (1 - worse))
        return 1 - NormalDist(mean, deviation).cdf(critical - 0.5)
    return sum(_binomials(changed, critical, worse))


@cache
def _critical(changed: int, alpha: float) -> int | None:
    """Return how many of the changed tasks must have turned worse for a p of at most alpha; None if even all do not.

    Where tasks are many, by the normal approximation with continuity correction.
    """
    if changed > _EXACT_CHANGED:
        return ceil(changed / 2 + (NormalDist().inv_cdf(1 - alpha / 2) * sqrt(changed) + 1) / 2)
    tail, critical = 0, None
    total = Fraction(alpha) * 2**changed  # exact: with a thousand tasks the counts come near the largest float
    for better in range(changed // 2 + 1):
        tail += comb(changed, better)
        if 2 * tail > total or 2 * better >= changed:
            break
        critical = changed - better
    return critical


def _binomial(n: int, k: int, p: float) -> float:
    if p <= 0 or p >= 1:
        return float(k == (0 if p <= 0 else n))
    return exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(p) + (n - k) * log(1 - p))


def _binomials(n: int, first: int, p: float) -> Iterator[float]:
    """Yield the chances of ``first`` to ``n`` hits, each from the one before."""
    chance = _binomial(n, first, p)
    if p <= 0 or p >= 1 or chance < _LEAST_CHANCE:  # so small that little of a float is left of it
        yield from (_binomial(n, k, p) for k in range(first, n + 1))
        return
    odds = p / (1 - p)
    for k in range(first, n + 1):
        yield chance
        chance *= (n - k) / (k + 1) * odds


@cache
def tasks_needed(worse: float, better: float, *, alpha: float = 0.05, wanted: float = 0.8) -> int:
    """Return how many tasks `mcnemar` needs to find such a drop with the ``wanted`` power.

    Raises ValueError where there is no drop.
    """
    if worse <= better:
        raise ValueError("there is no drop to find")
    low, high = 1, 8
    while power(high, worse, better, alpha=alpha) < wanted:
        low, high = high, high * 2
        if high > 20_000:
            return by_spread(sqrt(worse + better - (worse - better) ** 2), worse - better, alpha=alpha, wanted=wanted)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, worse, better, alpha=alpha) >= wanted else (middle, high)
    return high


def by_spread(spread: float, drop: float, *, alpha: float = 0.05, wanted: float = 0.8) -> int:
    """Return how many tasks it takes to find a mean difference of ``drop``, given the deviation of differences."""
    normal = NormalDist()
    factor = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(wanted)
    return min(_MOST_TASKS, max(6, ceil((factor * spread / drop) ** 2) + 2))


def power_by_spread(tasks: int, spread: float, drop: float, *, alpha: float = 0.05) -> float:
    """Return how likely a mean difference of ``drop`` is found in so many tasks, by the normal approximation."""
    if tasks < 6:  # five signs give a two-sided p of 1/16 at best, above 0.05
        return 0.0
    normal = NormalDist()
    return normal.cdf(drop * sqrt(tasks) / spread - normal.inv_cdf(1 - alpha / 2)) if spread else 1.0


def spread(differences: Sequence[Fraction]) -> float:
    """Return the standard deviation of tasks' differences."""
    return pstdev([float(d) for d in differences]) if len(differences) > 1 else 0.0
