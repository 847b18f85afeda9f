"""Names in files and in models: which correspond, after at most one change of prefix."""

from __future__ import annotations

import pytest

from landscope.formats.tensor_names import match_names

MODEL = {"0.weight": (2, 3), "0.bias": (2,), "1.weight": (1, 2)}
Shapes = dict[str, tuple[int, ...]]


def under(prefix: str, shapes: Shapes = MODEL) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("model", "file", "removed", "added"),
    [
        ("", "", "", ""),
        ("", "module.", "module.", ""),
        ("", "_orig_mod.", "_orig_mod.", ""),
        ("", "module._orig_mod.", "module._orig_mod.", ""),
        ("", "_orig_mod.module.", "_orig_mod.module.", ""),
        ("", "model.", "model.", ""),
        ("", "model.net._orig_mod.", "model.net._orig_mod.", ""),
        ("module.", "", "", "module."),
        ("model.backbone.", "", "", "model.backbone."),
        ("module.", "module.", "", ""),
        ("module.", "_orig_mod.", "_orig_mod.", "module."),
        ("net.", "model.", "model.", "net."),
    ],
)
def test_one_prefix_is_removed_and_one_is_added(
    model: str, file: str, removed: str, added: str
) -> None:
    match = match_names(under(model), under(file))
    assert (match.errors, match.removed, match.added) == (0, removed, added)
    assert match.sources == {model + name: file + name for name in MODEL}
    assert (match.left_out, match.others) == ((), ())


def test_wrappers_inside_names_are_removed_on_both_sides() -> None:
    file = {"0._orig_mod.weight": (2, 3), "0._orig_mod.bias": (2,), "1.module.weight": (1, 2)}
    match = match_names(MODEL, file)
    assert match.errors == 0
    assert list(match.sources.values()) == list(file)
    assert match_names(file, MODEL).errors == 0


def test_parts_outside_the_prefix_are_left_out() -> None:
    match = match_names(MODEL, {**under("model."), "loss.weight": (3,)})
    assert (match.errors, match.left_out) == (0, ("loss.weight",))


def test_without_a_prefix_every_name_must_be_known() -> None:
    match = match_names(MODEL, {**MODEL, "2.weight": (1,)})
    assert (match.errors, match.unexpected) == (1, ("2.weight",))
    assert match_names(MODEL, {**MODEL, "2.weight": (1,)}, strict=False).errors == 0


@pytest.mark.parametrize("copies", ["ema_model.", "teacher.", "target_net.", "momentum."])
@pytest.mark.parametrize("first", [True, False])
def test_the_network_comes_before_its_copies(copies: str, *, first: bool) -> None:
    file = {**under(copies), **under("net.")} if first else {**under("net."), **under(copies)}
    match = match_names(MODEL, file)
    assert (match.errors, match.removed, match.others) == (0, "net.", (copies,))


def test_a_small_part_of_a_large_network_does_not_fit() -> None:
    layers = {f"layers.{k}.{n}": (5, 5) for k in range(3) for n in ("weight", "extra")}
    match = match_names({"weight": (5, 5)}, layers)
    assert match.missing == ("weight",)
    assert match.removed == ""


@pytest.mark.parametrize("prefix", ["", "model."])
def test_what_differs_is_named_under_the_nearest_prefix(prefix: str) -> None:
    match = match_names(MODEL, under(prefix, {**MODEL, "0.bias": (9,)}))
    assert (match.removed, match.misshapen, match.missing) == (prefix, ("0.bias",), ())


def test_one_of_the_names_of_a_tied_tensor_is_enough() -> None:
    both = frozenset(("embed", "head"))
    tied = {"embed": both, "head": both}
    shapes = {"embed": (4,), "head": (4,), "bias": (2,)}
    file = {"model.head": (4,), "model.bias": (2,)}
    match = match_names(shapes, file, tied)
    assert match.sources == {"head": "model.head", "bias": "model.bias"}
    assert match_names(shapes, file).missing == ("embed",)


def test_two_names_that_wrappers_alone_distinguish_stay_apart() -> None:
    model: Shapes = {"module.w": (1,), "w": (2,)}
    assert match_names(model, model).sources == {n: n for n in model}
    assert match_names(model, under("a.", model)).sources == {n: f"a.{n}" for n in model}
