"""The statistics against scipy's, and what is said of power against simulation."""

import random
from fractions import Fraction
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from codetape.evals import stats as ours

counts = st.integers(0, 60)


@given(counts, counts)
def test_mcnemar_is_the_binomial_test_of_what_changed(worse, better):
    expected = stats.binomtest(worse, worse + better).pvalue if worse + better else 1.0
    assert ours.mcnemar(worse, better) == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=9))
def test_sign_flips_are_counted_as_scipy_counts_them(values):
    differences = [Fraction(v, 3) for v in values]
    expected = stats.permutation_test(
        ([float(v) for v in values],),
        lambda x, axis: x.sum(axis=axis),
        permutation_type="samples",
        n_resamples=10_000,
    )
    if not any(values):
        assert ours.sign_flip(differences) == 1
    else:  # scipy doubles the smaller tail: of a symmetric distribution the same
        assert ours.sign_flip(differences) == pytest.approx(expected.pvalue, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("tasks", "drawn"), [(120, False), (300, True)])
def test_a_long_list_of_signs_is_counted_as_one_integer_or_drawn_and_comes_close(tasks, drawn):
    draw = random.Random(1)
    values = [Fraction(draw.randint(-997, 1003), 1009) for _ in range(tasks)]
    expected = stats.ttest_1samp([float(v) for v in values], 0).pvalue
    found = ours.sign_flip(values)
    assert found == pytest.approx(expected, abs=0.02)
    assert found == ours.sign_flip(values)
    assert (found == ours.sign_flip(values, seed=1)) is not drawn


@given(st.lists(st.fractions(-3, 3, max_denominator=5), max_size=8))
def test_signs_are_counted_as_by_trying_them_all(values):
    tried = [
        abs(sum(sign * d for sign, d in zip(signs, values, strict=True)))
        for signs in product((1, -1), repeat=len(values))
    ]
    assert ours.sign_flip(values) == float(Fraction(sum(t >= abs(sum(values)) for t in tried), len(tried)))


@given(st.integers(1, 500), st.data())
def test_wilson_is_scipys(count, data):
    solved = data.draw(st.integers(0, count))
    low, high = ours.wilson(solved / count, count)
    expected = stats.binomtest(solved, count).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_draws_that_hold_a_solved_one(attempts, data):
    solved, k = data.draw(st.integers(0, attempts)), data.draw(st.integers(1, attempts))
    outcomes = [1] * solved + [0] * (attempts - solved)
    draws = [any(draw) for draw in combinations(outcomes, k)]
    assert ours.pass_at_k(attempts, solved, k) == pytest.approx(sum(draws) / len(draws))


def test_pass_at_k_of_what_was_not_tried_is_refused():
    with pytest.raises(ValueError, match="cannot be told"):
        ours.pass_at_k(2, 1, 3)


@pytest.mark.slow
def test_the_bootstrap_covers_the_mean_about_as_often_as_it_says():
    draw, hits = random.Random(7), 0
    for trial in range(200):
        sample = [Fraction(draw.choice([-1, 0, 0, 1])) for _ in range(60)]
        low, high = ours.bootstrap(sample, seed=trial)
        hits += low <= 0 <= high
    assert 0.90 <= hits / 200 <= 0.99


def simulated(tasks, worse, better, trials, seed):
    """How often a drop is found in so many tasks, by drawing."""
    draw, found = random.Random(seed), 0
    for _ in range(trials):
        rolls = [draw.random() for _ in range(tasks)]
        down, up = sum(r < worse for r in rolls), sum(worse <= r < worse + better for r in rolls)
        found += down > up and ours.mcnemar(down, up) < 0.05
    return found / trials


@pytest.mark.parametrize(("tasks", "worse", "better"), [(20, 0.3, 0.05), (50, 0.2, 0.1), (120, 0.15, 0.05)])
def test_what_is_said_of_power_holds_by_simulation(tasks, worse, better):
    assert ours.power(tasks, worse, better) == pytest.approx(simulated(tasks, worse, better, 1500, tasks), abs=0.04)


@pytest.mark.parametrize(("worse", "better"), [(0.15, 0.05), (0.3, 0.2), (0.1, 0.0)])
def test_the_tasks_that_are_said_to_be_needed_are(worse, better):
    needed = ours.tasks_needed(worse, better)
    assert simulated(needed, worse, better, 1500, needed) > 0.76
    assert simulated(needed * 2 // 3, worse, better, 1500, needed) < 0.76


def test_no_drop_needs_no_tasks():
    with pytest.raises(ValueError, match="no drop"):
        ours.tasks_needed(0.1, 0.1)


@pytest.mark.slow
def test_the_tasks_for_a_mean_are_enough_by_simulation():
    draw, spread, drop = random.Random(3), 0.4, 0.1
    needed, found = ours.by_spread(spread, drop), 0
    for _ in range(400):
        sample = [Fraction(round(draw.gauss(-drop, spread) * 4), 4) for _ in range(needed)]
        found += ours.sign_flip(sample) < 0.05
    assert 0.72 <= found / 400 <= 0.92
    assert ours.power_by_spread(needed, spread, drop) == pytest.approx(0.8, abs=0.03)
    assert ours.power_by_spread(5, spread, drop) == 0


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (1, 0), (20, 0), (600, 500), (1500, 0), (0, 2500), (3000, 10)])
def test_a_change_that_breaks_or_mends_nearly_everything_has_a_verdict(worse, better):
    """Of thousands of changed tasks no figure is too large for a float."""
    assert 0 <= ours.mcnemar(worse, better) <= 1
    share = (worse + better + 1) / (worse + better + 2)
    for drop in (0.01, 0.1, share):
        chances = (share + drop) / 2, (share - drop) / 2
        assert 0 <= ours.power(worse + better, *chances) <= 1.000001
        assert ours.tasks_needed(*chances) > 0


def test_tails_are_the_same_counted_and_approximated(monkeypatch):
    counted = [(ours._critical.__wrapped__(n, 0.05), ours._detects(n, 0.53, 0.05)) for n in range(900, 1000, 20)]
    monkeypatch.setattr(ours, "_EXACT_CHANGED", 10)
    ours._critical.cache_clear()
    approximated = [(ours._critical.__wrapped__(n, 0.05), ours._detects(n, 0.53, 0.05)) for n in range(900, 1000, 20)]
    ours._critical.cache_clear()
    for (number, chance), (other, near) in zip(counted, approximated, strict=True):
        assert abs(number - other) <= 1
        assert abs(chance - near) < 0.03
