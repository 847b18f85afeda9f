// Numbers and labels as text.

export const MINUS = "\u2212";

// All digits of a number.
export const formatExact = (value) => String(value).replaceAll("-", MINUS);

export function formatNumber(value, digits = 4) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text =
    size >= 1e-4 && size < 1e5
      ? String(+value.toPrecision(digits))
      : value
          .toExponential(digits - 1)
          .replace(/\.?0+e/, "e")
          .replace("e+", "e");
  return text.replaceAll("-", MINUS);
}

// The digits that show the differences within a range: three, or more where it is narrow.
export function countDigits(values) {
  const finite = values.filter((value) => value !== null);
  const [lo, hi] = [Math.min(...finite), Math.max(...finite)];
  const ratio = Math.max(Math.abs(lo), Math.abs(hi)) / (hi - lo || 1);
  return Math.min(12, 3 + Math.max(0, Math.floor(Math.log10(ratio || 1))));
}

// The fewest digits that tell the values apart.
export function formatDistinct(values, fewest = 4) {
  const distinct = new Set(values).size;
  for (let digits = fewest; digits < 17; digits++) {
    const texts = values.map((value) => formatNumber(value, digits));
    if (new Set(texts).size === distinct) return texts;
  }
  return values.map(formatExact);
}

// A value with the unit of its label: "loss (nat)" gives "loss 0.123 nat".
export function nameValue(label, text) {
  const unit = label.match(/ \(([^()]*)\)$/)?.[1] ?? "";
  return `${shorten(label)} ${text}${unit === "%" ? " %" : unit && ` ${unit}`}`;
}

// A label without what stands in parentheses at its end.
export const shorten = (label) => label.replace(/ \(.*\)$/, "");

// A label that names the explained variance is longer than its axis on a small screen.
export const breakLabel = (label) => (label.length > 36 ? label.replace(" (", "<br>(") : label);

// plotly.js reads tags in the text that it draws; the name of a path is plain text.
export const escapeTags = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
