"""What a model is called beside its weights."""

import dataclasses

from report_rows import make_row

from tomebench.report.conditions import compact_conditions, conditions
from tomebench.report.series import model_name, varying


def test_a_tag_names_published_weights_and_no_others():
    assert model_name("vit.in1k", "sha256:ab (pretrained)") == "vit.in1k"
    assert model_name("vit.in1k", "random:0") == "vit.in1k"
    assert model_name("vit.in1k", "sha256:ab") == "vit"
    assert model_name("python:vit", "sha256:ab") == "vit"


def test_own_weights_go_by_no_name_of_others_on_a_screen():
    row = make_row(8, model="vit.in1k", weights="sha256:" + "ab" * 32)
    assert compact_conditions([row]).startswith("vit, ")
    assert compact_conditions([row], "a/best.pth").startswith("vit with best.pth, ")
    assert conditions([row])[0].startswith("model: vit, weights sha256:abababababab…")
    handed_over = dataclasses.replace(row, model="python:vit", r=9)
    assert varying([row, handed_over]) == ()  # the same architecture and the same tensors


def test_options_are_told_apart_within_a_method_only() -> None:
    """What every row of a method has, the name of the method says; at r = 0 options have no effect."""
    base = make_row(r=0, method="pitome", options="prop_attn=true")
    own = [make_row(r=r, method="pitome", options="prop_attn=false") for r in (4, 8)]
    tome = make_row(r=4, method="tome", options="prop_attn=true")
    assert varying([base, *own, tome]) == ("method",)
    assert varying([base, *own]) == ("options",), "no method is named, to say it"
    assert varying([*own, make_row(r=4, options="metric=q prop_attn=true")]) == ("method", "options")
    other = make_row(r=4, method="tome", options="metric=q prop_attn=true")
    assert varying([base, *own, tome, other]) == ("method", "options")
    assert varying([tome, other]) == ("options",)
