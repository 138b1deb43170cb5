"""Where a sweep goes: on in the folder of its run, to a numbered one, or nowhere, with a line that says why."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_runs import table

_SETTINGS = "--model digits_vit --img-size 28 --r 0,8 --batch-size 2 --device cpu --threads 1"
SWEEP = ["sweep", *_SETTINGS.split()]
USUAL = Path("results/digits_vit-tome")


def folders() -> list[str]:
    return sorted(path.name for path in Path("results").iterdir())


@pytest.fixture(autouse=True)
def quick(quick_sweeps: None) -> None:
    """Sweeps in a moment."""


def test_other_settings_take_the_first_numbered_folder_that_fits(program):
    assert program(*SWEEP).code == 0
    said = f'{USUAL} holds a run with other settings (dtype: "fp32" -> "bf16"); this one is in {USUAL}-2'
    result = program(*SWEEP, "--dtype", "bf16")
    assert result.code == 0
    assert said in result.err
    assert f"written to {USUAL}-2: " in result.out
    again = program(*SWEEP, "--dtype", "bf16", "--r", "0,4")
    assert (again.code, said in again.err) == (0, True)
    assert table(Path(f"{USUAL}-2"), "r") == [{"r": 0}, {"r": 4}, {"r": 8}]

    Path(f"{USUAL}-3").mkdir()
    (Path(f"{USUAL}-3") / "notes.txt").write_text("mine")
    assert f"results would go to {USUAL}-4" in program("plan", *SWEEP[1:], "--seed", "1").out
    assert f"seed: 0 -> 1); this one is in {USUAL}-4" in program(*SWEEP, "--seed", "1").err
    assert folders() == ["digits_vit-tome", *(f"digits_vit-tome-{number}" for number in (2, 3, 4))]

    more = program(*SWEEP, "--r", "0,4")
    assert (more.code, "other settings" in more.err) == (0, False)
    assert table(USUAL, "r") == [{"r": 0}, {"r": 4}, {"r": 8}]
    assert "tomebench sweep --model digits_vit --img-size 28 --r 0..8:4 " in (USUAL / "summary.md").read_text()


@pytest.mark.parametrize("naming", [("--out", str(USUAL)), ("--name", USUAL.name)])
def test_a_folder_that_was_named_is_kept_as_it_is(program, naming):
    assert program(*SWEEP).code == 0
    before = (USUAL / "run.sqlite").read_bytes()
    result = program(*SWEEP, "--dtype", "bf16", "--r", "0,4", "--quiet", *naming)
    assert result.code == 2
    assert (
        f'{USUAL} holds a run with other settings (dtype: "fp32" -> "bf16"); use --out another folder' in result.error
    )
    assert (USUAL / "run.sqlite").read_bytes() == before
    assert folders() == [USUAL.name]
    assert program(*SWEEP, "--r", "0,4", "--quiet", *naming).code == 0
    assert table(USUAL, "r") == [{"r": 0}, {"r": 4}, {"r": 8}]


def test_a_name_that_nobody_typed_is_numbered(program):
    demo = ("demo", "--budget", "none", "--device", "cpu", "--r", "0", "--quiet")
    assert [program(*demo, "--limit", str(limit)).code for limit in (4, 8)] == [0, 0]
    assert folders() == ["demo", "demo-2"]
    assert program(*demo, "--limit", "4", "--name", "demo-2").code == 2


def test_a_folder_of_other_things_is_left_alone(program):
    USUAL.mkdir(parents=True)
    (USUAL / "notes.txt").write_text("mine")
    result = program(*SWEEP)
    assert (result.code, f"{USUAL} holds other files; this one is in {USUAL}-2" in result.err) == (0, True)
