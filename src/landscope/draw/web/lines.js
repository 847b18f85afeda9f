// The chart of all lines: losses on the left axis, percentages on the right one.

import { describeHoles } from "./facts.js";
import { heightSpan, limitSpan, limitValue, toHeight, toValue } from "./heights.js";
import { indices, lands, quantityOf, scaledQuantities, shownQuantities, state } from "./state.js";
import { countDigits, formatDistinct, formatNumber, shorten } from "./text.js";
import { drawPlot, plotAxis, touch } from "./theme.js";
import { chooseTicks } from "./ticks.js";

// Source: Okabe and Ito, Color Universal Design (2008); distinct for color-blind readers too.
const OKABE_ITO = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const LINE_DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];

export function drawLines() {
  const span = limitSpan(heightSpan(indices, scaledQuantities()));
  const traces = indices.flatMap((k) =>
    shownQuantities().flatMap((name) => [traceCurve(k, name), ...traceHoles(k, name, span[0])]),
  );
  return drawPlot("line", traces, {
    margin: { l: 64, r: hasTwoAxes() ? 60 : 16, t: 12, b: 48 },
    uirevision: zoomRevision(),
    hovermode: "x unified",
    showlegend: true,
    dragmode: touch ? false : "zoom",
    legend: { orientation: "h", x: 0, y: -0.14, yanchor: "top" },
    xaxis: plotAxis(lands[0].axes.x.label, { hoverformat: ".3~g", range: positionRange() }),
    ...valueAxes(span),
  });
}

// plotly.js keeps the zoom and the hidden curves of a reader until this text changes.
const zoomRevision = () => [state.scale, state.quantity, state.clip, state.resets].join(" ");

// ---- curves -------------------------------------------------------------------------------------

function traceCurve(k, name) {
  const { ink, dash, width } = styleOf(k, name);
  const values = lands[k].values[name];
  const y = quantityOf(name).percent ? values : values.map(limitOnScale);
  const size = markLonely(y);
  const holes = describeHoles(k, name);
  const digits = countDigits(values);
  return {
    type: "scatter",
    mode: size.some(Boolean) ? "lines+markers" : "lines",
    name: curveLabel(k, name),
    x: lands[k].axes.x.at,
    y,
    yaxis: quantityOf(name).percent && hasTwoAxes() ? "y2" : "y",
    connectgaps: false,
    customdata: values.map((v, i) => (v === null ? holes[i] : formatNumber(v, digits))),
    hovertemplate: "%{customdata}",
    line: { color: ink, width, dash },
    marker: { size, color: ink, opacity: 1, line: { width: 0 } },
  };
}

const limitOnScale = (value) => (toHeight(value) === null ? null : limitValue(value));

// A value between two holes belongs to no line: it gets a marker. The others have size 0.
function markLonely(y) {
  const isHole = (i) => (y[i] ?? null) === null;
  return y.map((_, i) => (!isHole(i) && isHole(i - 1) && isHole(i + 1) ? 6 : 0));
}

// Crosses at the floor of the chart, where values are not finite.
function traceHoles(k, name, floor) {
  const holes = describeHoles(k, name);
  const places = Object.keys(holes).map(Number);
  if (!places.length) return [];
  const y = quantityOf(name).percent && !hasTwoAxes() ? 0 : toValue(floor);
  const trace = {
    type: "scatter",
    mode: "markers",
    name: curveLabel(k, name),
    showlegend: false,
    x: places.map((i) => lands[k].axes.x.at[i]),
    y: places.map(() => y),
    cliponaxis: false,
    marker: { symbol: "x-thin", size: 8, line: { width: 1.5, color: styleOf(k, name).ink } },
    customdata: places.map((i) => holes[i]),
    hovertemplate: "%{customdata}",
  };
  return [trace];
}

function curveLabel(k, name) {
  const label = quantityOf(name).label;
  return lands.length === 1 ? label : `${lands[k].label}: ${label}`;
}

// One landscape: a color for each family of quantities. Several: a color for each landscape.
// Quantities on held-out data are dashed.
function styleOf(k, name) {
  const families = [...new Set(shownQuantities().map(familyOf))];
  const family = families.indexOf(familyOf(name));
  const heldOut = /^(test|val)/.test(name) ? 1 : 0;
  const single = lands.length === 1;
  return {
    ink: OKABE_ITO[(single ? family : k) % OKABE_ITO.length],
    dash: LINE_DASHES[(single ? heldOut : 2 * family + heldOut) % LINE_DASHES.length],
    width: single ? 2.2 : 1.6,
  };
}

const familyOf = (name) => name.replace(/^(train|test|val)_/, "");

// ---- axes ---------------------------------------------------------------------------------------

function hasTwoAxes() {
  const scaled = scaledQuantities().length;
  return scaled > 0 && scaled < shownQuantities().length;
}

function positionRange() {
  const axes = lands.map((land) => land.axes.x.at);
  return [Math.min(...axes.map((at) => at[0])), Math.max(...axes.map((at) => at.at(-1)))];
}

function valueAxes(span) {
  const percents = shownQuantities().filter((name) => quantityOf(name).percent);
  const scaled = scaledQuantities();
  if (!scaled.length) return { yaxis: plotAxis(commonLabel(percents), percentAxis()) };
  const yaxis = plotAxis(commonLabel(scaled), scaledAxis(span));
  if (!hasTwoAxes()) return { yaxis };
  const right = { overlaying: "y", side: "right", showgrid: false, ...percentAxis() };
  return { yaxis, yaxis2: plotAxis(commonLabel(percents), right) };
}

// A new object for each drawing, because plotly.js writes the zoomed range into it.
const percentAxis = () => ({
  range: [-2, 102],
  tickvals: [0, 20, 40, 60, 80, 100],
  tickmode: "array",
});

function scaledAxis([lo, hi]) {
  const room = 0.05 * (hi - lo);
  const ticks = chooseTicks([lo, hi]);
  return {
    type: state.scale,
    range: [lo - room, hi + room],
    tickvals: ticks,
    ticktext: formatDistinct(ticks),
  };
}

// The labels of some quantities, without the data set that they were measured on.
function commonLabel(names) {
  const labels = names.map((name) => {
    const { label, percent } = quantityOf(name);
    const general = shorten(label.replace(/^(train|test|val)\w* /, ""));
    return percent ? `${general} (%)` : general;
  });
  return [...new Set(labels)].join(", ");
}
