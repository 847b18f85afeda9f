// The plots of a plane: a surface, contours and the color bar that both share.

import { byId, labelBar } from "./dom.js";
import { describeHoles } from "./facts.js";
import { colorRange, limitHeights, toHeight } from "./heights.js";
import { traceFloatingPaths, tracePathsOverContours } from "./path_traces.js";
import { dropNulls, groupOf, hasFloatingPaths, pathHeights } from "./paths.js";
import { lands, quantityOf, state } from "./state.js";
import {
  breakLabel,
  countDigits,
  formatDistinct,
  formatNumber,
  nameValue,
  shorten,
} from "./text.js";
import { color, drawPlot, plotAxis, touch } from "./theme.js";
import { chooseLevels, chooseTicks } from "./ticks.js";

// What surface and contours have in common. The pointer reads true values, even where the
// heights are cut.
function traceField(k) {
  const { x, y } = lands[k].axes;
  return {
    x: x.at,
    y: y.at,
    text: hoverTexts(k, state.quantity),
    colorscale: "Viridis",
    showscale: false,
    connectgaps: false,
    hovertemplate: "%{text}<extra></extra>",
  };
}

const cachedTexts = new Map();

function hoverTexts(k, name) {
  const key = `${k}/${name}`;
  if (!cachedTexts.has(key)) cachedTexts.set(key, describeValues(k, name));
  return cachedTexts.get(key);
}

function describeValues(k, name) {
  const { x, y } = lands[k].axes;
  const holes = describeHoles(k, name);
  const label = quantityOf(name).label;
  const digits = countDigits(lands[k].values[name].flat());
  const [across, up] = [x, y].map(({ at }) => at.map((v) => formatNumber(v, countDigits(at))));
  return lands[k].values[name].map((row, j) =>
    row.map((value, i) => {
      const hole = holes[j * row.length + i];
      const text = hole
        ? `${shorten(label)} ${hole}`
        : nameValue(label, formatNumber(value, digits));
      return `<b>${text}</b><br>x ${across[i]}, y ${up[j]}`;
    }),
  );
}

const lengthOf = (at) => at.at(-1) - at[0];

// ---- surface ------------------------------------------------------------------------------------

export function drawSurface(k) {
  const margin = { l: 0, r: 0, t: 0, b: 0 };
  const traces = [traceSurface(k), ...traceFloatingPaths(k)];
  return drawPlot(`surface-${k}`, traces, { margin, scene: surfaceScene(k) });
}

function traceSurface(k) {
  const [cmin, cmax] = colorRange(k);
  const highlight = { highlight: true, highlightcolor: color("--card"), highlightwidth: 1 };
  return {
    type: "surface",
    ...traceField(k),
    lighting: { ambient: 0.74, diffuse: 0.5, specular: 0.06, roughness: 0.9, fresnel: 0.05 },
    lightposition: { x: -2000, y: -4000, z: 6000 },
    z: lands[k].values[state.quantity].map(limitHeights),
    cmin,
    cmax,
    opacity: hasFloatingPaths(k) ? 0.8 : 1, // a path below the surface is seen through it
    contours: { x: { highlight: false }, y: { highlight: false }, z: highlight },
  };
}

function surfaceScene(k) {
  const { x, y } = lands[k].axes;
  const [lo, hi] = surfaceRange(k);
  const ticks = chooseTicks([lo, hi]);
  const longest = Math.max(lengthOf(x.at), lengthOf(y.at));
  return {
    camera: structuredClone(state.cameras[k]),
    dragmode: "turntable",
    aspectmode: "manual",
    aspectratio: {
      x: Math.max(lengthOf(x.at) / longest, 0.4),
      y: Math.max(lengthOf(y.at) / longest, 0.4),
      z: 0.68,
    },
    xaxis: sceneAxis(x.label),
    yaxis: sceneAxis(y.label),
    zaxis: {
      ...sceneAxis(quantityOf(state.quantity).label),
      range: [lo - 0.06 * (hi - lo), hi + 0.02 * (hi - lo)],
      tickvals: ticks.map(toHeight),
      ticktext: formatDistinct(ticks),
    },
  };
}

// The heights of the surface and of the paths over it.
function surfaceRange(k) {
  const paths = hasFloatingPaths(k) ? groupOf(k).paths : [];
  const heights = paths.flatMap((path) => dropNulls(pathHeights(path).flat()));
  const [lo, hi] = colorRange(k);
  return [Math.min(lo, ...heights), Math.max(hi, ...heights)];
}

function sceneAxis(label) {
  return {
    title: { text: shorten(label), font: { size: 12 } },
    tickfont: { size: 11 },
    nticks: 5,
    gridcolor: color("--grid"),
    color: color("--soft"),
    showbackground: false,
    zeroline: false,
    showspikes: false,
  };
}

// ---- contours -----------------------------------------------------------------------------------

export function drawContours(k) {
  const { x, y } = lands[k].axes;
  const traces = [traceContours(k), ...traceCenter(x.at, y.at), ...tracePathsOverContours(k)];
  const [xLabel, yLabel] = [breakLabel(x.label), breakLabel(y.label)];
  const ratio = lengthOf(x.at) / lengthOf(y.at);
  const square = ratio <= 3 && ratio >= 1 / 3;
  return drawPlot(`contour-${k}`, traces, {
    margin: { l: yLabel === y.label ? 58 : 74, r: 8, t: 10, b: xLabel === x.label ? 44 : 60 },
    plot_bgcolor: color("--hole"),
    dragmode: touch ? false : "zoom",
    xaxis: plotAxis(xLabel, { showgrid: false, constrain: "domain" }),
    yaxis: plotAxis(yLabel, {
      showgrid: false,
      ...(square ? { scaleanchor: "x", constrain: "domain" } : {}),
    }),
  });
}

function traceContours(k) {
  const [zmin, zmax] = colorRange(k);
  return {
    type: "contour",
    ...traceField(k),
    z: lands[k].values[state.quantity].map((row) => row.map(toHeight)),
    zmin,
    zmax,
    zauto: false,
    autocontour: false,
    contours: { ...chooseLevels([zmin, zmax], 22), coloring: "fill" },
    line: { width: 0.6, color: "rgba(255,255,255,.45)", smoothing: 0 },
    hoverongaps: true,
  };
}

// A black and white cross at the center, where the plane holds it.
function traceCenter(x, y) {
  const inside = x[0] <= 0 && x.at(-1) >= 0 && y[0] <= 0 && y.at(-1) >= 0;
  if (!inside) return [];
  const trace = { type: "scatter", mode: "markers", x: [0], y: [0], hoverinfo: "skip" };
  const cross = (size, width, ink) => ({
    ...trace,
    marker: { symbol: "cross-thin", size, line: { width, color: ink } },
  });
  return [cross(12, 4, "#000"), cross(10, 2, "#fff")];
}

// ---- color bar ----------------------------------------------------------------------------------

export function drawBar(k) {
  const [lo, hi] = colorRange(k);
  const ticks = chooseTicks([lo, hi], 7);
  const shares = ticks.map((tick) => (toHeight(tick) - lo) / (hi - lo));
  const isCut = state.clip !== null && toHeight(state.clip) === hi;
  const end = isCut ? `, ${formatNumber(state.clip)} and more at the right end` : "";
  labelBar(byId(`bar-${k}`), formatDistinct(ticks), shares);
  byId(`bar-name-${k}`).textContent = quantityOf(state.quantity).label;
  byId(`bar-${k}`).title = quantityOf(state.quantity).label + end;
}
