// The cameras of the surfaces: turned with the mouse or the keyboard, one for all or one for each.

import { byId } from "./dom.js";
import { indices, isLine, state } from "./state.js";
import { webgl } from "./theme.js";

// Change of azimuth and elevation in radians, and factor of the distance.
const KEY_TURNS = {
  ArrowLeft: [-0.1, 0, 1],
  ArrowRight: [0.1, 0, 1],
  ArrowUp: [0, 0.08, 1],
  ArrowDown: [0, -0.08, 1],
  "+": [0, 0, 0.92],
  "=": [0, 0, 0.92],
  "-": [0, 0, 1.08],
};
const HIGHEST = 1.5; // just below the pole, where the view would flip
const LOWEST = 0.03; // just above the floor: from below, labels pile up
const VIEWS = { top: [-Math.PI / 2, HIGHEST], side: [-Math.PI / 2, 0.12] }; // azimuth, elevation

// Surfaces that turn because another one does: their events are not those of a reader.
const following = new Set();

export function moveCamera(k) {
  if (isLine || !webgl) return; // nothing is drawn that has a camera
  following.add(k);
  const camera = structuredClone(state.cameras[k]);
  Plotly.relayout(`surface-${k}`, { "scene.camera": camera }).finally(() => following.delete(k));
}

export function followCamera(leader) {
  for (const k of indices.filter((each) => each !== leader)) {
    state.cameras[k] = structuredClone(state.cameras[leader]);
    moveCamera(k);
  }
}

export function watchCamera(k) {
  const plot = byId(`surface-${k}`);
  const keepCamera = (event) => {
    const turned = Object.keys(event).some((key) => key.startsWith("scene.camera"));
    if (following.has(k) || !turned) return;
    state.cameras[k] = structuredClone(event["scene.camera"] ?? plot.layout.scene.camera);
    if (state.linked) followCamera(k);
  };
  plot.on("plotly_relayout", (event) => {
    keepCamera(event);
    stayAboveFloor(k);
  });
  plot.on("plotly_relayouting", keepCamera);
  plot.addEventListener("keydown", (event) => turnByKey(k, event));
}

// A drag with the mouse can end below the surface; then the camera returns to the floor.
function stayAboveFloor(k) {
  const { eye } = state.cameras[k];
  if (following.has(k) || eye.z >= 0) return;
  state.cameras[k].eye = turnEye(eye, [0, 0, 1]);
  moveCamera(k);
  if (state.linked) followCamera(k);
}

export function lookFrom(name) {
  const [azimuth, elevation] = VIEWS[name];
  for (const k of indices) {
    const { x, y, z } = state.cameras[k].eye;
    state.cameras[k].eye = placeEye(Math.hypot(x, y, z), azimuth, elevation);
    moveCamera(k);
  }
}

function turnByKey(k, event) {
  const turn = KEY_TURNS[event.key];
  if (!turn || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  state.cameras[k].eye = turnEye(state.cameras[k].eye, turn);
  moveCamera(k);
  if (state.linked) followCamera(k);
}

function turnEye({ x, y, z }, [azimuthStep, elevationStep, zoom]) {
  const distance = Math.hypot(x, y, z);
  const azimuth = Math.atan2(y, x) + azimuthStep;
  const raised = Math.asin(z / distance) + elevationStep;
  return placeEye(distance * zoom, azimuth, Math.min(HIGHEST, Math.max(LOWEST, raised)));
}

const placeEye = (distance, azimuth, elevation) => ({
  x: distance * Math.cos(elevation) * Math.cos(azimuth),
  y: distance * Math.cos(elevation) * Math.sin(azimuth),
  z: distance * Math.sin(elevation),
});
