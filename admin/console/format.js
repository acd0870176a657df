// How figures and times are written. Whatever is not a finite number, or below zero, is written as a dash.

export const DASH = "–";
const grouped = new Intl.NumberFormat("en-US", {maximumFractionDigits: 0});

export const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
const unknown = (value) => number(value) === null || value < 0;
/** Text of the document, which nobody trusts: a string of bounded length. */
export const text = (value, most = 400) => {
  if (typeof value !== "string")
    return "";
  return value.length > most ? `${value.slice(0, most)}…` : value;
};
export const list = (value) => (Array.isArray(value) ? value : []);
export const object = (value) =>
  (value !== null && typeof value === "object" && !Array.isArray(value) ? value : {});

// Three digits, so that figures in a column have nearly the same width.
function digits(value) {
  const size = Math.abs(value);
  if (size === 0 || size >= 99.95)
    return grouped.format(value);
  return value.toFixed(size >= 9.995 ? 1 : 2);
}

export function bytes(value) {
  if (unknown(value))
    return DASH;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (Math.abs(value) >= 1023.5 && unit < units.length - 1) {
    value /= 1024;
    ++unit;
  }
  return `${unit === 0 ? grouped.format(value) : digits(value)} ${units[unit]}`;
}

export const byteRate = (value) => (unknown(value) ? DASH : `${bytes(value)}/s`);

export function count(value) {
  if (unknown(value))
    return DASH;
  if (Math.abs(value) < 999_999.5)
    return grouped.format(value);
  return Math.abs(value) < 999_500_000 ? `${digits(value / 1e6)} M` : `${digits(value / 1e9)} G`;
}

export function countRate(value, unit = "op/s") {
  if (unknown(value))
    return DASH;
  return `${value > 0 && value < 99.95 ? value.toFixed(value < 9.995 ? 1 : 0) : count(value)} ${unit}`;
}

/** A latency, in seconds. Infinity is what lies beyond the last bucket. */
export function latency(seconds, last = null) {
  if (seconds === Infinity)
    return last === null ? "long" : `> ${latency(last)}`;
  if (unknown(seconds))
    return DASH;
  if (seconds < 0.0009995)
    return `${digits(seconds * 1e6)} µs`;
  return seconds < 0.9995 ? `${digits(seconds * 1e3)} ms` : `${digits(seconds)} s`;
}

export function percent(ratio, places = 1) {
  if (unknown(ratio))
    return DASH;
  // Never "100 %" of what is not quite all, nor "0 %" of something.
  const shown = (ratio * 100).toFixed(places);
  const step = 10 ** -places;
  if (ratio < 1 && Number(shown) >= 100)
    return `${(100 - step).toFixed(places)} %`;
  if (ratio > 0 && Number(shown) <= 0)
    return `< ${step.toFixed(places)} %`;
  return `${Number(shown) === 0 || Number(shown) >= 100 ? (ratio * 100).toFixed(0) : shown} %`;
}

/** A span of time, in its two largest units. */
export function span(seconds) {
  if (number(seconds) === null)
    return DASH;
  let rest = Math.max(0, Math.floor(seconds));
  const parts = [];
  for (const [unit, name] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]) {
    const whole = Math.floor(rest / unit);
    if (whole > 0)
      parts.push(`${whole} ${name}`);
    else if (parts.length > 0)
      break;
    rest -= whole * unit;
    if (parts.length === 2)
      break;
  }
  return parts.length > 0 ? parts.join(" ") : "0 s";
}

/** Seconds since 1970, in the reader's time zone. */
export function moment(seconds) {
  if (!number(seconds))
    return DASH;
  const date = new Date(seconds * 1000);
  const two = (value) => String(value).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} `
    + `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;
