// The elements of the page, built before plotly.js is read, so that nothing moves when it draws.

import { resetScale, showControls } from "./controls.js";
import { byId, createElement } from "./dom.js";
import { showFacts } from "./facts.js";
import { anyPaths, groupOf, isSingle } from "./paths.js";
import { content, indices, isLine, lands, mainQuantity } from "./state.js";
import { touch } from "./theme.js";

export function buildPage() {
  byId("summary").textContent = describeContent();
  byId("explanation").textContent = content.explanation;
  const panels = byId("panels");
  panels.classList.toggle("single", lands.length === 1);
  if (isLine) panels.append(buildLineChart());
  for (const k of indices) {
    panels.append(buildPanel(k));
    byId("provenance").append(...buildProvenance(lands[k]));
  }
  fillControls();
  for (const k of indices) showFacts(k, mainQuantity());
}

function describeContent() {
  const { x, y } = lands[0].axes;
  const several = lands.length > 1;
  const size = isLine ? x.at.length : `${x.at.length} × ${y.at.length}`;
  const kind = content.kind + (several ? "s" : "");
  const grids = new Set(lands.map((land) => JSON.stringify(land.axes)));
  return `${lands.length} ${kind}, ${size} points${grids.size > 1 ? " in the first" : ""}`;
}

function fillControls() {
  const options = content.quantities.map((q) =>
    createElement("option", { value: q.name }, q.label),
  );
  if (content.curves.length > 1)
    options.unshift(createElement("option", { value: "" }, "all curves"));
  byId("quantity").append(...options);
  byId("quantity-choice").hidden = options.length < 2;
  for (const node of document.querySelectorAll(".for-several"))
    node.hidden = lands.length < 2 || isLine;
  for (const node of document.querySelectorAll(".for-paths")) node.hidden = !anyPaths;
  for (const node of document.querySelectorAll(".for-planes")) node.hidden = isLine;
  resetScale();
  showControls();
}

// ---- panels -------------------------------------------------------------------------------------

const createDiv = (attributes, ...children) => createElement("div", attributes, ...children);

const createNote = (k) =>
  createElement("p", { class: "note", id: `note-${k}`, "aria-live": "polite" });

function buildLineChart() {
  const plot = createDiv({ class: "line-plot", id: "line" });
  return createElement("section", { class: "panel wide" }, plot, createNote(0));
}

function buildPanel(k) {
  const title = createElement("h2", { id: `name-${k}` }, lands[k].label);
  const plots = isLine ? [] : [buildPlots(k), ...buildPathParts(k), createNote(k)];
  const facts = createElement("dl", { class: "facts", id: `facts-${k}` });
  const attributes = { class: "panel", "aria-labelledby": `name-${k}` };
  return createElement("section", attributes, title, ...plots, facts);
}

function buildPlots(k) {
  const label = lands[k].label;
  const surface = createDiv({
    class: "surface-plot",
    id: `surface-${k}`,
    tabindex: 0,
    role: "group",
    "aria-label": `${label}: surface. Arrow keys turn it, plus and minus zoom.`,
  });
  const contours = createDiv({
    class: "contour-plot",
    id: `contour-${k}`,
    role: "group",
    "aria-label": `${label}: contours`,
  });
  const name = createDiv({ class: "bar-name", id: `bar-name-${k}` });
  const bars = [buildBar({ class: "bar", id: `bar-${k}` }), name, ...buildTimeBar(k)];
  const shielded = createDiv({ class: "shielded" }, surface, ...buildShield(k));
  return createDiv({ class: "plots" }, shielded, createDiv({}, contours, ...bars));
}

// On a touch screen a finger on the surface scrolls the page until the surface is tapped.
function buildShield(k) {
  const texts = [lands[k].label, "tap to turn the surface"];
  const shield = createElement("button", { class: "shield", type: "button" }, "Tap to turn");
  shield.setAttribute("aria-label", texts.join(": "));
  const done = createElement("button", { class: "unshield", type: "button", hidden: "" }, "Done");
  const turn = (isTurning) => {
    shield.hidden = isTurning;
    done.hidden = !isTurning;
  };
  shield.addEventListener("click", () => turn(true));
  done.addEventListener("click", () => turn(false));
  return touch && !isLine ? [shield, done] : [];
}

const buildBar = (attributes) => createDiv(attributes, createElement("i"), createDiv({}));

// A single path is colored by time.
function buildTimeBar(k) {
  const group = groupOf(k);
  if (!group || !isSingle(group)) return [];
  const classes = "bar path-scale path-part";
  return [buildBar({ class: classes, id: `path-scale-${k}`, title: group.time })];
}

function buildPathParts(k) {
  const group = groupOf(k);
  if (!group) return [];
  const charts = [buildChart(k, "distance", "How far off the plane the path runs")];
  if (group.scale)
    charts.push(buildChart(k, "losses", "Loss at the checkpoint and at its projection"));
  const key = createDiv({ class: "key", id: `key-${k}` });
  return [createDiv({ class: "path-part" }, key, createDiv({ class: "charts" }, ...charts))];
}

function buildChart(k, name, title) {
  const label = `${lands[k].label}: ${title}`;
  const attributes = { class: "chart", id: `${name}-${k}`, role: "group", "aria-label": label };
  return createDiv({}, createElement("h3", {}, title), createDiv(attributes));
}

// ---- how a landscape was made -------------------------------------------------------------------

function buildProvenance(land) {
  const title = createElement("h2", {}, land.label);
  if (!land.attrs.length)
    return [title, createElement("p", { class: "summary" }, "Nothing was noted.")];
  const rows = land.attrs.map(([key, value]) => {
    const head = createElement("th", { scope: "row" }, key);
    return createElement("tr", {}, head, createElement("td", {}, value));
  });
  return [title, createElement("table", {}, createElement("tbody", {}, ...rows))];
}
