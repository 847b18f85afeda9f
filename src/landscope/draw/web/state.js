// What the page shows: the data that webpage.py embeds, and the choices that the controls make.

export const content = JSON.parse(document.getElementById("data").textContent);
export const lands = content.landscapes;
export const indices = lands.map((_, k) => k);
export const isLine = content.kind === "line";

// The camera looks from the front, high enough to see the floor of a surface. It is farther away
// on a small screen, where the labels need the room.
const DISTANCE = innerWidth < 520 ? 1.3 : 1.08;
const CAMERA = {
  eye: { x: 1.02 * DISTANCE, y: -1.4 * DISTANCE, z: 1.02 * DISTANCE },
  center: { x: 0, y: 0, z: -0.18 },
  up: { x: 0, y: 0, z: 1 },
};
export const newCameras = () => lands.map(() => structuredClone(CAMERA));

// The empty name means all curves of a line.
const onlyCurve = content.curves.length === 1 ? content.curves[0] : "";
export const firstQuantity = content.quantity || onlyCurve;

// Only the controls and the cameras change the state; tests read it as window.landscope.
export const state = {
  ready: false,
  firstDrawn: null, // milliseconds after the page was opened
  drawings: 0,
  resets: 0,
  quantity: firstQuantity,
  scale: null, // "log" or "linear"
  clip: null, // the value above which heights are cut, or null
  shared: true,
  linked: true,
  paths: true,
  cameras: newCameras(),
};
window.landscope = state;

// ---- quantities ---------------------------------------------------------------------------------

export const quantityOf = (name) => content.quantities.find((q) => q.name === name);

export const shownQuantities = () => (state.quantity ? [state.quantity] : content.curves);

export function mainQuantity() {
  const names = shownQuantities();
  return names.find((name) => !quantityOf(name).percent) ?? names[0];
}

// The quantities that the scale and the limit apply to: on a chart of lines, percentages have an
// axis of their own.
export const scaledQuantities = () =>
  shownQuantities().filter((name) => !isLine || !quantityOf(name).percent);
