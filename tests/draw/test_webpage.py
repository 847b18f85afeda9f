"""The page in a real browser, without a network: what is drawn against the values that went in.

The browser is Chromium without a window, its WebGL drawn by the processor (SwiftShader). Where no
Chromium is on the PATH these tests are skipped; those of the file itself run everywhere.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright
from plotly.offline import get_plotlyjs

from landscope import draw
from landscope.draw import webpage
from landscope.errors import DrawError
from landscope.landscape import Landscape

WEB = Path(str(webpage.__file__)).parent / "web"
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for found in map(shutil.which, NAMES) if found), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
in_browser = pytest.mark.skipif(CHROMIUM is None, reason=f"none of {NAMES} is on the PATH")
# Where the value in row 3, column 9 of the first contour plot stands on the screen.
PLACE = """(() => {
  const plot = document.getElementById("contour-0"), {x, y} = plot.getBoundingClientRect();
  const {xaxis, yaxis} = plot._fullLayout, data = plot.data[0];
  return [x + xaxis._offset + xaxis.l2p(data.x[9]), y + yaxis._offset + yaxis.l2p(data.y[3])];
})()"""
SHIFT = """new Promise(done => new PerformanceObserver((list, watch) => {
  watch.disconnect(); done(list.getEntries().reduce((sum, entry) => sum + entry.value, 0));
}).observe({type: "layout-shift", buffered: true}) ?? setTimeout(() => done(0), 200))"""


@dataclass
class Visit:
    """A page that is open, with what it told the console and asked of the network."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __getitem__(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def after(self, act: Callable[[], object]) -> None:
        """Do something that draws anew, and wait until it is drawn."""
        before = self["landscope.drawings"]
        act()
        self.page.wait_for_function(f"landscope.drawings > {before}")

    def reset(self) -> None:
        self.after(self.page.locator("#reset").click)

    def scale(self, name: str) -> None:
        if self["landscope.scale"] != name:
            self.after(lambda: self.page.locator(f"input[value={name}]").check(force=True))

    def clip(self, share: float) -> float:
        """Move the slider to a share of its length, with the keyboard's events; the new clip."""
        slide = "(s, to) => { s.value = to; s.dispatchEvent(new Event('input')); }"
        self.after(lambda: self.page.locator("#clip").evaluate(slide, 1000 * share))
        return float(self["landscope.clip"])

    def heights(self, plot: str) -> np.ndarray:
        """What is drawn, with NaN for null."""
        rows = self[f"document.getElementById('{plot}').data[0].z"]
        return np.array(rows, dtype=np.float64)

    def text(self, selector: str) -> str:
        return " ".join(self.page.locator(selector).inner_text().split())


def exact(value: float) -> str:
    """All digits of a number, as the page writes them."""
    return repr(value).removesuffix(".0").replace("-", "\N{MINUS SIGN}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def visit(browser: Browser) -> Callable[..., contextlib.AbstractContextManager[Visit]]:
    """Open a file; when it is closed again nothing may have gone wrong on it."""

    @contextlib.contextmanager
    def opened(path: Path, before: str = "", **options: Any) -> Iterator[Visit]:
        guest = Visit(browser.new_page(**{"viewport": {"width": 1280, "height": 800}, **options}))

        def hear(message: ConsoleMessage) -> None:
            if message.type == "error":
                guest.complaints.append(message.text)

        def see(request: Request) -> None:
            guest.requests.append(request.url)

        guest.page.on("console", hear)
        guest.page.on("request", see)
        guest.page.on("pageerror", lambda error: guest.complaints.append(str(error)))
        guest.page.add_init_script(before or "0")
        guest.page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            guest.page.wait_for_function("window.landscope && landscope.ready")
        yield guest
        guest.page.close()
        assert guest.complaints == []
        outside = [url for url in guest.requests if not url.startswith(("data:", "blob:"))]
        assert outside == [path.as_uri()]

    return opened


Open = Callable[..., contextlib.AbstractContextManager[Visit]]


def small_bowl(title: str) -> Landscape:
    """11 x 9 values from 0.01 at the center to 1000, and an accuracy."""
    x, y = np.linspace(-1, 1, 11), np.linspace(-0.8, 0.8, 9)
    loss = 10 ** (5 * np.maximum(abs(x[None, :]), abs(y[:, None]) / 0.8) ** 1.3 - 2)
    fields = {
        "loss": (("y", "x"), loss),
        "accuracy": (("y", "x"), 100 / (1 + loss), {"units": "%", "long_name": "accuracy"}),
    }
    return Landscape(xr.Dataset(fields, {"x": x, "y": y}, {"title": title, "seed": 3}))


def with_holes() -> Landscape:
    land = small_bowl("with holes")
    loss = land.data["loss"].values
    loss *= 2
    loss[2, 3], loss[6, 7], loss[0, 0] = np.nan, np.inf, -np.inf
    return land


@pytest.fixture(scope="module")
def shared_pair(visit: Open, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """Two planes, the second with holes; opened once for many tests."""
    path = tmp_path_factory.mktemp("pair") / "pair.html"
    draw.page([small_bowl("first"), with_holes()], path)
    with visit(path) as guest:
        yield guest


@pytest.fixture
def pair(shared_pair: Visit) -> Visit:
    shared_pair.reset()
    return shared_pair


@in_browser
@pytest.mark.parametrize("count", [1, 3])
def test_planes_are_drawn_without_a_network_or_a_complaint(
    count: int, visit: Open, tmp_path: Path
) -> None:
    lands = [small_bowl("a"), with_holes(), small_bowl("c")][:count]
    with visit(draw.page(lands, tmp_path / "p.html")) as guest:
        assert guest["document.querySelectorAll('.surface-plot canvas').length > 0"]
        for k, land in enumerate(lands):
            raw = land.data["loss"].values
            shown = np.log10(np.where(np.isfinite(raw) & (raw > 0), raw, np.nan))
            np.testing.assert_allclose(guest.heights(f"surface-{k}"), shown, rtol=1e-12)
            np.testing.assert_allclose(guest.heights(f"contour-{k}"), shown, rtol=1e-12)
        assert guest.page.locator("#surface-3").count() == 0
        assert guest.page.locator("#linked").is_visible() == (count > 1)
        assert guest["landscope.firstDrawn"] > 0


@in_browser
def test_the_page_keeps_its_layout_while_plotly_loads(pair: Visit) -> None:
    assert pair[SHIFT] < 0.01


@in_browser
def test_switching_the_scale_changes_what_is_drawn(pair: Visit) -> None:
    raw = small_bowl("").data["loss"].values
    np.testing.assert_allclose(pair.heights("surface-0"), np.log10(raw), rtol=1e-12)
    pair.scale("linear")
    assert pair["landscope.scale"] == "linear"
    np.testing.assert_array_equal(pair.heights("surface-0"), raw)
    np.testing.assert_array_equal(pair.heights("contour-0"), raw)


@in_browser
def test_not_a_number_stays_a_hole_in_the_drawn_data(pair: Visit) -> None:
    lost = ~np.isfinite(with_holes().data["loss"].values)
    for scale in ("linear", "log"):
        pair.scale(scale)
        for plot in ("surface-1", "contour-1"):
            np.testing.assert_array_equal(np.isnan(pair.heights(plot)), lost)
            data = f"document.getElementById('{plot}').data[0]"
            assert pair[f"{data}.connectgaps"] is False
            words = [pair[f"{data}.text[{j}][{i}]"] for j, i in ((2, 3), (6, 7), (0, 0))]
            assert [re.findall("<b>loss (.*)</b>", text)[0] for text in words] == [
                "not a number",
                "infinity",
                "\N{MINUS SIGN}infinity",
            ]


@in_browser
def test_the_slider_clamps_heights_but_not_what_the_pointer_reads(pair: Visit) -> None:
    raw = small_bowl("").data["loss"].values
    for scale in ("log", "linear"):
        pair.scale(scale)
        clip = pair.clip(0.5)
        assert 1 < clip < 10
        top = np.minimum(raw, clip)
        drawn = np.log10(top) if scale == "log" else top
        np.testing.assert_allclose(pair.heights("surface-0"), drawn, rtol=1e-12)
        assert np.nanmax(pair.heights("contour-0")) > drawn.max()
        text = pair["document.getElementById('surface-0').data[0].text[0][0]"]
        assert f"loss {raw[0, 0]:.0f}<" in text
        assert pair["document.getElementById('surface-0').layout.scene.zaxis.range[1]"] < raw.max()
    assert pair.text("#clip-value") == f"{clip:.3g}"
    assert pair.text("#note-0") == f"{(raw > clip).sum()} heights above {clip:.3g} are drawn at it."
    assert pair["document.getElementById('clip').getAttribute('aria-valuetext')"] == f"{clip:.3g}"


@in_browser
def test_the_pointer_reads_the_value_and_its_place_in_three_digits(pair: Visit) -> None:
    pair.clip(0.3)
    pair.page.locator("#contour-0").scroll_into_view_if_needed()
    place = pair[PLACE]
    pair.page.mouse.move(*place)
    label = pair.page.locator("#contour-0 .hoverlayer .hovertext")
    label.wait_for()
    land = small_bowl("").data["loss"]
    loss, x, y = (exact(float(f"{v:.3g}")) for v in (land[3, 9], land["x"][9], land["y"][3]))
    assert label.text_content() == f"loss {loss}x {x}, y {y}"


@in_browser
def test_the_camera_stays_above_the_floor_and_looks_from_above_and_from_the_side(
    pair: Visit,
) -> None:
    below = """Plotly.relayout("surface-0", {"scene.camera": {
        eye: {x: 1, y: 1, z: -0.8}, center: {x: 0, y: 0, z: 0}, up: {x: 0, y: 0, z: 1}}})"""
    heights = "[0, 1].map(k => document.getElementById(`surface-${k}`).layout.scene.camera.eye.z)"
    pair.page.evaluate(below)
    pair.page.wait_for_function(f"{heights}.every(z => z > 0 && z < 0.1)")
    for view, is_right in (("top", "z > 1.4"), ("side", "z > 0 && z < 0.4")):
        pair.page.locator(f"#view-{view}").click()
        pair.page.wait_for_function(f"{heights}.every(z => {is_right})")


@in_browser
def test_a_finger_scrolls_over_a_surface_until_it_is_tapped(visit: Open, tmp_path: Path) -> None:
    phone = {"viewport": {"width": 390, "height": 700}, "has_touch": True, "is_mobile": True}
    with visit(draw.page(small_bowl("a"), tmp_path / "p.html"), **phone) as guest:
        shield, done = (guest.page.locator(f".{name}") for name in ("shield", "unshield"))
        box, surface = shield.bounding_box(), guest.page.locator("#surface-0").bounding_box()
        assert box == surface
        assert guest["getComputedStyle(document.querySelector('.shield')).touchAction"] == "pan-y"
        shield.tap()
        assert not shield.is_visible()
        done.tap()
        assert shield.is_visible()


@in_browser
def test_the_page_says_what_it_shows_and_how_it_was_made(visit: Open, tmp_path: Path) -> None:
    land = small_bowl("a")
    origin = {"kind": "random", "seed": 7, "normalize": "filter", "ignore": "biasbn"}
    land.data.attrs["directions"] = json.dumps({"x": origin, "y": origin})
    with visit(draw.page(land, tmp_path / "p.html")) as guest:
        explanation = guest.text("#explanation")
        assert explanation.startswith("The cross at (0, 0) is the model. A step of 1 along an axis")
        assert explanation.endswith("Heights and colors are the loss.")
        guest.page.locator("#provenance summary").click()
        assert "x and y: random, seed 7, filter normalization" in guest.text("#provenance")
        assert guest.text("#bar-name-0") == "loss"


@in_browser
def test_turning_one_surface_turns_all_until_it_is_switched_off(pair: Visit) -> None:
    turn = """([k, x]) => Plotly.relayout(`surface-${k}`, {"scene.camera": {
        eye: {x, y: 1, z: 0.5}, center: {x: 0, y: 0, z: 0}, up: {x: 0, y: 0, z: 1}}})"""
    eyes = "[0, 1].map(k => document.getElementById(`surface-${k}`).layout.scene.camera.eye.x)"
    pair.page.evaluate(turn, [1, 1.75])
    pair.page.wait_for_function(f"{eyes}.every(x => x === 1.75)")
    assert pair["landscope.cameras.map(camera => camera.eye.x)"] == [1.75, 1.75]
    pair.page.locator("#linked").uncheck()
    pair.page.evaluate(turn, [0, 0.25])
    pair.page.wait_for_timeout(100)
    assert pair[eyes] == [0.25, 1.75]
    pair.page.locator("#linked").check()
    pair.page.wait_for_function(f"{eyes}.every(x => x === 0.25)")
    pair.reset()
    pair.page.wait_for_function(f"{eyes}.every(x => x !== 0.25)")


@in_browser
def test_a_turned_view_survives_another_scale(pair: Visit) -> None:
    pair.page.locator("#surface-0").focus()
    pair.page.keyboard.press("ArrowLeft")
    turned = pair["landscope.cameras[0].eye.x"]
    pair.scale("linear")
    assert pair["document.getElementById('surface-0')._fullLayout.scene.camera.eye.x"] == turned


@in_browser
def test_arrow_keys_turn_and_plus_and_minus_zoom(pair: Visit) -> None:
    eye = "landscope.cameras.map(({eye}) => [eye.x, eye.y, eye.z])"
    start = np.array(pair[eye])
    pair.page.locator("#surface-1").focus()
    pair.page.keyboard.press("ArrowUp")
    pair.page.keyboard.press("ArrowRight")
    turned = np.array(pair[eye])
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(start, axis=1))
    assert (turned[:, 2] > start[:, 2]).all()
    pair.page.keyboard.press("+")
    assert np.linalg.norm(pair[eye]) < np.linalg.norm(turned)
    np.testing.assert_array_equal(pair[eye][0], pair[eye][1])


@in_browser
def test_another_quantity_can_be_chosen_and_reset_brings_the_first_back(pair: Visit) -> None:
    assert pair["[...document.querySelectorAll('#quantity option')].map(o => o.textContent)"] == [
        "loss",
        "accuracy (%)",
    ]
    pair.after(lambda: pair.page.locator("#quantity").select_option("accuracy"))
    accuracy = small_bowl("").data["accuracy"].values
    assert pair["landscope.scale"] == "linear"
    np.testing.assert_array_equal(pair.heights("surface-0"), accuracy)
    assert "At the center 99 (0, 0)" in pair.text("#facts-0")
    pair.clip(0.5)
    pair.page.locator("#shared").uncheck()
    pair.reset()
    state = "(({quantity, scale, clip, shared, linked}) => [quantity, scale, clip, shared, linked])"
    assert pair[f"{state}(landscope)"] == ["loss", "log", None, True, True]


@in_browser
def test_landscapes_share_one_scale_or_have_their_own(pair: Visit) -> None:
    ends = "[0, 1].map(k => document.getElementById(`{}-${k}`).data[0]).map(t => [t.{}, t.{}])"
    ranges = ends.replace("{}", "surface", 1).replace("{}", "cmin", 1).replace("{}", "cmax")
    contour = ends.replace("{}", "contour", 1).replace("{}", "zmin", 1).replace("{}", "zmax")
    both = [-2.0, np.log10(2000.0)]
    np.testing.assert_allclose(pair[ranges], [both, both], atol=1e-12)
    pair.after(lambda: pair.page.locator("#shared").uncheck())
    own = [[-2.0, 3.0], [np.log10(0.02), np.log10(2000.0)]]
    np.testing.assert_allclose(pair[ranges], own, atol=1e-12)
    np.testing.assert_allclose(pair[contour], own, atol=1e-12)


@in_browser
def test_facts_of_predicted_cells_say_that_they_are_not_certain(
    visit: Open, tmp_path: Path
) -> None:
    land = small_bowl("")
    evaluated = np.ones(land.data["loss"].shape, dtype=np.int8)
    evaluated[4, 5] = 0  # the center
    data = land.data.assign(evaluated=(("y", "x"), evaluated))
    with visit(draw.page(Landscape(data), tmp_path / "p.html")) as guest:
        facts = guest.text("#facts-0")
    assert "Smallest 0.01 at (0, 0) (predicted: possible, not certain)" in facts
    assert "At the center 0.01 (0, 0) (predicted: possible, not certain) Largest" in facts
    assert facts.count("predicted") == 2


@in_browser
def test_a_line_below_tells_smallest_center_largest_and_holes(pair: Visit) -> None:
    assert pair.text("#facts-0") == (
        "Smallest 0.01 at (0, 0) At the center 0.01 (0, 0) "
        "Largest finite 1000 at (\N{MINUS SIGN}1, \N{MINUS SIGN}0.8) Holes 0 of 99 values"
    )
    assert "Smallest 0.02" in pair.text("#facts-1")
    assert pair.text("#facts-1").endswith("Holes 3 not finite")


@in_browser
def test_every_control_has_a_name_and_the_origin_of_the_data_unfolds(pair: Visit) -> None:
    for role, name in [
        ("combobox", "Show"),
        ("radio", "Log"),
        ("radio", "Linear"),
        ("slider", "Limit height"),
        ("checkbox", "One scale for all"),
        ("checkbox", "Turn together"),
        ("button", "Reset"),
    ]:
        assert pair.page.get_by_role(role, name=name).count() == 1, name  # type: ignore[arg-type]
    assert not pair.page.get_by_role("cell", name="3", exact=True).first.is_visible()
    pair.page.locator("summary").click()
    assert pair.page.get_by_role("cell", name="3", exact=True).first.is_visible()
    pair.page.locator("summary").click()


@in_browser
def test_the_page_fits_a_phone_and_a_dark_room(pair: Visit) -> None:
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    light = pair[paper]
    pair.page.set_viewport_size({"width": 375, "height": 700})
    pair.after(lambda: pair.page.emulate_media(color_scheme="dark"))
    assert pair["document.documentElement.scrollWidth"] <= 375
    assert pair[paper] != light
    ink = pair["document.getElementById('contour-0').layout.font.color"]
    assert ink == "#e4e7eb"
    pair.page.set_viewport_size({"width": 1280, "height": 800})
    pair.after(lambda: pair.page.emulate_media(color_scheme="light"))


@in_browser
def test_without_webgl_the_contours_are_drawn_and_a_sentence_stands_for_the_surface(
    visit: Open, tmp_path: Path
) -> None:
    blind = """const get = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
          return kind.startsWith("webgl") ? null : get.call(this, kind, ...more); };"""
    with visit(draw.page(small_bowl("a"), tmp_path / "p.html"), before=blind) as guest:
        assert guest.text("#surface-0").startswith("This browser offers no WebGL")
        assert guest["document.getElementById('surface-0').data"] is None
        assert guest.heights("contour-0").shape == (9, 11)
        guest.scale("linear")


@in_browser
def test_without_javascript_a_sentence_says_what_is_missing(visit: Open, tmp_path: Path) -> None:
    with visit(draw.page(small_bowl("a"), tmp_path / "p.html"), java_script_enabled=False) as guest:
        assert guest.page.locator("noscript p").is_visible()
        assert not guest.page.locator("#controls").is_visible()


@in_browser
def test_titles_labels_and_notes_are_shown_as_text_whatever_they_hold(
    visit: Open, tmp_path: Path
) -> None:
    evil = "<!--<script /></script><script>window.taken = 1</script><img src=x onerror='taken=1'>"
    evil += "&amp; @@data@@"
    land = small_bowl(evil)
    land.data.attrs[f"key {evil}"] = evil
    path = draw.page(land, tmp_path / "p.html", labels=[evil], title=evil)
    with visit(path) as guest:
        assert guest["window.taken"] is None
        assert guest.page.locator("h1").text_content() == evil
        assert guest.page.title() == evil
        assert guest.page.locator("#name-0").text_content() == evil
        assert guest.page.locator("td").last.text_content() == evil


@in_browser
def test_lines_share_one_chart_with_the_same_switches(
    visit: Open, training: Landscape, broken_line: Landscape, tmp_path: Path
) -> None:
    drawn = "document.getElementById('line').data.map(({name, y}) => [name, y])"
    with visit(draw.page(training, tmp_path / "p.html")) as guest:
        curves = dict(guest[drawn])
        percent = ["train accuracy (%)", "test accuracy (%)"]
        assert list(curves) == ["train loss", "test loss", *percent]
        np.testing.assert_array_equal(curves["test loss"], training.data["test_loss"].values)
        guest.scale("log")
        assert guest["document.getElementById('line').layout.yaxis.type"] == "log"
        clip = guest.clip(0.5)
        clamped = np.minimum(training.data["test_loss"].values, clip)
        np.testing.assert_array_equal(dict(guest[drawn])["test loss"], clamped)
        np.testing.assert_array_equal(
            dict(guest[drawn])["test accuracy (%)"], training.data["test_accuracy"].values
        )
        raw = guest["document.getElementById('line').data[1].customdata[0]"]
        assert raw == f"{float(training.data['test_loss'][0]):.3g}"
        guest.after(lambda: guest.page.locator("#quantity").select_option("test_accuracy"))
        assert [name for name, _ in guest[drawn]] == ["test accuracy (%)"]
    path = draw.page([broken_line, broken_line], tmp_path / "q.html", labels=["a", "b"])
    with visit(path) as guest:
        data = guest[drawn]
        assert [name for name, _ in data] == ["a: loss", "a: loss", "b: loss", "b: loss"]
        lost = [i for i, y in enumerate(data[0][1]) if y is None]
        assert lost == np.flatnonzero(~np.isfinite(broken_line.data["loss"].values)).tolist()
        assert guest["document.getElementById('line').data[1].customdata"] == [
            "infinity",
            "not a number",
            "not a number",
            "not a number",
        ]


@in_browser
def test_reset_leaves_the_cameras_of_planes_alone_where_there_are_none(
    visit: Open, training: Landscape, tmp_path: Path
) -> None:
    with visit(draw.page(training, tmp_path / "p.html")) as guest:
        guest.scale("log")
        guest.reset()
        assert guest["landscope.scale"] == "linear"


@in_browser
@pytest.mark.parametrize("zoomed", [False, True])
def test_reset_shows_the_whole_chart_of_lines_as_at_first(
    zoomed: bool, visit: Open, training: Landscape, tmp_path: Path
) -> None:
    ranges = "(({xaxis, yaxis, yaxis2}) => [xaxis, yaxis, yaxis2].map(axis => axis.range))"
    ranges += "(document.getElementById('line').layout)"
    corner = "(({x, y}) => [x, y])(document.getElementById('line').getBoundingClientRect())"
    with visit(draw.page(training, tmp_path / "p.html")) as guest:
        first = guest[ranges]
        if zoomed:
            x, y = guest[corner]
            guest.page.mouse.move(x + 300, y + 100)
            guest.page.mouse.down()
            guest.page.mouse.move(x + 700, y + 300, steps=5)
            guest.page.mouse.up()
            guest.page.wait_for_function(f"{ranges}[0][0] > {first[0][0]}")
        guest.reset()
        assert guest[ranges] == first


@in_browser
def test_reset_shows_the_only_curve_of_a_line_again(
    visit: Open, broken_line: Landscape, tmp_path: Path
) -> None:
    with visit(draw.page(broken_line, tmp_path / "p.html")) as guest:
        guest.reset()
        assert guest["landscope.quantity"] == "loss"
        assert guest["document.getElementById('quantity').value"] == "loss"


def drawn(guest: Visit, plot: str, **traits: Any) -> list[Any]:
    """The traces of a plot that have these traits."""
    traces: list[Any] = guest[f"document.getElementById('{plot}').data"]
    return [t for t in traces if all(t.get(name) == value for name, value in traits.items())]


@pytest.fixture
def rated(ground: Landscape) -> Landscape:
    """``ground`` with an accuracy that no path knows."""
    accuracy = 100 / (1 + ground.data["loss"])
    accuracy.attrs.update(units="%", long_name="accuracy")
    return Landscape(ground.data.assign(accuracy=accuracy))


@in_browser
def test_a_path_lies_over_the_contours_and_floats_at_its_loss(
    rated: Landscape, descent: Any, visit: Open, tmp_path: Path
) -> None:
    with visit(draw.page(rated, tmp_path / "p.html", paths=descent)) as guest:
        (flat,) = drawn(guest, "contour-0", type="scatter", name="SGD")
        assert (flat["x"], flat["y"]) == (descent["x"].tolist(), descent["y"].tolist())
        assert flat["marker"]["color"] == descent["epoch"].tolist()
        loss, below, off = (descent[n] for n in ("loss", "projected_loss", "distance"))
        for scale, height in (("log", np.log10), ("linear", np.asarray)):
            guest.scale(scale)
            (way,) = drawn(guest, "surface-0", type="scatter3d", name="SGD")
            np.testing.assert_allclose(way["z"], height(loss), rtol=1e-12)
            (stems,) = drawn(guest, "surface-0", type="scatter3d", mode="lines")
            ends = np.array(stems["z"], dtype=float).reshape(-1, 3)
            np.testing.assert_allclose(ends[:, :2], height(np.c_[loss, below]), rtol=1e-12)
        share = 100 * descent["relative_distance"][3]
        there, projected, away = (exact(float(f"{column[3]:.3g}")) for column in (loss, below, off))
        assert flat["text"][3] == way["text"][3]
        assert flat["text"][3].split("<br>") == [
            "<b>SGD, epoch 3</b>",
            f"loss {there}",
            f"loss at its projection {projected}",
            "learning rate 0.1",
            f"off the plane {away} ({share:.3g}%)",
        ]
        assert "learning rate falls: 0.1 → 0.02" in guest.text("#key-0")
        clip = guest.clip(0.5)
        above = f"Above {clip:.3g} and drawn at it: {(loss > clip).sum()} of 21 checkpoints."
        assert above in guest.text("#note-0")


@in_browser
def test_a_path_is_drawn_where_the_first_learning_rate_is_not_known(
    ground: Landscape, descent: Any, changed: Any, visit: Open, tmp_path: Path
) -> None:
    late = changed(descent, learning_rate=np.r_[np.nan, descent["learning_rate"][1:]])
    with visit(draw.page(ground, tmp_path / "p.html", paths=late)) as guest:
        assert drawn(guest, "surface-0", type="scatter3d", name="SGD")
        assert drawn(guest, "losses-0")
        assert "learning rate falls: 0.1 → 0.02" in guest.text("#key-0")


@in_browser
def test_a_path_below_the_surface_is_seen_through_it(
    rated: Landscape, descent: Any, visit: Open, tmp_path: Path
) -> None:
    with visit(draw.page(rated, tmp_path / "p.html", paths=descent)) as guest:
        assert drawn(guest, "surface-0", type="surface")[0]["opacity"] < 0.9
        guest.after(lambda: guest.page.locator("#paths").uncheck())
        assert drawn(guest, "surface-0", type="surface")[0]["opacity"] == 1


@in_browser
def test_a_long_name_stays_in_its_panel(
    ground: Landscape, descent: Any, visit: Open, tmp_path: Path
) -> None:
    long = type(descent)(descent.data, "runs/" + "resnet56_noshort_sgd_lr=0.1_" * 4)
    path = draw.page([ground] * 3, tmp_path / "p.html", paths=[[long, descent]] * 3)
    with visit(path) as guest:
        wide, room = guest[
            "(k => [k.scrollWidth, k.clientWidth])(document.querySelector('#key-0'))"
        ]
        assert wide <= room


@in_browser
def test_each_of_many_paths_has_the_dash_that_the_key_shows(
    ground: Landscape, descent: Any, visit: Open, tmp_path: Path
) -> None:
    names = [f"run {k}" for k in range(8)]
    paths = [type(descent)(descent.data, name) for name in names]
    with visit(draw.page(ground, tmp_path / "p.html", paths=paths)) as guest:
        key = guest["[...document.querySelectorAll('#key-0 i')].map(i => i.style.borderTopStyle)"]
        css = {"solid": "solid", "dash": "dashed", "dot": "dotted"}
        for plot, kind in (("contour-0", "scatter"), ("surface-0", "scatter3d")):
            ways = [drawn(guest, plot, type=kind, name=name)[0] for name in names]
            assert [css[way["line"]["dash"]] for way in ways] == key


@in_browser
def test_charts_tell_distances_and_both_losses(
    ground: Landscape, descent: Any, visit: Open, tmp_path: Path
) -> None:
    with visit(draw.page(ground, tmp_path / "p.html", paths=descent)) as guest:
        (percent, distance) = drawn(guest, "distance-0")
        np.testing.assert_allclose(percent["y"], 100 * descent["relative_distance"])
        assert (distance["y"], distance["yaxis"]) == (descent["distance"].tolist(), "y2")
        (loss, below) = drawn(guest, "losses-0")
        assert loss["y"] == descent["loss"].tolist()
        assert below["y"] == descent["projected_loss"].tolist()
        assert loss["x"] == percent["x"] == descent["epoch"].tolist()
        assert guest["document.getElementById('losses-0').layout.shapes.map(s => s.x0)"] == [10]


@in_browser
def test_paths_can_be_hidden_and_reset_brings_them_back(
    rated: Landscape, descent: Any, visit: Open, tmp_path: Path
) -> None:
    with visit(draw.page(rated, tmp_path / "p.html", paths=descent)) as guest:
        count = len(drawn(guest, "contour-0"))
        guest.after(lambda: guest.page.get_by_role("checkbox", name="Paths").uncheck())
        assert not drawn(guest, "contour-0", name="SGD")
        assert not drawn(guest, "surface-0", type="scatter3d")
        assert not guest.page.locator("#distance-0").is_visible()
        guest.reset()
        assert len(drawn(guest, "contour-0")) == count
        guest.after(lambda: guest.page.locator("#quantity").select_option("accuracy"))
        assert not drawn(guest, "surface-0", type="scatter3d")
        assert drawn(guest, "contour-0", name="SGD")
        assert "over the contours only: their accuracy is not known" in guest.text("#note-0")


@in_browser
def test_each_landscape_has_its_own_paths(
    ground: Landscape, descent: Any, heavy: Any, visit: Open, tmp_path: Path
) -> None:
    part = Landscape(ground.data.isel(x=slice(10, None)))
    pages = draw.page(
        [ground, part, ground], tmp_path / "p.html", paths=[[descent, heavy], descent, None]
    )
    with visit(pages) as guest:
        way: dict[str, Any] = {"type": "scatter3d", "mode": "lines+markers"}
        ways = [drawn(guest, f"surface-{k}", **way) for k in range(3)]
        names = [[path["name"] for path in those] for those in ways]
        assert names == [["SGD", "momentum"], ["SGD"], []]
        first, second = (path["line"] for path in ways[0])
        assert first["color"] != second["color"]
        assert first["dash"] != second["dash"]
        assert guest.text("#key-0").startswith("SGD momentum")
        assert guest.text("#note-1") == "4 of 21 checkpoints lie off the plane that was scanned."
        assert guest.page.locator("#key-2").count() == 0
        guest.page.set_viewport_size({"width": 375, "height": 700})
        guest.page.wait_for_function("document.documentElement.scrollWidth <= 375")


@in_browser
def test_without_paths_the_page_has_no_switch_for_them(pair: Visit) -> None:
    assert not pair.page.locator("#paths").is_visible()
    assert pair.page.locator(".chart, .key, .path-scale").count() == 0
    assert len(drawn(pair, "contour-0")) == 3  # the field and the cross at its center


@in_browser
def test_names_of_paths_are_shown_as_text(
    ground: Landscape, descent: Any, heavy: Any, visit: Open, tmp_path: Path
) -> None:
    heavy.name = "<b>bold</b><img src=x onerror='taken=1'>"
    with visit(draw.page(ground, tmp_path / "p.html", paths=[descent, heavy])) as guest:
        assert heavy.name in str(guest.page.locator("#key-0").text_content())
        assert guest["window.taken"] is None
        (flat,) = drawn(guest, "contour-0", type="scatter", name=heavy.name)
        assert flat["text"][0].startswith("<b>&lt;b>bold&lt;/b>&lt;img src=x onerror='taken=1'>, ")


def embedded(path: Path) -> Any:
    """The data inside a page."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_file_holds_the_values_digit_for_digit_and_marks_for_the_rest(tmp_path: Path) -> None:
    land = with_holes()
    before = land.data.copy(deep=True)
    content = embedded(draw.page(land, tmp_path / "new" / "p.html"))["landscapes"][0]
    raw = land.data["loss"].values
    stored = np.array(content["values"]["loss"], dtype=np.float64)
    np.testing.assert_array_equal(stored, np.where(np.isfinite(raw), raw, np.nan))
    assert content["marks"]["loss"] == {"nan": [2 * 11 + 3], "inf": [6 * 11 + 7], "-inf": [0]}
    assert content["axes"]["y"]["at"] == land.data["y"].values.tolist()
    assert ["seed", "3"] in content["attrs"]
    xr.testing.assert_identical(land.data, before)


def test_the_file_holds_paths_digit_for_digit_and_null_for_what_is_not_known(
    ground: Landscape, descent: Any, changed: Callable[..., Any], tmp_path: Path
) -> None:
    loss = descent["loss"].copy()
    loss[4] = np.nan
    path = changed(descent, loss=loss, learning_rate=None)
    content = embedded(draw.page(ground, tmp_path / "p.html", paths=[path]))
    group = content["landscapes"][0]["pathGroup"]
    assert (group["time"], group["scale"]) == ("epoch", "log")
    (stored,) = group["paths"]
    for name, column in [("x", "x"), ("y", "y"), ("distance", "distance")]:
        assert stored[name] == descent[column].tolist()
    assert stored["loss"] == [None if k == 4 else v for k, v in enumerate(descent["loss"].tolist())]
    assert stored["heights"]["loss"][1] == descent["projected_loss"].tolist()
    assert stored["rate"] == [None] * 21
    assert stored["drops"] == []
    bare = embedded(draw.page(ground, tmp_path / "p.html"))
    assert "pathColors" not in bare
    assert "pathGroup" not in bare["landscapes"][0]


def test_the_file_is_self_contained_and_of_about_five_megabytes(tmp_path: Path) -> None:
    path = draw.page([small_bowl("a"), with_holes()], tmp_path / "p.html")
    outside = re.sub(r"<script>.*?</script>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", outside)
    assert "connect-src" not in outside
    assert "default-src 'none'" in outside
    assert path.stat().st_size < 6e6


def test_the_page_holds_each_of_its_files_and_no_reference_to_another(tmp_path: Path) -> None:
    path = draw.page(small_bowl("a"), tmp_path / "p.html")
    text = path.read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    files = [file for file in WEB.iterdir() if file.suffix in {".js", ".css"}]
    assert {"page.css", "state.js"} < {file.name for file in files}
    for file in files:
        body = re.split(r'from "\./\w+\.js";\n', file.read_text(encoding="utf-8"))[-1]
        assert re.sub("^export ", "", body, flags=re.MULTILINE) in text, file.name
    assert "@@" not in text
    assert not re.findall(r"https?:|\burl\(|@import|^import\b|^export\b", text, re.MULTILINE)


def test_each_script_imports_from_earlier_ones_and_no_two_define_the_same_name() -> None:
    order = re.findall(r"@@(\w+\.js)@@", (WEB / "page.html").read_text(encoding="utf-8"))
    assert sorted(order) == sorted(file.name for file in WEB.glob("*.js"))
    names: list[str] = []
    for place, script in enumerate(order):
        text = (WEB / script).read_text(encoding="utf-8")
        assert set(re.findall(r'from "\./(.*)";', text)) <= set(order[:place]), script
        defined = r"^(?:export )?(?:async )?(?:function|const|let) (\w+)"
        names += re.findall(defined, text, flags=re.MULTILINE)
    assert len(names) > 100
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("file", sorted(WEB.iterdir()), ids=lambda file: file.name)
def test_the_files_of_the_page_are_short(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 350
    assert max(map(len, lines)) <= 100


def test_titles_name_a_page_and_its_parts(tmp_path: Path) -> None:
    one = embedded(draw.page(small_bowl("a"), tmp_path / "p.html"))
    assert (one["title"], one["landscapes"][0]["label"]) == ("a", "a")
    two = embedded(draw.page([small_bowl("a"), small_bowl("")], tmp_path / "p.html"))
    assert two["title"] == "Loss landscapes"
    assert [land["label"] for land in two["landscapes"]] == ["a", "landscape 2"]
    own = embedded(draw.page(small_bowl("a"), tmp_path / "p.html", labels=["b"], title="c"))
    assert (own["title"], own["landscapes"][0]["label"]) == ("c", "b")


def test_quantities_without_a_finite_value_are_left_out(tmp_path: Path) -> None:
    land = small_bowl("a")
    land.data["accuracy"].values[:] = np.nan
    content = embedded(draw.page(land, tmp_path / "p.html"))
    assert [quantity["name"] for quantity in content["quantities"]] == ["loss"]


def test_wrong_calls_are_explained(volume: Landscape, training: Landscape, tmp_path: Path) -> None:
    bowl, path = small_bowl("a"), tmp_path / "p.html"
    with pytest.raises(DrawError, match=r"ends in '\.pdf'; a page is saved as \.html"):
        draw.page(bowl, tmp_path / "p.pdf")
    with pytest.raises(DrawError, match="7 planes were given; a page shows at most 6"):
        draw.page([bowl] * 7, path)
    with pytest.raises(DrawError, match=r"isel\(z=0\)"):
        draw.page(volume, path)
    with pytest.raises(DrawError, match=r"draw a line with ls\.draw\.line"):
        draw.page([bowl, training], path)
    with pytest.raises(DrawError, match=r"not \('x',\)"):
        draw.page([training, bowl], path)
    with pytest.raises(DrawError, match="quantity='acc' is not in the landscape"):
        draw.page(bowl, path, quantity="acc")
    with pytest.raises(DrawError, match="surfaces need two or more along each axis"):
        draw.page(Landscape(bowl.data.isel(y=[0])), path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DrawError, match="cannot be written"):
        draw.page(bowl, tmp_path / "file" / "p.html")
    assert not path.exists()


def test_wrong_paths_are_explained(
    ground: Landscape,
    training: Landscape,
    descent: Any,
    changed: Callable[..., Any],
    tmp_path: Path,
) -> None:
    path = tmp_path / "p.html"
    with pytest.raises(DrawError, match="paths= was given with a line"):
        draw.page(training, path, paths=descent)
    with pytest.raises(DrawError, match="paths= has 1 entries for 2 planes"):
        draw.page([ground, ground], path, paths=[descent])
    with pytest.raises(DrawError, match="paths= has 1 entries for 2 planes"):
        draw.page([ground, ground], path, paths=descent)
    with pytest.raises(DrawError, match="No path was given"):
        draw.page(ground, path, paths=[])
    with pytest.raises(DrawError, match="has no variable 'x'"):
        draw.page(ground, path, paths=changed(descent, x=None))
    assert not path.exists()
