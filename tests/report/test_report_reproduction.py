"""Reported beside measured as text: columns, marks and what stands below, by hand."""

from __future__ import annotations

import dataclasses

import pytest
from report_rows import make_row

from tomebench.paper.comparison import Cost, Found, Line, Shape, compare
from tomebench.paper.tables import TABLES
from tomebench.paper.verdicts import Counted
from tomebench.report.reproduction import context_table, latex_text, layout, line_object, markdown_text, summary

SHAPE = Shape(width=384, depth=12, patch=16, tokens=197, prefix=1, image_size="224")


def tokens(r: int) -> tuple[int, ...]:
    return tuple(197 - r * block for block in range(1, 13))


def run(name: str, *values: int, correct: dict[int, int] | None = None, images: int = 50_000) -> Found:
    """A run of ViT-S with some values of r, timed and evaluated where ``correct`` says so."""
    costs = [Cost(r, "constant", {"prop_attn": "on"}, {0: 4.6, 13: 2.7}[r], 1.7, tokens(r), tokens(r)) for r in values]
    rows, counted = {}, {}
    for place, r in enumerate(values):
        if correct and r in correct:
            speed = {"speedup_vs_r0": 1.6, "speedup_vs_r0_lo": 1.5, "speedup_vs_r0_hi": 1.7, "img_per_s": 100.0}
            rows[place] = make_row(r=r, top1=100 * correct[r] / images, top1_correct=correct[r], n_seen=images, **speed)
            counted[place] = Counted(correct[r], images, images == 50_000)
    return Found(name, f"{name}: vit", SHAPE, "on", costs, rows=rows, counted=counted)


def lines(*runs: Found, table: str = "augreg", static: bool = False) -> list[Line]:
    return compare(TABLES[table], runs, static=static)


def test_verdicts_and_columns_of_a_measured_run() -> None:
    found = lines(run("s_224", 0, 13, correct={0: 40_705, 13: 39_500}))
    shown = layout("AugReg", found[:2], "top-1", {})
    assert [head.alone or head.name for head in shown.heads] == [
        "r", "top-1 reported", "top-1", "images", "img/s", "speed-up reported", "speed-up [95%]", "MAC ratio",
        "GMACs reported", "GMACs", "tokens", "verdict",
    ]  # fmt: skip
    ((part, (first, second)),) = shown.parts
    assert part == "s_224: vit"
    assert first == (
        "0", "81.41", "81.41", "+0", "100.0", "1.00x", "1.60x", "1.70x", "4.6", "4.60", "197", "reproduced"
    )  # fmt: skip
    assert second[:4] == ("13", "79.30", "79.00", "-150")
    assert second[6] == "1.60x [1.50, 1.70]"
    assert second[-1] == "top-1 differs"
    assert shown.notes[0] == (
        "s_224: vit, r = 13: 39500 of 50000 right, -150 images (-0.30 points), more than the 25 that may differ"
    )
    assert shown.notes[-1] == "reported: facebookresearch/ToMe README.md (exact); V100"
    assert summary(found[:2]) == "1 reproduced, 1 differs"


def test_a_baseline_that_differs_names_the_settings_to_look_at() -> None:
    (base, _, *_) = lines(run("s_224", 0, 13, correct={0: 40_000}))
    assert "look at the weights and at crop" in layout("AugReg", [base], "top-1", {}).notes[0]


def test_costs_that_are_not_the_papers_differ() -> None:
    wrong = run("s_224", 0, 13)
    other = dataclasses.replace(wrong.costs[1], gmacs=2.85, seen=(*tokens(13)[:-1], 40))
    (_, line, *_) = lines(dataclasses.replace(wrong, costs=[wrong.costs[0], other]), static=True)
    assert [finding.quantity for finding in line.findings if finding.verdict == "differs"] == ["GMACs", "tokens"]
    (part,) = layout("t", [line], "top-1", {}).parts
    assert "GMACs, tokens differ" in part[1][0]


def test_what_cannot_be_compared_is_marked_once_and_explained() -> None:
    found = lines(table="pruning")
    missing = {"pruning/deit_s": ("images: none", "weights: none"), "pruning/augreg_s": ("images: none",)}
    shown = layout("Pruning", found, "top-1", missing)
    verdicts = [row[[h.name for h in shown.heads].index("verdict")] for _, rows in shown.parts for row in rows]
    assert verdicts == ["no verdict (a)", "no verdict (b)", *["no verdict (a)"] * 3]
    assert shown.notes[:4] == (
        "(a) no cell of this run measures it",
        "(b) trained pruning, which is no method of this version",
        "not measured: pruning/deit_s, pruning/augreg_s: images: none",
        "not measured: pruning/deit_s: weights: none",
    )
    assert summary(found) == "5 without a verdict"


def test_an_ablation_says_once_what_all_its_lines_cost() -> None:
    shape = dataclasses.replace(SHAPE, width=1024, depth=24)
    cost = Cost(8, "constant", {"prop_attn": "off"}, 30.96, 1.99, (189,) * 24, (189,) * 24)
    found = compare(TABLES["matching"], [Found("mae_l", "mae_l: vit", shape, "off", [cost])], static=True)
    shown = layout("Matching", found, "top-1", {}, by_choice=True)
    assert [head.alone or head.name for head in shown.heads] == [
        "choice", "top-1 reported", "speed-up reported", "verdict",
    ]  # fmt: skip
    assert ("Matching algorithm", "bipartite matching (default)") in {(part, rows[0][0]) for part, rows in shown.parts}
    assert "r = 8: 30.96 GMACs, reported 31.0; MAC ratio 1.99x; 189 tokens after the last block" in shown.notes


def test_words_are_left_aligned_and_a_long_table_is_one_for_each_part() -> None:
    runs = [run(f"s_{place}", 0, 13) for place in range(20)]
    shown = layout("Long", lines(*runs, static=True), "top-1", {})
    text = markdown_text(shown, context_table([]), [])
    rule = next(line for line in text.splitlines() if line.startswith("| -"))
    aligned = dict(zip([h.alone or h.name for h in shown.heads], rule.strip("| ").split(" | "), strict=True))
    assert aligned["r"].endswith(":")
    assert not aligned["verdict"].endswith(":")
    assert latex_text(shown, ["last"]).count(r"\begin{table*}") == 21  # and what is only reported
    assert latex_text(dataclasses.replace(shown, parts=shown.parts[:3]), ["last"]).count(r"\begin{table*}") == 1


@pytest.mark.parametrize(("images", "verdict"), [(300, "partial data"), (50_000, "reproduced")])
def test_partial_data(images: int, verdict: str) -> None:
    (line, *_) = lines(run("s_224", 0, correct={0: round(0.8141 * images)}, images=images))
    assert line_object(line)["verdict"] == verdict
    assert line.open == (verdict == "partial data")


def test_text_from_outside_stays_text() -> None:
    (line, *_) = lines(run("s_224", 0), static=True)
    line = dataclasses.replace(line, part="<b>|x_ & y</b>", label="*x*")
    shown = layout("a <i> & _b_", [line], "top-1", {"x": ("<script>",)})
    text = markdown_text(shown, context_table(TABLES["swag"].remeasured()), ["device: <x>"])
    for bad in ("<b>", "<i>", "<script>", "<x>", "*x*", "|x_ &"):
        assert bad not in text.replace("\\*", "")
    assert "Measured by others, for context" in text
    latex = latex_text(shown, ["50 %"])
    assert r"50 \%" in latex
    assert r"a \textless{}i\textgreater{} \& \_b\_" in latex
