// The facts below each plot: the smallest, the central and the largest value, and the holes.

import { byId, createElement } from "./dom.js";
import { valuesOf } from "./heights.js";
import { isLine, lands, quantityOf } from "./state.js";
import { formatDistinct, formatNumber, MINUS, shorten } from "./text.js";

// A word for each value that is not finite, by its flat position.
export function describeHoles(k, name) {
  const marks = lands[k].marks[name];
  const words = {};
  for (const i of marks.nan) words[i] = "not a number";
  for (const i of marks.inf) words[i] = "infinity";
  for (const i of marks["-inf"]) words[i] = `${MINUS}infinity`;
  return words;
}

export function showFacts(k, name) {
  const rows = summarize(k, name).map(([what, value, place]) => {
    const number = createElement("dd", {}, value, createElement("small", {}, place));
    return createElement("div", {}, createElement("dt", {}, what), number);
  });
  byId(`facts-${k}`).replaceChildren(...rows);
}

// Rows of a name, a value and its place.
function summarize(k, name) {
  const values = valuesOf(k, name);
  const [low, high] = findExtremes(values);
  const center = findCenter(k);
  const shown = [low, high, center].filter((i) => i !== null && values[i] !== null);
  const digits = formatDistinct(
    shown.map((i) => values[i]),
    3,
  );
  const texts = new Map(shown.map((i, order) => [values[i], digits[order]]));
  const place = (i) => `at ${formatPlace(k, i)}${describeOrigin(k, i)}`;
  const row = (i) => (i === null ? ["none", ""] : [texts.get(values[i]), place(i)]);
  const origin = (isLine ? "x = 0" : "(0, 0)") + describeOrigin(k, center);
  const central = center === null ? "not on the grid" : texts.get(values[center]);
  const holes = Object.keys(describeHoles(k, name)).length;
  return [
    [isLine ? `Smallest ${shorten(quantityOf(name).label)}` : "Smallest", ...row(low)],
    ["At the center", central ?? describeHoles(k, name)[center], origin],
    ["Largest finite", ...row(high)],
    ["Holes", String(holes), holes ? "not finite" : `of ${values.length} values`],
  ];
}

// The positions of the smallest and the largest value, or null where none is finite.
function findExtremes(values) {
  let [low, high] = [null, null];
  values.forEach((value, i) => {
    if (value === null) return;
    if (low === null || value < values[low]) low = i;
    if (high === null || value > values[high]) high = i;
  });
  return [low, high];
}

// The flat position of the center, or null where it is not on the grid.
function findCenter(k) {
  const { x, y } = lands[k].axes;
  const axes = isLine ? [x.at] : [x.at, y.at];
  if (!axes.every(hasZero)) return null;
  const [column, row = 0] = axes.map(nearestToZero);
  return row * x.at.length + column;
}

// How sure a value is: an adaptive scan predicts most of them.
function describeOrigin(k, i) {
  if (i === null || !lands[k].values.evaluated) return "";
  const isPredicted = valuesOf(k, "evaluated")[i] === 0;
  return isPredicted ? " (predicted: possible, not certain)" : "";
}

const nearestToZero = (at) =>
  at.reduce((best, v, i) => (Math.abs(v) < Math.abs(at[best]) ? i : best), 0);

function hasZero(at) {
  const length = Math.max(1e-300, at.at(-1) - at[0]);
  return Math.abs(at[nearestToZero(at)]) <= 1e-9 * length;
}

function formatPlace(k, i) {
  const { x, y } = lands[k].axes;
  const column = formatNumber(x.at[i % x.at.length], 3);
  if (isLine) return `x = ${column}`;
  return `(${column}, ${formatNumber(y.at[Math.floor(i / x.at.length)], 3)})`;
}
