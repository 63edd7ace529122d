// One chart: scales, axes, marks, names beside lines; hover, keys and zoom. It knows nothing of attention.
const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "6 2.5", "2 2", "8 2.5 2 2.5", "4 2", "11 4"];
const SIGNS = [
  "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0Z", "M-3-3H3V3H-3Z", "M0-3.9L3.6 2.7H-3.6Z",
  "M0-4.2L4.2 0L0 4.2L-4.2 0Z", "M0 3.9L3.6-2.7H-3.6Z", "M-1.3-3.8H1.3V-1.3H3.8V1.3H1.3V3.8H-1.3V1.3H-3.8V-1.3H-1.3Z",
];
const LINE_GAP = 13;
const SIGN_WIDTH = 6.4; // of a letter at 11 px, about

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, given] of Object.entries(attributes)) {
    if (given !== null && given !== undefined) made.setAttribute(key, typeof given === "number" ? +given.toFixed(2) : given);
  }
  made.append(...children);
  return made;
}

// places for labels: as near to the wanted ones as may be with a gap between any two, all within low..high
function spread(wanted, gap, low, high) {
  if (!wanted.length) return [];
  gap = Math.min(gap, (high - low) / Math.max(wanted.length - 1, 1));
  const order = wanted.map((_, i) => i).sort((a, b) => wanted[a] - wanted[b]);
  const blocks = []; // [start, how many]
  for (const i of order) {
    let start = Math.min(Math.max(wanted[i], low), high);
    let size = 1;
    while (blocks.length && blocks.at(-1)[0] + blocks.at(-1)[1] * gap > start) {
      const [before, number] = blocks.pop();
      start = (before * number + (start - number * gap) * size) / (number + size);
      size += number;
    }
    blocks.push([Math.min(Math.max(start, low), high - (size - 1) * gap), size]);
  }
  const places = blocks.flatMap(([start, size]) => Array.from({ length: size }, (_, k) => start + k * gap));
  for (let k = places.length - 2; k >= 0; k -= 1) places[k] = Math.min(places[k], places[k + 1] - gap);
  const result = [];
  order.forEach((i, k) => { result[i] = places[k]; });
  return result;
}

function logTicks(low, high, base, most) {
  const span = Math.log10(high / low);
  const steps = base === 10 && span < 2.2 ? (span < 0.5 ? [1, 1.5, 2, 3, 4, 5, 7] : [1, 2, 5]) : [1];
  const found = [];
  for (let e = Math.floor(Math.log(low) / Math.log(base)); e <= Math.ceil(Math.log(high) / Math.log(base)); e += 1) {
    for (const step of steps) {
      const at = step * base ** e;
      if (at >= low && at <= high) found.push(at);
    }
  }
  const each = Math.ceil(found.length / most);
  return found.filter((_, place) => place % each === 0);
}

function linearTicks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(+at.toPrecision(12));
  return found;
}

// a scale from values to pixels. `lane` gives what is below a floor, zero too, a place of its own on a logarithmic axis
function scale(axis, values, from, to, zoom) {
  if (axis.type === "names") {
    const step = (to - from) / Math.max(axis.names.length, 1);
    const places = new Map(axis.names.map((name, i) => [name, from + (i + 0.5) * step]));
    return { at: (name) => places.get(name), ticks: axis.names, inside: () => true, names: true };
  }
  const log = axis.type === "log";
  const over = axis.lane ? values.filter((each) => each >= axis.lane.below) : values;
  let found = over.filter((each) => isNumber(each) && (!log || each > 0));
  if (!found.length) found = axis.lane ? [0.1, 1] : [1];
  let [low, high] = zoom ?? [Math.min(...found), Math.max(...found)];
  if (!zoom) {
    const room = log ? Math.max(Math.log(high / low) * 0.05, 0.06) : (high - low || Math.abs(high) || 1) * 0.06;
    [low, high] = log ? [low * Math.exp(-room), high * Math.exp(room)] : [low - room, high + room];
    if (axis.bounds) [low, high] = [Math.max(low, axis.bounds[0]), Math.min(high, axis.bounds[1])];
  }
  const start = axis.lane && !zoom ? from + (to - from) * 0.2 : from;
  // a logarithmic axis has no zero: what is far below its end lies beyond the clipped edge
  const share = log ? (each) => Math.log(Math.max(each, low * 1e-3) / low) / Math.log(high / low) : (each) => (each - low) / (high - low);
  const floor = axis.lane && !zoom ? axis.lane.below : null;
  const at = (each) => (floor !== null && each < floor ? from + (to - from) * 0.1 : start + (to - start) * share(each));
  const back = (pixel) => {
    const part = (pixel - start) / (to - start);
    return log ? low * (high / low) ** part : low + (high - low) * part;
  };
  const most = Math.max(2, Math.floor(Math.abs(to - start) / (axis.across ? 62 : 34)));
  const ticks = axis.ticks ? axis.ticks.filter((each) => each >= low && each <= high)
    : log ? logTicks(low, high, axis.base ?? 10, most) : linearTicks(low, high, most);
  const inside = (each) => (floor !== null && each < floor) || (isNumber(each) && each >= low * (1 - 1e-9) && each <= high * (1 + 1e-9));
  return { at, back, ticks, inside, low, high, laneEnd: floor === null ? null : start };
}

// names of points in a scatter chart: next to their points, off other points and names as far as there is room
function beside(points, widths, room) {
  const taken = points.map(([x, y]) => [x - 6, y - 6, x + 6, y + 6]);
  const shared = (a, b) => Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const around = [[10, 0, "start"], [-10, 0, "end"]];
  for (const ring of [14, 26, 39, 52]) for (const up of [-ring, ring]) around.push([0, up, "middle"], [5, up, "start"], [-5, up, "end"]);
  const order = points.map((_, i) => i).sort((a, b) => points[a][0] - points[b][0]);
  const found = [];
  for (const i of order) {
    let best = null;
    for (const [dx, dy, anchor] of around) {
      const [x, y] = [points[i][0] + dx, points[i][1] + dy];
      const left = x - { start: 0, middle: widths[i] / 2, end: widths[i] }[anchor];
      const box = [left, y - 6.5, left + widths[i], y + 6.5];
      const hidden = (widths[i] * 13 - shared(box, room)) * 4 + taken.reduce((sum, other, k) => sum + (k === i ? 0 : shared(box, other)), 0);
      const cost = hidden * 1000 + Math.abs(dx) + 1.5 * Math.abs(dy);
      if (!best || cost < best.cost) best = { cost, x, y, anchor, box };
    }
    taken.push(best.box);
    found[i] = best;
  }
  return found;
}

const shortened = (text, most) => (text.length > most ? `${text.slice(0, Math.max(most - 1, 1))}…` : text);

// draws a specification into a place; returns its points with their pixels, and the scales
function draw(place, spec, zoom) {
  const width = Math.max(place.clientWidth || 600, 260);
  const longest = Math.max(...spec.series.map(({ label }) => label.length), 4);
  const column_ = Math.min(longest * SIGN_WIDTH + 20, width * 0.36);
  const byName = spec.y.type === "names";
  const ends = spec.names === "end";
  const noted = byName && (spec.rules ?? []).some(({ text }) => text);
  const margin = { top: noted ? 24 : 12, bottom: 42, left: byName ? column_ : 54, right: ends ? column_ : 16 };
  const height = byName ? spec.y.names.length * 22 + margin.top + margin.bottom
    : Math.max(spec.height ?? 300, ends ? spec.series.length * LINE_GAP + margin.bottom : 0);
  const [left, right, top, bottom] = [margin.left, width - margin.right, margin.top, height - margin.bottom];
  const every = spec.series.flatMap(({ points }) => points);
  const drawn = zoom?.x ? every.filter(({ x }) => x >= zoom.x[0] && x <= zoom.x[1]) : every;
  const guide = (axis) => (spec.rules ?? []).filter((rule) => rule.axis === axis && rule.include).map(({ at }) => at).concat(spec.include?.[axis] ?? []);
  const xs = drawn.flatMap(({ x, xlow, xhigh }) => [x, xlow ?? x, xhigh ?? x]).concat(guide("x"));
  const ys = drawn.flatMap(({ y, low, high }) => [y, low ?? y, high ?? y]).concat(guide("y"));
  const x = scale({ ...spec.x, across: true }, xs, left, right, zoom?.x);
  const y = byName ? scale(spec.y, [], top, bottom) : scale(spec.y, ys, bottom, top, zoom?.y);
  const clip = `clip-${place.id}`;
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true", class: "plot" });
  root.append(svg("defs", {}, svg("clipPath", { id: clip }, svg("rect", { x: left - 6, y: top - 6, width: right - left + 12, height: bottom - top + 12 }))));

  const frame = svg("g", { class: "axes" });
  if (y.laneEnd) frame.append(svg("rect", { class: "lane", x: left, y: y.laneEnd, width: right - left, height: bottom - y.laneEnd }));
  for (const at of x.ticks) {
    frame.append(svg("line", { class: "grid", x1: x.at(at), x2: x.at(at), y1: top, y2: bottom }),
      svg("text", { x: x.at(at), y: bottom + 15, "text-anchor": "middle" }, (spec.x.write ?? plain)(at)));
  }
  for (const at of y.ticks) {
    frame.append(svg("line", { class: "grid", x1: left, x2: right, y1: y.at(at), y2: y.at(at) }));
    const text = svg("text", { x: left - 7, y: y.at(at) + 3.8, "text-anchor": "end" }, byName ? shortened(at, Math.floor((column_ - 14) / SIGN_WIDTH)) : (spec.y.write ?? plain)(at));
    if (byName) {
      text.setAttribute("class", "name");
      text.style.fill = `var(--${spec.series.find(({ label }) => label === at)?.family ?? "ink"})`;
      text.append(svg("title", {}, at));
    }
    frame.append(text);
  }
  if (y.laneEnd) frame.append(svg("text", { x: left - 7, y: y.at(0) + 3.8, "text-anchor": "end" }, spec.y.lane.text));
  frame.append(svg("text", { class: "title", x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, spec.x.title));
  if (!byName) frame.append(svg("text", { class: "title", transform: `translate(11 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, spec.y.title));
  root.append(frame);

  const body = svg("g", { "clip-path": `url(#${clip})` });
  root.append(body);
  for (const { axis, at, text, bad } of spec.rules ?? []) {
    if (!(axis === "x" ? x : y).inside(at)) continue;
    const line = axis === "x" ? { x1: x.at(at), x2: x.at(at), y1: top, y2: bottom } : { x1: left, x2: right, y1: y.at(at), y2: y.at(at) };
    body.append(svg("line", { class: bad ? "rule bad" : "rule", ...line }));
    if (text) root.append(svg("text", { class: bad ? "note bad" : "note", x: axis === "x" ? x.at(at) - 4 : right - 4, y: axis === "x" ? top - 5 : y.at(at) - 4, "text-anchor": "end" }, text));
  }
  for (const { points, text, step } of spec.curves ?? []) {
    const path = points.map(([px, py], i) => (i === 0 ? "M" : step ? `H${x.at(px).toFixed(1)}L` : "L") + `${x.at(px).toFixed(1)} ${y.at(py).toFixed(1)}`).join("");
    body.append(svg("path", { class: "curve", d: path }));
    if (text) {
      const [px, py] = points.at(-1);
      root.append(svg("text", { class: "note", x: Math.min(x.at(px), right) - 4, y: y.at(py) - 6, "text-anchor": "end" }, text));
    }
  }

  const hot = [];
  const last = [];
  for (const line of spec.series) {
    const seen = line.points.filter((point) => x.inside(point.x) && (byName || y.inside(point.y)));
    const group = svg("g", { class: line.muted ? "series muted" : "series", style: `--c:var(--${line.family})` });
    group.dataset.label = line.label;
    if (line.line && line.points.length > 1) {
      const path = line.points.map((p, i) => `${i ? "L" : "M"}${x.at(p.x).toFixed(1)} ${y.at(p.y).toFixed(1)}`).join("");
      group.append(svg("path", { class: "line", d: path, "stroke-dasharray": DASHES[line.style % DASHES.length] || null }));
    }
    for (const point of seen) {
      const [px, py] = [x.at(point.x), y.at(byName ? line.label : point.y)];
      if (isNumber(point.low) && !byName) group.append(svg("line", { class: "range", x1: px, x2: px, y1: y.at(point.low), y2: y.at(point.high) }));
      if (isNumber(point.xlow)) group.append(svg("line", { class: "range", x1: x.at(Math.max(point.xlow, x.low)), x2: x.at(Math.min(point.xhigh, x.high)), y1: py, y2: py }));
      group.append(svg("path", { class: `sign${point.hollow ? " hollow" : ""}${point.bad ? " bad" : ""}`, d: point.sign ?? SIGNS[line.style % SIGNS.length], transform: `translate(${px.toFixed(1)} ${py.toFixed(1)})` }));
      if (!line.silent) hot.push({ ...point, label: line.label, family: line.family, px, py });
    }
    body.append(group);
    if (ends && seen.length) last.push({ line, group, px: x.at(seen.at(-1).x), py: y.at(seen.at(-1).y) });
  }
  const most = Math.floor((column_ - 16) / SIGN_WIDTH);
  spread(last.map(({ py }) => py), LINE_GAP, top + 2, bottom).forEach((at, i) => {
    const { line, px, py } = last[i];
    const group = svg("g", { class: "series end", style: `--c:var(--${line.family})` });
    group.dataset.label = line.label;
    group.append(svg("path", { class: "lead", d: `M${px.toFixed(1)} ${py.toFixed(1)}H${right}L${right + 9} ${at.toFixed(1)}` }),
      svg("text", { class: "name", x: right + 12, y: at + 3.8 }, shortened(line.label, most), svg("title", {}, line.label)));
    root.append(group);
  });
  if (spec.names === "beside") {
    const named = hot.filter((point) => !point.nameless);
    const texts = named.map(({ label }) => shortened(label, 34));
    beside(named.map(({ px, py }) => [px, py]), texts.map((text) => text.length * SIGN_WIDTH), [left, top, width, bottom]).forEach((spot, i) => {
      const group = svg("g", { class: "series end", style: `--c:var(--${named[i].family})` });
      group.dataset.label = named[i].label;
      group.append(svg("text", { class: "name halo", x: spot.x, y: spot.y + 3.8, "text-anchor": spot.anchor }, texts[i]));
      root.append(group);
    });
  }
  const ring = svg("circle", { class: "ring", r: 8, visibility: "hidden" });
  const box = svg("rect", { class: "selection", visibility: "hidden" });
  root.append(ring, box);
  place.replaceChildren(root);
  return { root, hot, x, y, ring, box, left, right, top, bottom, byName };
}
