"""Statistics of benchmarks: confidence intervals (95 %), paired speed-ups, exact tests; pure functions over numbers."""

from tomebench.stats.anytime import Differences, anytime_interval, anytime_p, evidence, foreseen, set_interval
from tomebench.stats.counts import (
    PairedDelta,
    clopper_pearson,
    fewest_images,
    mcnemar,
    paired_delta,
    paired_interval,
    student_t,
    student_tail,
    wilson,
)
from tomebench.stats.interval import LEVEL, MIN_VALUES, Interval
from tomebench.stats.processes import mean_half_width, process_medians, processes_needed
from tomebench.stats.series import MIN_BATCHED, Level, batch_half_width, batch_medians, level, quantile_interval
from tomebench.stats.shares import ShareDelta, Shares, share_delta, sign_flip
from tomebench.stats.speedups import (
    Estimate,
    Shift,
    log_ratios,
    mean_shift,
    median_interval,
    median_shift,
    rounds_needed,
    speedup,
)
from tomebench.stats.trend import Step, holm, largest_step, mann_kendall, modified_z, theil_sen

__all__ = [
    "LEVEL",
    "MIN_BATCHED",
    "MIN_VALUES",
    "Differences",
    "Estimate",
    "Interval",
    "Level",
    "PairedDelta",
    "ShareDelta",
    "Shares",
    "Shift",
    "Step",
    "anytime_interval",
    "anytime_p",
    "batch_half_width",
    "batch_medians",
    "clopper_pearson",
    "evidence",
    "fewest_images",
    "foreseen",
    "holm",
    "largest_step",
    "level",
    "log_ratios",
    "mann_kendall",
    "mcnemar",
    "mean_half_width",
    "mean_shift",
    "median_interval",
    "median_shift",
    "modified_z",
    "paired_delta",
    "paired_interval",
    "process_medians",
    "processes_needed",
    "quantile_interval",
    "rounds_needed",
    "set_interval",
    "share_delta",
    "sign_flip",
    "speedup",
    "student_t",
    "student_tail",
    "theil_sen",
    "wilson",
]
