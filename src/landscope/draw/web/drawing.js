// Draw everything that depends on the state, at most once a frame.

import { watchCamera } from "./cameras.js";
import { byId, createElement } from "./dom.js";
import { showFacts } from "./facts.js";
import { drawLines } from "./lines.js";
import { writeNote } from "./notes.js";
import { drawCharts, drawKey } from "./path_charts.js";
import { groupOf } from "./paths.js";
import { drawBar, drawContours, drawSurface } from "./planes.js";
import { indices, isLine, mainQuantity, scaledQuantities, state } from "./state.js";
import { webgl } from "./theme.js";

const NO_WEBGL =
  "This browser offers no WebGL, so the surface cannot be drawn. " +
  "The contours below hold the same values.";

let scheduled = false;

export function draw() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(async () => {
    scheduled = false;
    for (const k of indices) showFacts(k, mainQuantity());
    if (isLine) await drawLineChart();
    else for (const k of indices) await drawPlane(k);
    if (!state.ready) finishFirstDrawing();
    state.drawings += 1;
  });
}

async function drawLineChart() {
  await drawLines();
  writeNote(0, scaledQuantities(), indices);
}

async function drawPlane(k) {
  drawBar(k);
  writeNote(k, [state.quantity], [k]);
  await drawContours(k);
  if (groupOf(k)) await drawPathParts(k);
  if (webgl) await drawSurface(k);
}

async function drawPathParts(k) {
  for (const part of document.querySelectorAll(".path-part")) part.hidden = !state.paths;
  drawKey(k);
  if (state.paths) await drawCharts(k);
}

function finishFirstDrawing() {
  if (!isLine) indices.forEach(webgl ? watchCamera : explainMissingSurface);
  state.firstDrawn = performance.now();
  state.ready = true;
}

function explainMissingSurface(k) {
  byId(`surface-${k}`).append(createElement("p", {}, NO_WEBGL));
}
