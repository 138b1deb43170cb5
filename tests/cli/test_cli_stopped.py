"""Ctrl-C in every phase of a sweep: exit 130 with the command that goes on, which comes to the same table."""

from __future__ import annotations

import os
import signal

import pytest
from fault_runs import EVERY_PHASE, assert_nothing_lost, at_phase, kept, table

from tomebench.sweeps import timing

pytestmark = pytest.mark.usefixtures("quick_sweeps")

MOMENTS = [
    ("load", 0),
    ("compile", 0),
    ("compile", 1),
    ("warm-up", 0),
    ("timing", 0),
    ("timing", 1),
    ("memory", 0),
    ("end-to-end", 0),
    ("end-to-end", 1),
    ("accuracy", 0),
    ("accuracy", 2),
]
"""Phase, and how much of it was done."""
AFTER_TIMING = ("memory", "end-to-end", "accuracy")


def test_at_phase_notices_a_phase_that_never_comes(program):
    with pytest.raises(AssertionError, match="the phase accuracy has 0 moments"), at_phase("accuracy", 0, print):
        assert program("plan", "--model", "digits_vit", "--r", "0").code == 0


def test_nothing_lost_notices_a_lost_round(undisturbed):
    rounds, chunks = kept(undisturbed)
    assert_nothing_lost(undisturbed, (rounds[:1], chunks))
    with pytest.raises(AssertionError):
        assert_nothing_lost(undisturbed, (rounds[1:], {}))
    with pytest.raises(AssertionError):
        assert_nothing_lost(undisturbed, ([], {0: chunks[1]}))


@pytest.mark.parametrize(
    ("phase", "units", "number"),
    [(*moment, signal.SIGINT) for moment in MOMENTS] + [("timing", 1, signal.SIGTERM), ("accuracy", 2, signal.SIGTERM)],
)
def test_a_sweep_stopped_in_a_phase_goes_on_to_the_same_table(program, undisturbed, tmp_path, phase, units, number):
    with at_phase(phase, units, lambda: os.kill(os.getpid(), number)):
        result = program(*EVERY_PHASE)
    assert (result.code, result.out) == (130, "")
    again = "go on with: tomebench " + " ".join(EVERY_PHASE)
    assert result.error == f"tomebench: interrupted; what was done is kept. {again}"
    before = kept(tmp_path / "run")
    assert len(before[0]) == (units if phase == "timing" else 2 if phase in AFTER_TIMING else 0)
    assert len(before[1]) == (units if phase == "accuracy" else 0)
    assert not (tmp_path / "run" / "table.csv").exists()
    assert program(*EVERY_PHASE).code == 0
    assert_nothing_lost(tmp_path / "run", before)
    assert table(tmp_path / "run") == table(undisturbed)


def test_a_resumed_sweep_warms_up_anew_and_its_rounds_carry_their_session(program, tmp_path, monkeypatch):
    warmed, warm_up = [], timing.warm_up

    def noted(*arguments, **options):
        warmed.append(len(kept(tmp_path / "run")[0]))
        return warm_up(*arguments, **options)

    monkeypatch.setattr(timing, "warm_up", noted)
    with at_phase("timing", 1, lambda: os.kill(os.getpid(), signal.SIGINT)):
        assert program(*EVERY_PHASE).code == 130
    assert program(*EVERY_PHASE).code == 0
    assert warmed == [0, 1]
    assert [round_.session for round_ in kept(tmp_path / "run")[0]] == [1, 2]


def test_a_signal_after_the_last_measurement_still_writes_the_report(program, undisturbed, tmp_path):
    with at_phase("accuracy", 3, lambda: os.kill(os.getpid(), signal.SIGINT)):
        assert program(*EVERY_PHASE).code == 0
    assert table(tmp_path / "run") == table(undisturbed)
