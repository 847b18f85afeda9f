// Heights: the values of a quantity on the scale that is shown, cut at the limit.

import { indices, isLine, lands, state } from "./state.js";

export const isLog = () => state.scale === "log";

// The height of a value, or null where it has none.
export function toHeight(value) {
  if (value === null || (isLog() && value <= 0)) return null;
  return isLog() ? Math.log10(value) : value;
}

export const toValue = (height) => (isLog() ? 10 ** height : height);

export const isAboveLimit = (value) => value !== null && state.clip !== null && value > state.clip;

export const limitValue = (value) => (isAboveLimit(value) ? state.clip : value);

export const limitHeights = (values) => values.map((value) => toHeight(limitValue(value)));

export function valuesOf(k, name) {
  const values = lands[k].values[name];
  return isLine ? values : values.flat();
}

// The lowest and the highest height of some quantities of some landscapes.
export function heightSpan(ks, names) {
  let lo = Infinity;
  let hi = -Infinity;
  for (const k of ks) {
    for (const value of names.flatMap((name) => valuesOf(k, name))) {
      const height = toHeight(value);
      if (height !== null && height < lo) lo = height;
      if (height !== null && height > hi) hi = height;
    }
  }
  if (lo > hi) return [0, 1];
  return lo === hi ? widen(lo) : [lo, hi];
}

// An interval around the height of a constant landscape.
function widen(height) {
  const half = isLog() ? 0.3 : Math.abs(height) / 2 || 0.5;
  return [height - half, height + half];
}

export function limitSpan([lo, hi]) {
  const top = state.clip === null ? hi : Math.min(hi, toHeight(state.clip));
  return [lo, top > lo ? top : hi];
}

// The heights that the colors of a plane run over.
export const colorRange = (k) =>
  limitSpan(heightSpan(state.shared ? indices : [k], [state.quantity]));
