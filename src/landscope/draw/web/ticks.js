// Round numbers for axes, color bars and contour levels.

import { isLog, toValue } from "./heights.js";

export function niceStep(rough, steps = [1, 2, 2.5, 5, 10]) {
  const unit = 10 ** Math.floor(Math.log10(rough));
  return unit * steps.find((step) => step * unit >= rough * (1 - 1e-9));
}

// The multiples of a step between two values, without the noise of floating point numbers.
export function multiplesOf(step, lo, hi) {
  const multiples = [];
  for (let k = Math.ceil(lo / step - 1e-9); k * step <= hi + 1e-9 * step; k++)
    multiples.push(+(k * step).toPrecision(12));
  return multiples;
}

// Round values between two heights: on a log scale 1, 2, 5 or powers of ten.
export function chooseTicks([lo, hi], count = 6) {
  if (isLog() && hi - lo > 0.9) return chooseLogTicks(lo, hi, count);
  const [first, last] = [toValue(lo), toValue(hi)];
  return multiplesOf(niceStep((last - first) / count), first, last);
}

function chooseLogTicks(lo, hi, count) {
  const stride = Math.max(1, Math.ceil((hi - lo) / count));
  const values = [];
  for (let k = Math.floor(lo / stride) * stride; k <= hi; k += stride)
    for (const digit of leadingDigits(hi - lo, count)) values.push(Number(`${digit}e${k}`));
  return values.filter((v) => Math.log10(v) >= lo - 1e-9 && Math.log10(v) <= hi + 1e-9);
}

function leadingDigits(decades, count) {
  if (decades > 0.6 * count) return [1];
  return decades > 0.4 * count ? [1, 3] : [1, 2, 5];
}

// Steps of 1, 2, 2.5 and 5 on both scales, so that contours lie at round heights.
export function chooseLevels([lo, hi], count) {
  const size = niceStep((hi - lo) / count);
  return { start: Math.ceil(lo / size + 1e-9) * size, end: hi, size };
}
