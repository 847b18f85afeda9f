// The note below a plot: what is cut at the limit, and what cannot be drawn.

import { byId } from "./dom.js";
import { isAboveLimit, toHeight, valuesOf } from "./heights.js";
import { groupOf, hasFloatingPaths } from "./paths.js";
import { isLine, lands, quantityOf, state } from "./state.js";
import { formatNumber, shorten } from "./text.js";

const countOf = (values, test) => values.filter(test).length;
const formatLimit = () => formatNumber(state.clip, 3);

// Write a note about some quantities of some landscapes into the panel k.
export function writeNote(k, names, ks) {
  const values = ks.flatMap((each) => names.flatMap((name) => valuesOf(each, name)));
  const above = countOf(values, isAboveLimit);
  const low = countOf(values, (value) => value !== null && toHeight(value) === null);
  const notes = isLine ? [] : describePaths(k);
  if (low) notes.unshift(`${low} values ≤ 0 have no place on a log scale.`);
  if (above) notes.unshift(`${above} heights above ${formatLimit()} are drawn at it.`);
  byId(`note-${k}`).textContent = notes.join(" ");
}

function describePaths(k) {
  const group = groupOf(k);
  if (!group || !state.paths) return [];
  const notes = describePlaces(k, group);
  if (hasFloatingPaths(k)) return [...notes, ...describeHeights(group)];
  const label = shorten(quantityOf(state.quantity).label);
  return [...notes, `The paths lie over the contours only: their ${label} is not known.`];
}

function describePlaces(k, group) {
  const { x, y } = lands[k].axes;
  const isOff = (value, at) => value !== null && (value < at[0] || value > at.at(-1));
  const places = group.paths.flatMap((path) => path.x.map((value, i) => [value, path.y[i]]));
  const outside = countOf(places, ([px, py]) => isOff(px, x.at) || isOff(py, y.at));
  const lost = countOf(places, (place) => place.includes(null));
  const all = `${places.length} checkpoints`;
  const notes = [];
  if (outside) notes.push(`${outside} of ${all} lie off the plane that was scanned.`);
  if (lost) notes.push(`No finite coordinates: ${lost} of ${all}.`);
  return notes;
}

function describeHeights(group) {
  const values = group.paths.flatMap((path) => path.heights[state.quantity]?.[0] ?? []);
  const above = countOf(values, isAboveLimit);
  const missing = countOf(values, (value) => toHeight(value) === null);
  const all = `${values.length} checkpoints`;
  const notes = [];
  if (above) notes.push(`Above ${formatLimit()} and drawn at it: ${above} of ${all}.`);
  if (missing) notes.push(`No height: ${missing} of ${all}.`);
  return notes;
}
