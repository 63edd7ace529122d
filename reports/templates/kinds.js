// Which charts there are: for each kind, what it shows of the records of one setting. Records in, specifications out.
const NO_DIFFERENCE = 1e-3; // as phrases.py has it: a distance below it is rounding
const LENGTH_AXIS = "Sequence length N (tokens)";
const DISTANCE = "‖out − softmax‖ / ‖softmax‖";

const num = (name) => (row) => value(name, row);
const named = (row, ...names) => names.map((name) => value(name, row));

function facts(row) {
  const [time, low, high, ratio, rlow, rhigh, base] = named(row, "time_s", "time_s_low", "time_s_high", "ratio", "ratio_low", "ratio_high", "baseline");
  const spread_ = interval(low, high, seconds);
  const over = interval(rlow, rhigh);
  const distance = value("kind", row) === "approximate" ? value("fidelity_error", row) : null;
  return [
    ["length", count(value("n_k", row))],
    ["time", time === null ? "" : seconds(time) + (spread_ ? ` (${spread_})` : "")],
    [base ? `over ${base}` : "ratio", ratio === null || value("label", row) === base ? "" : digits(ratio) + (over ? ` (${over})` : "")],
    ["peak memory", value("peak_bytes", row) === null ? "" : bytes(value("peak_bytes", row))],
    ["state", value("state_bytes", row) === null ? "" : bytes(value("state_bytes", row))],
    ["distance", distance === null ? "" : percent(distance)],
    ["settings", variant(value("label", row)).parameters],
  ];
}

const byStyle = (a, b) => {
  const order = Object.keys(data.families);
  return order.indexOf(a.family) - order.indexOf(b.family) || a.style - b.style;
};

function grouped(found, key) {
  const groups = new Map();
  for (const each of found) {
    const name = key(each);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(each);
  }
  return groups;
}

// a series for each variant of some rows, with a point for each row that has one
function series(found, point, more = {}) {
  const all = [];
  for (const [label, mine] of grouped(found, num("label"))) {
    const points = mine.map((row) => ({ row, facts: () => facts(row), ...point(row) })).filter(({ x, y }) => isNumber(x) && (y === undefined || isNumber(y)));
    points.sort((a, b) => a.x - b.x);
    const { family, style } = variant(label);
    if (points.length) all.push({ label, family, style, points, ...more });
  }
  return all.sort(byStyle);
}

const ticksAt = (found) => [...new Set(found.map(num("n_k")))].sort((a, b) => a - b);
function lengthAxis(found) {
  const all = ticksAt(found);
  return { type: "log", base: 2, title: LENGTH_AXIS, ticks: all.filter((_, i) => i % Math.ceil(all.length / 8) === 0), write: tick };
}
const distanceAxis = { type: "log", title: DISTANCE, write: plain, lane: { below: NO_DIFFERENCE, text: "none" } };

// a value over length; dots by variant where there is but one length
function overLength(found, read, axis, ends = () => [null, null], rules = []) {
  const point = (row) => {
    const [low, high] = ends(row);
    return { x: value("n_k", row), y: read(row), low, high };
  };
  const all = series(found, point, { line: true });
  if (!all.length) return null;
  const lengths = new Set(all.flatMap(({ points }) => points.map(({ x }) => x)));
  if (lengths.size > 1) return { x: lengthAxis(found), y: axis, series: all, names: "end", rules };
  const turned = all.map((line) => ({ ...line, line: false, points: line.points.map((p) => ({ ...p, x: p.y, xlow: p.low ?? undefined, xhigh: p.high ?? undefined })) }));
  const [only] = lengths;
  return byVariant(turned, { ...axis, lane: undefined, title: `${axis.title} at ${count(only)} tokens` }, rules.map((rule) => ({ ...rule, axis: "x" })));
}

function byVariant(all, axis, rules = []) {
  const level = axis.type === "log" ? all.filter(({ points }) => points.some(({ x }) => x > 0)) : all;
  if (!level.length) return null;
  const middle = ({ points }) => points[0].x;
  const order = axis.keep ? level : [...level].sort((a, b) => middle(a) - middle(b));
  return { x: axis, y: { type: "names", names: order.map(({ label }) => label) }, series: order, names: "none", rules };
}

const positive = (name) => (row) => (value(name, row) > 0 ? value(name, row) : null);
const times = (factor, read) => (row) => (read(row) === null ? null : read(row) * factor);
const timed = (found) => found.filter(isTimed);
const over = () => state.get("y") === "ratio";

function timeChart(found) {
  const rows_ = timed(found);
  if (over()) {
    const compared = rows_.filter((row) => value("ratio", row) > 0);
    const axis = { type: "log", title: "Time over the fastest exact variant's", write: plain };
    return overLength(compared, num("ratio"), axis, (row) => named(row, "ratio_low", "ratio_high"), [{ axis: "y", at: 1, text: "the fastest exact" }]);
  }
  const ends = (row) => named(row, "time_s_low", "time_s_high").map((each) => (each === null ? null : each * 1e3));
  return overLength(rows_, times(1e3, num("time_s")), { type: "log", title: "Median time of a call (ms)", write: plain }, ends);
}

// the greatest length at which some rows pass a test, or the one that the reader chose
function atLength(found, test) {
  const lengths = ticksAt(found.filter(test));
  const chosen = Number(state.get("length"));
  return lengths.includes(chosen) ? chosen : lengths.at(-1);
}

function fidelityChart(found) {
  const approximate = found.filter((row) => isOk(row) && value("kind", row) === "approximate" && value("fidelity_error", row) !== null);
  const spec = overLength(approximate, num("fidelity_error"), distanceAxis);
  if (!spec || spec.y.type === "names") return spec;
  const nulls = [...grouped(approximate.filter((row) => value("fidelity_error_uniform", row) > 0), num("n_k"))].map(([n, mine]) => {
    const sorted = mine.map(num("fidelity_error_uniform")).sort((a, b) => a - b);
    return { x: n, y: sorted[Math.floor(sorted.length / 2)], facts: () => [["length", count(n)], ["distance", percent(sorted[Math.floor(sorted.length / 2)])]] };
  }).sort((a, b) => a.x - b.x);
  if (nulls.length) spec.series = [...spec.series, { label: "plain mean of values", family: "null", style: 2, points: nulls, line: true, muted: true }];
  return spec;
}

function pareto(points) {
  return points.filter((p) => !points.some((q) => q.x <= p.x && q.y <= p.y && (q.x < p.x || q.y < p.y)));
}

// accuracy against time at one length: what is nearer is lower, what is faster is further left
function tradeChart(found) {
  const close = (row) => isTimed(row) && value("kind", row) === "approximate" && value("fidelity_error", row) !== null;
  const length = atLength(found, close);
  if (length === undefined) return null;
  const rows_ = found.filter((row) => value("n_k", row) === length && (close(row) || (isTimed(row) && value("kind", row) === "exact")));
  const distance = (row) => (value("kind", row) === "exact" || value("fidelity_error", row) < NO_DIFFERENCE ? 0 : value("fidelity_error", row));
  const all = series(rows_, (row) => ({ x: value("time_s", row) * 1e3, y: distance(row) }));
  const front = pareto(all.flatMap(({ points }) => points)).sort((a, b) => a.x - b.x);
  const best = new Set(front);
  for (const line of all) line.points = line.points.map((p) => ({ ...p, hollow: !best.has(p) }));
  return {
    x: { type: "log", title: `Median time of a call at ${count(length)} tokens (ms)`, write: plain }, y: distanceAxis, series: all,
    names: "beside", height: 340, curves: front.length > 1 ? [{ points: front.map(({ x, y }) => [x, y]), step: true }] : [],
  };
}

// what more keys buy: distance against how many keys a query keeps, beside the nulls of as many nearest and as many best
function budgetChart(found) {
  const has = (row) => isOk(row) && value("fidelity_keys", row) > 0 && value("fidelity_error", row) !== null;
  const length = atLength(found, has);
  if (length === undefined) return null;
  const rows_ = found.filter((row) => has(row) && value("n_k", row) === length);
  const all = series(rows_, (row) => ({ x: value("fidelity_keys", row), y: value("fidelity_error", row) }));
  for (const [name, field, style] of [["as many nearest keys", "fidelity_error_window", 1], ["as many best keys", "fidelity_error_oracle", 2]]) {
    const points = rows_.filter((row) => value(field, row) !== null).map((row) => ({
      x: value("fidelity_keys", row), y: value(field, row), nameless: true, row,
      facts: () => [["keys", digits(value("fidelity_keys", row))], ["distance", percent(value(field, row))]] }));
    points.sort((a, b) => a.x - b.x);
    if (points.length) points.at(-1).nameless = false;
    if (points.length) all.push({ label: name, family: "null", style, points, line: true, muted: true });
  }
  return {
    x: { type: "log", base: 2, title: `Keys that a query keeps, of ${count(length)}`, write: plain }, y: distanceAxis,
    series: all, names: "beside", height: 340,
  };
}

const RECALL = [["recall_32", 32], ["recall_64", 64], ["recall_128", 128], ["recall_256", 256]];
function recallChart(found) {
  const once = new Map();
  for (const row of found) if (!once.has(value("label", row)) && isNumber(value("recall_32", row))) once.set(value("label", row), row);
  const all = [...once].map(([label, row]) => {
    const points = RECALL.filter(([field]) => isNumber(value(field, row))).map(([field, pairs]) => ({
      row, x: pairs, y: value(field, row),
      facts: () => [["pairs", count(pairs)], ["recalled", percent(value(field, row))],
        ["with 32 rewritten", isNumber(value("recall_32_rewritten", row)) ? percent(value("recall_32_rewritten", row)) : ""]] }));
    return { label, ...variant(label), points, line: true };
  }).sort(byStyle);
  if (!all.length) return null;
  return {
    x: { type: "log", base: 2, title: "Key–value pairs to be recalled", ticks: RECALL.map(([, pairs]) => pairs), write: count },
    y: { type: "linear", title: "Share recalled", write: plain, bounds: [0, 1.03] }, series: all, names: "end",
  };
}

function rooflineChart(found) {
  const rows_ = timed(found).filter((row) => value("flops_needed", row) > 0 && value("moved_bytes", row) > 0);
  if (!rows_.length) return null;
  const intensity = (row) => value("flops_needed", row) / value("moved_bytes", row);
  const all = series(rows_, (row) => ({ x: intensity(row), y: value("flops_needed", row) / value("time_s", row) / 1e9,
    facts: () => [...facts(row), ["rate", rate("FLOP/s")(value("flops_needed", row) / value("time_s", row))], ["share of ceiling", percent(value("ceiling_share", row))]] }), { line: true });
  const [row] = rows_;
  const ceiling = data.ceilings.find((c) => c.run === value("run_number", row) && c.device === value("device", row) && c.dtype === value("dtype", row) && c.threads === value("threads", row));
  const curves = [];
  let include = {};
  if (ceiling) {
    const xs = all.flatMap(({ points }) => points.map(({ x }) => x));
    const ridge = ceiling.matmul_flops_per_s / ceiling.copy_bytes_per_s;
    const ends = [Math.min(...xs, ridge / 2), ridge, Math.max(...xs, ridge * 2)];
    const points = ends.map((x) => [x, Math.min(ceiling.matmul_flops_per_s, x * ceiling.copy_bytes_per_s) / 1e9]);
    curves.push({ points, text: `measured ceiling, ${rate("FLOP/s")(ceiling.matmul_flops_per_s)}` });
    include = { x: ends, y: points.map(([, y]) => y) };
  }
  return {
    x: { type: "log", title: "Operations needed for each byte needed (FLOP/B)", write: plain },
    y: { type: "log", title: "Needed operations done (GFLOP/s)", write: plain }, series: all, names: "end", curves, include,
  };
}

function errorChart(found) {
  const rows_ = found.filter((row) => value("error", row) !== null && value("error_allowed", row) > 0);
  const all = series(rows_, (row) => ({ x: Math.max(value("error", row) / value("error_allowed", row), 1e-4), bad: value("status", row) === "incorrect",
    facts: () => [["length", count(value("n_k", row))], ["error", `${digits(value("error", row))} of ${digits(value("error_allowed", row))}`], ["in", value("error_of", row) ?? ""], ["status", value("status", row)]] }));
  return byVariant(all, { type: "log", title: "Largest error over what it is held to", write: plain, keep: true }, [{ axis: "x", at: 1, text: "allowed", bad: true, include: true }]);
}

// trained tasks have no rows: families and variants that the filters leave out are left out of them too
function tasksShown(trained) {
  const [families, labels] = [state.list("family"), state.list("label")];
  return trained.filter(({ family, label }) => (!families.length || families.includes(family)) && (!labels.length || labels.includes(label)));
}
const taskFacts = (each) => [["value", each.said], ["over seeds", each.seeds > 1 ? interval(each.low, each.high) : ""], ["learning rate", String(each.lr)], ["state", bytes(each.state)]];
const chanceRule = (task) => (isNumber(task.chance) ? [{ axis: "y", at: task.chance, text: "guessing", include: true }] : []);
const scoreAxis = (task) => ({ type: "linear", title: task.metric, write: plain, ...(task.metric === "accuracy" ? { bounds: [0, 1.03] } : {}) });

function curveChart(task) {
  const all = tasksShown(task.trained).map((each) => ({ ...each, line: true, points: each.curve.filter(([, value_]) => isNumber(value_)).map(([tokens, value_, wall]) => ({
    x: tokens, y: value_, facts: () => [["tokens", count(tokens)], ["value", digits(value_)], ["after", seconds(wall)], ...taskFacts(each).slice(2)] })) }))
    .filter(({ points }) => points.length > 1).sort(byStyle);
  return all.length ? { x: { type: "linear", title: "Tokens trained on", write: plain }, y: scoreAxis(task), series: all, names: "end", rules: chanceRule(task) } : null;
}
function stateChart(task) {
  const all = tasksShown(task.trained).filter((each) => isNumber(each.value) && each.state > 0)
    .map((each) => ({ ...each, points: [{ x: each.state / 1024, y: each.value, low: each.low, high: each.high, facts: () => taskFacts(each) }] }));
  return all.length ? { x: { type: "log", base: 2, title: "State that decoding keeps of one sequence (KiB)", write: plain }, y: scoreAxis(task), series: all, names: "beside", rules: chanceRule(task), height: 340 } : null;
}

const decoding = (found) => found.filter((row) => value("mode", row) === "decode");
const calls = (found) => found.filter((row) => value("mode", row) !== "decode");
const axisOf = (title, base = 10) => ({ type: "log", base, title, write: plain });

const HOLLOW = "Hollow: not up to the longest length that was measured; beyond it, where the fits put it.";

const KINDS = [
  { id: "time", title: "Time of one call", make: (found) => timeChart(calls(found)), lengths: true,
    caption: "Bars, where they are wider than the mark, are 95 % intervals.", ratio: true },
  { id: "memory", title: "Peak memory of one call, above its inputs", lengths: true,
    make: (found) => overLength(calls(found).filter((row) => isOk(row) && value("peak_bytes", row) > 0), times(2 ** -20, num("peak_bytes")), axisOf("Peak memory (MiB)", 2)), caption: "What torch's allocator held at most. Zero bytes have no place on this axis and stand in the table." },
  { id: "throughput", title: "Throughput", lengths: true, make: (found) => overLength(timed(found), positive("tokens_per_s"), axisOf("Tokens a second")), caption: "Queries of all sequences of the batch, over the time of a call." },
  { id: "trade", title: "Accuracy against time", make: tradeChart, choose: true, real: true, caption: "Filled and joined: the Pareto front. Shaded: exact, or within 0.001 of softmax attention. Operators of their own have no such distance and are left out." },
  { id: "fidelity", title: "Distance from softmax attention", make: fidelityChart, real: true, lengths: true, caption: "Approximate variants only. Shaded: within 0.001 of softmax attention." },
  { id: "budget", title: "Distance against budget", make: budgetChart, choose: true, real: true, caption: "Variants that keep some keys and leave out others, beside what as many nearest and as many best keys would give." },
  { id: "recall", title: "Recall of pairs", make: recallChart, caption: "How many key–value pairs a variant that is not trained gives back. Once for each variant.", once: true },
  { id: "exponents", title: "How time grows", make: exponentChart("time"), caption: "Measured slope with its 95 % interval over the lengths of this run; the upright stroke is what the variant declares. Constant costs make slopes of short lengths too flat." },
  { id: "memory-exponents", title: "How memory grows", make: exponentChart("memory"), caption: "Slope of peak memory over length; the upright stroke is what the variant declares. Bytes are counted, so there is no interval." },
  { id: "crossovers", title: "Where leaving exact attention starts to pay", make: crossoverChart("crossover", "faster"), caption: `The length from which a variant stays faster than the fastest exact one, with 95 % intervals. ${HOLLOW}` },
  { id: "memory-crossovers", title: "Where it starts to save memory", make: crossoverChart("memory-crossover", "smaller"), caption: `Peak memory (decoding: with the state) below that of the fastest exact variant at every greater length. ${HOLLOW}` },
  { id: "naive-crossovers", title: "Where it becomes faster than naive", make: crossoverChart("naive-crossover", "faster"), caption: `The same against naive, which writes the whole matrix of weights, with 95 % intervals. ${HOLLOW}` },
  { id: "naive-memory-crossovers", title: "Where it becomes smaller than naive", make: crossoverChart("naive-memory-crossover", "smaller"), caption: `Peak memory (decoding: with the state) below that of naive at every greater length. ${HOLLOW}` },
  { id: "gain", title: "What a whole model gains", make: gainChart, choose: true, control: { key: SHARE, make: shareControl }, caption: "By Amdahl's law, from the measured ratios and their 95 % intervals: how many times as fast a model becomes in which the fastest exact variant takes that share of the time now. A profile of your model tells the share." },
  { id: "decode", title: "Time of one more token", make: (found) => overLength(timed(decoding(found)), times(1e3, num("time_s")), { ...axisOf("Median time of a token (ms)"), lengths: true }, (row) => named(row, "time_s_low", "time_s_high").map((each) => (each === null ? null : each * 1e3))), lengths: true, caption: "Decoding with as many tokens in the past." },
  { id: "state", title: "What decoding keeps", lengths: true, make: (found) => overLength(found.filter((row) => isOk(row) && value("state_bytes", row) > 0), times(2 ** -20, num("state_bytes")), axisOf("State (MiB)", 2)), caption: "Keys and values of a cache, or sums of a fixed size, after a prompt of that length." },
  { id: "curves", title: "Training", tasks: true, make: curveChart, caption: "Value on the validation set, at each variant's best learning rate; of several seeds the one in the middle." },
  { id: "task-state", title: "What a small model learns, against its state", tasks: true, make: stateChart, caption: "Value on the test set; bars are the range over seeds." },
  { id: "roofline", title: "Against the machine's ceilings", make: rooflineChart, caption: "Work that the definition needs, not what the code does: a variant that does more falls below. The line is what this machine was measured to reach." },
  { id: "error", title: "Error against the variant's own definition", make: errorChart, caption: "One mark a length. Right of the line a record is incorrect, and no time of it is published." },
];
