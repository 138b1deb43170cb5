"""Codes that make a row doubtful, on seeded synthetic rounds."""

from __future__ import annotations

import numpy as np
import pytest

from tomebench.measure.validity import aa_failed, noisy
from tomebench.schema import SENTINEL, Burst, Round


def _rounds(n: int, seed: int, bias: float = 0.0, noise: float = 0.01) -> list[Round]:
    """n rounds of r0 and its sentinel; the sentinel slower by ``bias``, both with independent log-normal noise."""
    generator = np.random.default_rng(seed)
    times = 0.1 * np.exp(generator.normal([0, bias], noise, (n, 2)))
    return [Round(0, k, (Burst("r0", 4, 4 * a), Burst(SENTINEL, 4, 4 * b))) for k, (a, b) in enumerate(times)]


@pytest.mark.parametrize("bias", [0.05, -0.05])
@pytest.mark.parametrize("n", [6, 9, 10, 20])
def test_a_biased_sentinel_fails(n: int, bias: float) -> None:
    assert aa_failed(_rounds(n, seed=n, bias=bias), "r0")


@pytest.mark.parametrize("n", [6, 12])
def test_an_unbiased_sentinel_fails_about_one_time_in_twenty(n: int) -> None:
    failed = sum(aa_failed(_rounds(n, seed), "r0") for seed in range(500)) / 500
    assert 0.005 <= failed <= 0.10


def test_too_few_rounds_say_nothing() -> None:
    assert not aa_failed(_rounds(5, seed=0, bias=1.0), "r0")
    assert not aa_failed([], "r0")
    assert not aa_failed([Round(0, 0, (Burst("r0", 1, 1.0),))] * 10, "r0")  # no sentinel


def test_identical_times_are_not_a_bias() -> None:
    assert not aa_failed(_rounds(10, seed=0, noise=0.0), "r0")


def test_noisy_is_an_interquartile_range_over_a_tenth_of_the_median() -> None:
    def rounds(*times: float) -> list[Round]:
        return [Round(0, 0, (Burst("r0", 2, 2 * t),)) for t in times]

    assert not noisy(rounds(0.95, 0.95, 1.0, 1.04, 1.04), "r0")
    assert noisy(rounds(0.94, 0.94, 1.0, 1.05, 1.05), "r0")
    assert not noisy(rounds(1.0, 1.0, 1.0, 1.0, 99.0), "r0")  # one outlier is not noise
    assert not noisy(rounds(1.0), "other")
