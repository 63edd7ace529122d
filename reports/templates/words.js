// Figures in words, as words.py writes them: three significant digits and a unit that a reader need not convert.
const NONE = "—";
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const formats = new Map(); // making one takes a browser long, using it does not
function written(value, options) {
  const key = JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat("en-US", options));
  return formats.get(key).format(value);
}
const count = (value) => written(Math.round(value), {});

function digits(value) {
  if (!isNumber(value)) return NONE;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e6) return value.toExponential(2).replace(/e([+-])(\d)$/, "e$10$2");
  const rounded = Number(value.toPrecision(3));
  const places = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(rounded))));
  return written(rounded, { minimumFractionDigits: places, maximumFractionDigits: places });
}

function seconds(value) {
  if (!isNumber(value)) return NONE;
  for (const [factor, unit] of [[1e6, "µs"], [1e3, "ms"]]) {
    if (Math.abs(value) * factor < 999.5) return `${digits(value * factor)} ${unit}`;
  }
  return `${digits(value)} s`;
}

function bytes(value) {
  if (!isNumber(value)) return NONE;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (Math.abs(value) < 999.5) return unit === "B" ? `${Math.trunc(value)} B` : `${digits(value)} ${unit}`;
    value /= 1024;
  }
  return `${digits(value)} TiB`;
}

function percent(share) {
  if (!isNumber(share)) return NONE;
  if (Math.abs(share) < 1e-3) return "less than 0.1 %";
  return share < 0.1 ? `${(share * 100).toFixed(1)} %` : `${count(share * 100)} %`;
}

function interval(low, high, write = digits) {
  if (!isNumber(low) || !isNumber(high)) return "";
  return low === high ? "" : `${write(low)} to ${write(high)}`;
}

const rate = (unit) => (value) => {
  for (const [factor, prefix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= factor) return `${digits(value / factor)} ${prefix}${unit}`;
  }
  return `${digits(value)} ${unit}`;
};

// a length as an axis writes it: 256, 1k, 32k
const tick = (n) => (n >= 1024 && n % 1024 === 0 ? `${n / 1024}k` : count(n));
// figures of any size on an axis: 0.25, 500, 20k, 1.5M
function plain(value) {
  for (const [from, factor, sign] of [[1e9, 1e9, "G"], [1e6, 1e6, "M"], [1e4, 1e3, "k"]]) {
    if (Math.abs(value) >= from) return `${written(Number((value / factor).toPrecision(4)), {})}${sign}`;
  }
  return written(Number(value.toPrecision(6)), { maximumSignificantDigits: 6 });
}
const plural = (n, thing, things = `${thing}s`) => `${count(n)} ${n === 1 ? thing : things}`;
