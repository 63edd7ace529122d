// Charts of what follows from the records: slopes and crossovers, as Python fitted them, and what a whole model gains.
const SHARE = "share";
const USUAL_SHARE = 50; // of a model's time, in percent, that goes into attention

function fitted(found, what, axis, point, rules) {
  const present = new Set(found.map((row) => `${value("setting", row)} ${value("label", row)}`));
  const here = new Set(found.map(num("setting")));
  const all = data.fits.filter((fit) => fit.what === what && here.has(fit.setting) && present.has(`${fit.setting} ${fit.label}`));
  return byVariant(all.map((fit) => ({ label: fit.label, ...variant(fit.label), points: point(fit) })), axis, rules);
}

const DECLARED = "M0-6V6";
const exponentChart = (what) => (found) => fitted(found, what, { type: "linear", title: "Slope of log " + (what === "time" ? "time" : "memory") + " over log length", write: plain },
  (fit) => [
    { x: fit.value, xlow: fit.low, xhigh: fit.high, row: rowOf(fit.record), facts: () => [["slope", `${digits(fit.value)} (${interval(fit.low, fit.high) || "no interval"})`], ["declared", fit.declared === null ? "" : digits(fit.declared)], ["lengths", fit.lengths]] },
    ...(fit.declared === null ? [] : [{ x: fit.declared, sign: DECLARED, row: rowOf(fit.record), facts: () => [["declared slope", digits(fit.declared)]] }]),
  ], [{ axis: "x", at: 1, text: "linear", include: true }, { axis: "x", at: 2, text: "quadratic", include: true }]);

// hollow: not crossed yet, at the length where the fit says that it will be, or at the right edge where it says nothing
const crossoverChart = (what, verb) => (found) => {
  const here = new Set(found.map(num("setting")));
  const fits = data.fits.filter((fit) => fit.what === what && here.has(fit.setting));
  const most = Math.max(...fits.map(({ longest }) => longest));
  const last = Math.max(most, ...fits.map(({ beyond }) => beyond?.[0] ?? 0));
  const first = Math.min(...fits.map(({ value: at }) => at ?? most));
  const edge = last * Math.max(1.2, (last / first) ** 0.18); // far enough for both names of the lines
  const ends = ({ value: at, low, high, beyond }) => {
    if (at !== null) return { x: at, xlow: low ?? at, xhigh: high ?? edge };
    if (beyond) return { x: beyond[0], xlow: beyond[1], xhigh: beyond[2] ?? edge };
    return low === null ? { x: edge } : { x: edge, xlow: low, xhigh: edge };
  };
  const none = fits.some(({ value: at, beyond }) => at === null && !beyond);
  return fitted(found, what, { type: "log", base: 2, title: `Stays ${verb} from this length on`, write: tick },
    (fit) => [{ ...ends(fit), hollow: fit.value === null, row: rowOf(fit.record), facts: () => [["crossover", fit.text], ["lengths", fit.lengths]] }],
    [{ axis: "x", at: most, text: "longest measured", include: true }, ...(none ? [{ axis: "x", at: edge, text: "none", include: true }] : [])]);
};

// Amdahl 1967, as amdahl() of results/derived.py has it: attention's share of the time takes `ratio` times as long
const gainOf = (ratio, share) => 1 / (1 - share + share * ratio);

function chosenShare() {
  const given = Number(state.get(SHARE) ?? USUAL_SHARE);
  return given >= 1 && given <= 99 ? Math.round(given) : USUAL_SHARE;
}

function gainChart(found) {
  const compared = (row) => isTimed(row) && value("ratio", row) > 0;
  const length = atLength(found, compared);
  if (length === undefined) return null;
  const share = chosenShare() / 100;
  const all = series(found.filter((row) => compared(row) && value("n_k", row) === length), (row) => {
    const [ratio, low, high] = named(row, "ratio", "ratio_low", "ratio_high");
    const gain = gainOf(ratio, share);
    const ends = { xlow: gainOf(high ?? ratio, share), xhigh: gainOf(low ?? ratio, share) };
    return { x: gain, ...ends, facts: () => [["the whole model", `${digits(gain)} times as fast (${interval(ends.xlow, ends.xhigh) || "the baseline"})`], ...facts(row)] };
  });
  const bound = 1 / (1 - share);
  return byVariant(all, { type: "log", title: `Times as fast, at ${count(length)} tokens`, write: plain },
    [{ axis: "x", at: 1, include: true }, { axis: "x", at: bound, text: `at most ${digits(bound)}`, include: true }]);
}

// the control of that chart: the address keeps what it says
function shareControl() {
  const input = element("input", { type: "range", id: "share-of-attention", min: 1, max: 99, step: 1 });
  const told = element("output", { for: input.id });
  const read = () => {
    input.value = chosenShare();
    told.textContent = `${chosenShare()} %`;
  };
  input.addEventListener("input", () => state.set({ [SHARE]: Number(input.value) === USUAL_SHARE ? null : input.value }));
  read();
  return { place: element("p", { class: "bar" }, element("label", { for: input.id }, "Attention's share of the model's time"), input, told), read };
}
