// The controls above the plots: they change the state and have everything drawn anew.

import { followCamera, lookFrom, moveCamera } from "./cameras.js";
import { byId } from "./dom.js";
import { draw } from "./drawing.js";
import { heightSpan, isLog, toValue } from "./heights.js";
import {
  firstQuantity,
  indices,
  newCameras,
  quantityOf,
  scaledQuantities,
  state,
} from "./state.js";
import { formatNumber } from "./text.js";

const SLIDER_END = 1000; // as in page.html; there the heights have no limit

// ---- from the controls to the state -------------------------------------------------------------

export function listenToControls() {
  const listen = (id, event, act) => byId(id).addEventListener(event, act);
  listen("controls", "submit", (event) => event.preventDefault());
  listen("quantity", "change", (event) => change({ quantity: event.target.value }));
  for (const radio of document.getElementsByName("scale"))
    radio.addEventListener("change", () => change({ scale: radio.value }));
  listen("clip", "input", (event) => change({ clip: readSlider(event.target.value) }));
  listen("paths", "change", (event) => change({ paths: event.target.checked }));
  listen("shared", "change", (event) => change({ shared: event.target.checked }));
  listen("linked", "change", (event) => {
    state.linked = event.target.checked;
    if (state.linked) followCamera(0);
  });
  for (const view of ["top", "side"]) listen(`view-${view}`, "click", () => lookFrom(view));
  listen("reset", "click", reset);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

function change(update) {
  Object.assign(state, update);
  if ("quantity" in update) resetScale();
  if ("scale" in update && isLog() && state.clip <= 0) state.clip = null;
  showControls();
  draw();
}

function reset() {
  const axes = { "xaxis.autorange": true, "yaxis.autorange": true };
  for (const plot of document.querySelectorAll(".contour-plot, .chart"))
    Plotly.relayout(plot, axes);
  state.resets += 1; // this undoes the zoom of lines, whose axes have ranges of their own
  state.cameras = newCameras();
  change({ quantity: firstQuantity, shared: true, linked: true, paths: true });
  indices.forEach(moveCamera);
}

// The scale that suits what is shown, without a limit.
export function resetScale() {
  const names = scaledQuantities();
  const isLogFit = names.length > 0 && names.every((name) => quantityOf(name).scale === "log");
  state.scale = isLogFit ? "log" : "linear";
  state.clip = null;
}

// ---- from the state to the controls -------------------------------------------------------------

export function showControls() {
  byId("quantity").value = state.quantity;
  for (const radio of document.getElementsByName("scale")) {
    radio.checked = radio.value === state.scale;
    radio.disabled = radio.value === "log" && !hasLogScale();
  }
  for (const id of ["shared", "linked", "paths"]) byId(id).checked = state[id];
  showLimit();
}

const hasLogScale = () => scaledQuantities().some((name) => quantityOf(name).log);

function showLimit() {
  const slider = byId("clip");
  const text = state.clip === null ? "none" : formatNumber(state.clip, 3);
  slider.value =
    state.clip === null ? SLIDER_END : Math.round(SLIDER_END * limitScale().toShare(state.clip));
  slider.disabled = !scaledQuantities().length;
  slider.setAttribute("aria-valuetext", text);
  byId("clip-value").textContent = text;
}

// ---- the slider of the limit --------------------------------------------------------------------

function readSlider(position) {
  const share = position / SLIDER_END;
  return share >= 1 ? null : limitScale().toLimit(share);
}

// From a share of the slider to a limit and back. The slider moves by factors where values span
// more than one decade, also on a linear scale: there the floor may lie far below the hills.
function limitScale() {
  const [lo, hi] = heightSpan(indices, scaledQuantities()).map(toValue);
  const byFactors = lo > 0 && hi / lo > 20;
  const [a, b] = byFactors ? [Math.log(lo), Math.log(hi)] : [lo, hi];
  return {
    toLimit: (share) => {
      const place = a + share * (b - a);
      return byFactors ? Math.exp(place) : place;
    },
    toShare: (limit) => ((byFactors ? Math.log(limit) : limit) - a) / (b - a),
  };
}
