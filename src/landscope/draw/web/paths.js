// Training paths: the group of paths over a plane, and the texts, inks and heights of each path.

import { limitHeights } from "./heights.js";
import { content, lands, state } from "./state.js";
import { escapeTags, formatNumber } from "./text.js";
import { color } from "./theme.js";

export const groupOf = (k) => lands[k].pathGroup;
export const anyPaths = lands.some((land) => land.pathGroup);
export const isSingle = (group) => group.paths.length === 1;

export const dropNulls = (values) => values.filter((value) => value !== null);
export const formatKnown = (value) => (value === null ? "not known" : formatNumber(value, 3));

// The dashes that plotly.js can draw over contours and over surfaces, and their names in CSS.
const PATH_DASHES = ["solid", "dash", "dot"];
const CSS_DASHES = ["solid", "dashed", "dotted"];
export const dashOf = (p) => PATH_DASHES[p % 3];
export const cssDashOf = (p) => CSS_DASHES[p % 3];

// Black is the color of one of several paths. It cannot be seen on the background of the dark
// scheme, where the color of the text takes its place.
export const inkOf = (group, path) =>
  isSingle(group) || path.color === "#000000" ? color("--ink") : path.color;

// A single path is colored by time.
export function timeColors(path) {
  const times = dropNulls(path.time);
  return {
    color: path.time,
    colorscale: content.pathColors.map((ink, i) => [i / (content.pathColors.length - 1), ink]),
    cmin: Math.min(...times),
    cmax: Math.max(...times),
    showscale: false,
  };
}

// A checkpoint is not in the plane: its height is its own loss, not that of the surface.
export const hasFloatingPaths = (k) =>
  groupOf(k) && state.paths && groupOf(k).paths.some((path) => path.heights[state.quantity]);

// The heights at the checkpoints and those of the surface at their projections.
export function pathHeights(path) {
  const unknown = path.x.map(() => null);
  return (path.heights[state.quantity] ?? [unknown, unknown]).map(limitHeights);
}

// The text under the pointer, for each checkpoint.
export function describeCheckpoints(group, path) {
  const rows = [
    ["loss", "loss"],
    ["projected", "loss at its projection"],
    ["rate", "learning rate"],
  ].filter(([name]) => path[name].some((value) => value !== null));
  return path.time.map((time, i) =>
    [
      `<b>${escapeTags(path.name)}, ${group.time} ${formatNumber(time)}</b>`,
      ...rows.map(([name, label]) => `${label} ${formatKnown(path[name][i])}`),
      `off the plane ${formatKnown(path.distance[i])}${formatShare(path.percent[i])}`,
    ].join("<br>"),
  );
}

const formatShare = (percent) => (percent === null ? "" : ` (${formatNumber(percent, 3)}%)`);

// The checkpoints with a mark of their own: drops of the learning rate, the end and the start.
export function findMarks(path) {
  const placed = indicesOf(path.x).filter((i) => path.x[i] !== null && path.y[i] !== null);
  return [
    ...path.drops.map((i) => ({ kind: "drop", i })),
    { kind: "end", i: placed.at(-1) },
    { kind: "start", i: placed[0] },
  ];
}

const indicesOf = (values) => [...values.keys()];
