// Below the plots of a plane: the key to its paths, and charts of distance and loss over time.

import { byId, createElement, labelBar } from "./dom.js";
import {
  cssDashOf,
  dropNulls,
  formatKnown,
  groupOf,
  hasFloatingPaths,
  inkOf,
  isSingle,
} from "./paths.js";
import { content } from "./state.js";
import { escapeTags, formatNumber } from "./text.js";
import { color, drawPlot, plotAxis, touch } from "./theme.js";
import { multiplesOf, niceStep } from "./ticks.js";

// ---- key ----------------------------------------------------------------------------------------

export function drawKey(k) {
  const group = groupOf(k);
  const single = isSingle(group);
  const entries = single ? [keyEntry("dark to bright", group.time)] : namePaths(group);
  entries.push(keyEntry("\u25CF", "start"), keyEntry("\u2605 \u271A", "end"));
  if (group.paths.some((path) => path.drops.length))
    entries.push(keyEntry("\u25BC \u25C6", describeDrops(group)));
  if (hasFloatingPaths(k)) entries.push(keyEntry("|", "from the checkpoint to the surface"));
  byId(`key-${k}`).replaceChildren(...entries);
  if (single) drawTimeBar(k, dropNulls(group.paths[0].time));
}

const keyEntry = (mark, text) => createElement("span", {}, createElement("b", {}, mark), text);

function namePaths(group) {
  return group.paths.map((path, p) => {
    const line = createElement("i");
    line.style.borderTopColor = inkOf(group, path);
    line.style.borderTopStyle = cssDashOf(p);
    return createElement("span", {}, line, path.name);
  });
}

// The learning rates are named where all paths that drop it have the same.
function describeDrops(group) {
  const texts = group.paths
    .filter((path) => path.drops.length)
    .map((path) => path.rates.map((rate) => formatNumber(rate, 3)).join(" \u2192 "));
  const same = new Set(texts).size === 1;
  return same ? `learning rate falls: ${texts[0]}` : "learning rate falls";
}

function drawTimeBar(k, times) {
  const bar = byId(`path-scale-${k}`);
  const [lo, hi] = [Math.min(...times), Math.max(...times)];
  const length = hi - lo || 1;
  const marks = multiplesOf(niceStep(length / 5), lo, hi);
  bar.style.setProperty("--stops", content.pathColors.join(", "));
  labelBar(
    bar,
    marks.map((mark) => formatNumber(mark)),
    marks.map((mark) => (mark - lo) / length),
  );
}

// ---- charts -------------------------------------------------------------------------------------

// The first curve of each path is solid, the second dashed.
const STYLES = [
  { line: { width: 2 }, marker: { size: 4 } },
  { line: { width: 1.4, dash: "dash" }, marker: { size: 5, symbol: "circle-open" } },
];

export async function drawCharts(k) {
  await drawDistances(k);
  if (groupOf(k).scale) await drawLosses(k);
}

function drawDistances(k) {
  const shared = { rangemode: "tozero", automargin: true };
  const right = { overlaying: "y", side: "right", showgrid: false, tickmode: "auto" };
  const traces = traceChartCurves(groupOf(k), [
    { column: "percent", label: "% of the distance from the center" },
    { column: "distance", label: "absolute (right)", yaxis: "y2" },
  ]);
  return drawChart(k, "distance", traces, {
    yaxis: plotAxis("%", shared),
    yaxis2: plotAxis("absolute", { ...shared, ...right }),
  });
}

function drawLosses(k) {
  const group = groupOf(k);
  const losses = group.paths.flatMap((path) => dropNulls([...path.loss, ...path.projected]));
  const positive = losses.filter((loss) => loss > 0);
  const decades = Math.log10(Math.max(...positive) / Math.min(...positive));
  const dtick = decades < 1.5 ? "D2" : Math.ceil(decades / 6);
  const traces = traceChartCurves(group, [
    { column: "loss", label: "at the checkpoint" },
    { column: "projected", label: "at its projection" },
  ]);
  return drawChart(k, "losses", traces, {
    yaxis: plotAxis("loss", {
      automargin: true,
      type: group.scale,
      tickformat: "~g",
      ...(group.scale === "log" ? { dtick } : {}),
    }),
  });
}

function drawChart(k, name, traces, axes) {
  const group = groupOf(k);
  return drawPlot(`${name}-${k}`, traces, {
    margin: { l: 58, r: 58, t: 6, b: 62 },
    hovermode: "x unified",
    showlegend: true,
    dragmode: touch ? false : "zoom",
    legend: { orientation: "h", x: 0, y: -0.26, yanchor: "top", font: { size: 11 } },
    shapes: group.paths.flatMap((path) => markDrops(group, path)),
    xaxis: plotAxis(group.time, { title: { text: group.time, standoff: 4 } }),
    ...axes,
  });
}

// An upright line where the learning rate falls.
function markDrops(group, path) {
  return path.drops.map((i) => ({
    type: "line",
    xref: "x",
    yref: "paper",
    x0: path.time[i],
    x1: path.time[i],
    y0: 0,
    y1: 1,
    layer: "below",
    opacity: 0.45,
    line: { width: 1, color: inkOf(group, path) },
  }));
}

// Two curves a path. For several paths the key gives the names, and the legend says what solid
// and dashed lines mean.
function traceChartCurves(group, pair) {
  const curves = group.paths.flatMap((path) =>
    pair.map((curve, i) => traceChartCurve(group, path, curve, STYLES[i])),
  );
  return isSingle(group) ? curves : [...curves, ...pair.map(traceMeaning)];
}

function traceChartCurve(group, path, { column, label, ...more }, style) {
  const single = isSingle(group);
  return {
    type: "scatter",
    mode: "lines+markers",
    x: path.time,
    y: path[column],
    name: single ? label : `${escapeTags(path.name)}: ${label}`,
    connectgaps: false,
    showlegend: single,
    customdata: path[column].map(formatKnown),
    hovertemplate: "%{customdata}",
    ...colorStyle(style, inkOf(group, path)),
    ...more,
  };
}

// An entry of the legend that has no point on the chart.
const traceMeaning = ({ label }, i) => ({
  type: "scatter",
  mode: "lines+markers",
  x: [null],
  y: [null],
  name: label,
  hoverinfo: "skip",
  ...colorStyle(STYLES[i], color("--ink")),
});

const colorStyle = ({ line, marker }, ink) => ({
  line: { ...line, color: ink },
  marker: { ...marker, color: ink },
});
