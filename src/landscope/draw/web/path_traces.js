// Paths in the plots of a plane: over the contours, and floating over the surface.

import {
  dashOf,
  describeCheckpoints,
  findMarks,
  groupOf,
  hasFloatingPaths,
  inkOf,
  isSingle,
  pathHeights,
  timeColors,
} from "./paths.js";
import { content, state } from "./state.js";
import { color } from "./theme.js";

const HOVER = "%{text}<extra></extra>";

// ---- over the contours --------------------------------------------------------------------------

const FLAT_SYMBOLS = { drop: "triangle-down", end: "star", start: "circle" };
const FLAT_SIZES = { drop: 11, end: 15, start: 10 };

export function tracePathsOverContours(k) {
  const group = groupOf(k);
  if (!group || !state.paths) return [];
  return group.paths.flatMap((path, p) => [
    traceHalo(path),
    traceFlatPath(group, path, p),
    traceFlatMarks(group, path),
  ]);
}

// A white line below the path, so that it is seen over dark and bright colors.
function traceHalo(path) {
  const line = { width: 5, color: "#fff" };
  return { ...traceInPlane(path), mode: "lines", hoverinfo: "skip", line };
}

function traceFlatPath(group, path, p) {
  const single = isSingle(group);
  const size = path.x.length > 60 ? 4 : 6;
  return {
    ...traceInPlane(path),
    mode: "lines+markers",
    name: path.name,
    text: describeCheckpoints(group, path),
    hovertemplate: HOVER,
    line: {
      width: 2.4,
      color: single ? content.pathColors[3] : path.color,
      dash: single ? "solid" : dashOf(p),
    },
    marker: single
      ? { size, line: { width: 0.6, color: "#fff" }, ...timeColors(path) }
      : { size: 4, color: path.color },
  };
}

const traceInPlane = ({ x, y }) => ({ type: "scatter", x, y, connectgaps: false });

function traceFlatMarks(group, path) {
  const single = isSingle(group);
  const marks = findMarks(path);
  return {
    type: "scatter",
    mode: "markers",
    x: marks.map(({ i }) => path.x[i]),
    y: marks.map(({ i }) => path.y[i]),
    hoverinfo: "skip",
    cliponaxis: false,
    marker: {
      symbol: marks.map(({ kind }) => FLAT_SYMBOLS[kind]),
      size: marks.map(({ kind }) => FLAT_SIZES[kind]),
      color: single ? "#fff" : path.color,
      line: { width: 1.2, color: single ? "#000" : "#fff" },
      opacity: 1,
    },
  };
}

// ---- over the surface ---------------------------------------------------------------------------

// plotly.js has neither a star nor a triangle in space.
const FLOATING_SYMBOLS = { drop: "diamond", end: "cross", start: "circle" };

export function traceFloatingPaths(k) {
  if (!hasFloatingPaths(k)) return [];
  const group = groupOf(k);
  return group.paths.flatMap((path, p) => {
    const [heights, feet] = pathHeights(path);
    return [
      traceStems(path, heights, feet),
      traceFloatingPath(group, path, p, heights),
      traceFloatingMarks(group, path, heights),
    ];
  });
}

// Upright lines from the checkpoints to the surface, with null between them.
function traceStems(path, heights, feet) {
  const stems = { x: [], y: [], z: [] };
  heights.forEach((height, i) => {
    if (height === null || feet[i] === null || height === feet[i]) return;
    stems.x.push(path.x[i], path.x[i], null);
    stems.y.push(path.y[i], path.y[i], null);
    stems.z.push(height, feet[i], null);
  });
  const line = { width: 2, color: color("--ink") };
  return {
    type: "scatter3d",
    mode: "lines",
    ...stems,
    hoverinfo: "skip",
    connectgaps: false,
    line,
  };
}

function traceFloatingPath(group, path, p, heights) {
  const ink = inkOf(group, path);
  const single = isSingle(group);
  return {
    type: "scatter3d",
    mode: "lines+markers",
    name: path.name,
    x: path.x,
    y: path.y,
    z: heights,
    text: describeCheckpoints(group, path),
    hovertemplate: HOVER,
    connectgaps: false,
    line: { width: 6, ...(single ? timeColors(path) : { color: ink, dash: dashOf(p) }) },
    marker: {
      size: 2.2,
      line: { width: 0 },
      ...(single ? timeColors(path) : { color: ink }),
    },
  };
}

function traceFloatingMarks(group, path, heights) {
  const single = isSingle(group);
  const marks = findMarks(path);
  return {
    type: "scatter3d",
    mode: "markers",
    x: marks.map(({ i }) => path.x[i]),
    y: marks.map(({ i }) => path.y[i]),
    z: marks.map(({ i }) => heights[i]),
    hoverinfo: "skip",
    marker: {
      symbol: marks.map(({ kind }) => FLOATING_SYMBOLS[kind]),
      size: marks.map(({ kind }) => (kind === "end" ? 8 : 5)),
      color: single ? "#fff" : inkOf(group, path),
      line: { width: 2, color: single ? "#000" : "#fff" },
      opacity: 1,
    },
  };
}
