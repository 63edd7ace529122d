// Puts the charts on the page: for each kind one drawing a setting, two of them at first, and all of them when asked.
const AT_FIRST = 2;

const charts = (() => {
  const main = document.getElementById("charts");
  const menu = document.getElementById("kinds");
  const kinds = new Map(); // id → { section, facets, more, entry, drawn }
  let turn = 0;

  const button = (text, name, label) => element("button", { type: "button", "data-do": name, "aria-label": label, title: label }, text);

  function build() {
    for (const kind of KINDS) {
      const facets = element("div", { class: "facets" });
      const more = element("button", { type: "button", class: "more", hidden: true });
      const section = element("section", { class: "kind", id: `chart-${kind.id}`, "aria-labelledby": `title-${kind.id}` },
        element("h3", { id: `title-${kind.id}`, tabindex: -1 }, kind.title), element("p", { class: "meta" }, kind.caption), facets, more);
      section.hidden = true;
      const control = kind.control?.make() ?? null;
      if (control) facets.before(control.place);
      more.addEventListener("click", () => {
        const open = state.list("all");
        state.set({ all: open.includes(kind.id) ? open.filter((id) => id !== kind.id) : [...open, kind.id] });
      });
      const entry = element("li", { hidden: true }, element("a", { href: `#chart-${kind.id}` }, kind.title));
      menu.append(entry);
      main.append(section);
      kinds.set(kind.id, { kind, section, facets, more, entry, control, drawn: new Map() });
    }
  }

  const zoomKey = (kind, spec) => `zoom-${kind.id}${spec.y.type === "names" ? "-rows" : ""}`;
  const overLengths = (kind, spec) => kind.lengths && spec.x.title === LENGTH_AXIS;
  const precise = (ends) => ends.map((end) => String(Number(end.toPrecision(4)))).join("~");

  function zoomOf(kind, spec) {
    const ends = (text) => {
      const found = (text ?? "").split("~").map(Number);
      return found.length === 2 && found.every(Number.isFinite) && found[0] < found[1] ? found : null;
    };
    const [x, y] = (state.get(zoomKey(kind, spec)) ?? "").split("_").map(ends);
    return { x: x ?? null, y: y ?? null };
  }

  function zoomTo(kind, spec, wanted) {
    const key = zoomKey(kind, spec);
    if (!wanted) return state.set({ [key]: null, ...(overLengths(kind, spec) ? { [LENGTHS]: null } : {}) });
    const { x, y } = wanted;
    if (!overLengths(kind, spec)) return state.set({ [key]: `${precise(x)}${y ? `_${precise(y)}` : ""}` });
    // a pull along lengths holds for all charts and the table: it is a filter
    const inside = [...new Set(column("n_k"))].filter((n) => n >= x[0] && n <= x[1]);
    const lengths = inside.length ? `${Math.min(...inside)}-${Math.max(...inside)}` : null;
    return state.set({ [LENGTHS]: lengths ?? state.get(LENGTHS), page: null, ...(y ? { [key]: `_${precise(y)}` } : {}) });
  }

  function described(spec) {
    const points = spec.series.filter(({ muted }) => !muted).flatMap(({ label, points: all }) => all.map((p) => ({ label, ...p })));
    if (!points.length) return "";
    const byName = spec.y.type === "names";
    const end = byName ? null : Math.max(...points.map(({ x }) => x));
    const last = byName || spec.names === "beside" ? points : points.filter(({ x }) => x === end);
    const reading = byName ? ({ x }) => x : ({ y }) => y;
    const ordered = [...last].sort((a, b) => reading(a) - reading(b));
    const axis = byName ? spec.x.title : spec.y.title;
    const where = byName || spec.names === "beside" ? "" : `, at ${plain(end)}`;
    return `${axis}${where}: lowest ${ordered[0].label}, ${digits(reading(ordered[0]))}; highest ${ordered.at(-1).label}, ${digits(reading(ordered.at(-1)))}. ${plural(spec.series.length, "line or row", "lines or rows")}.`;
  }

  function facet(each, setting, spec) {
    const { kind } = each;
    const name = `${kind.id}-${setting.number}`;
    let made = each.drawn.get(name);
    if (!made) {
      const place = element("div", { class: "place", id: `plot-${name}`, tabindex: 0, role: "group", "aria-describedby": `said-${name}` });
      const readout = element("p", { class: "readout", role: "status" });
      const told = element("p", { class: "unseen", id: `said-${name}` });
      const tools = element("div", { class: "tools" }, button("+", "in", `Zoom in: ${kind.title}, ${setting.title}`), button("−", "out", `Zoom out: ${kind.title}, ${setting.title}`), button("All", "all", `Show all: ${kind.title}, ${setting.title}`));
      const drawn = kind.real && setting.drawn ? element("span", { class: "wrong" }, "Drawn input: rankings differ on real input.") : null;
      const head = element("figcaption", {}, element("strong", {}, kind.once ? "All variants" : setting.title), element("span", {}, kind.once ? "" : setting.detail, drawn ? " " : "", drawn));
      const figure = element("figure", { class: "facet-chart" }, head, tools, place, told, readout);
      made = { figure, place, readout, told, chart: null, spec: null };
      place.setAttribute("aria-label", `Chart: ${kind.title}, ${setting.phrase}. Arrow keys step through its points, Enter shows the record, plus and minus zoom, 0 shows all.`);
      pointing.attend(place, readout, () => made.chart, (wanted) => zoomTo(kind, made.spec, wanted));
      tools.addEventListener("click", (event) => {
        const what = event.target.dataset.do;
        if (what === "all") zoomTo(kind, made.spec, null);
        else if (what && made.chart.x.back) zoomTo(kind, made.spec, pointing.zoomed(made.chart, what === "in" ? 0.5 : 2));
      });
      each.drawn.set(name, made);
    }
    made.spec = spec;
    made.told.textContent = described(spec);
    return made;
  }

  const place = (made, kind) => { made.chart = draw(made.place, made.spec, zoomOf(kind, made.spec)); };

  function drawKind(each, found) {
    const { kind, section, facets, more, entry, control } = each;
    control?.read();
    const open = state.list("all").includes(kind.id);
    const order = kind.tasks ? data.tasks : [...data.settings].sort((a, b) => (kind.real ? a.drawn - b.drawn : 0));
    const groups = kind.tasks ? new Map(data.tasks.map((task) => [task.number, task])) : kind.once ? new Map([[order[0].number, found]]) : grouped(found, num("setting"));
    const specs = order.filter(({ number }) => groups.has(number)).map((setting) => [setting, kind.make(groups.get(setting.number))]).filter(([, spec]) => spec);
    section.hidden = entry.hidden = !specs.length;
    const now = (open ? specs : specs.slice(0, AT_FIRST)).map(([setting, spec]) => facet(each, setting, spec));
    const before = [...facets.children];
    if (now.length !== before.length || now.some(({ figure }, i) => figure !== before[i])) facets.replaceChildren(...now.map(({ figure }) => figure));
    for (const made of now) place(made, kind);
    more.hidden = specs.length <= AT_FIRST;
    more.textContent = open ? `Show the first ${AT_FIRST} only` : `Show all ${specs.length}`;
    more.setAttribute("aria-expanded", String(open));
    return now.length;
  }

  // what is in view first, the rest in pauses, so that a click is never waited for
  function refresh(found, done) {
    turn += 1;
    const mine = turn;
    const waiting = [...kinds.values()];
    const near = (each) => (each.section.hidden ? 1e6 : Math.abs(each.section.getBoundingClientRect().top));
    if (document.documentElement.dataset.ready) waiting.sort((a, b) => near(a) - near(b));
    let total = 0;
    const step = () => {
      if (mine !== turn) return;
      const each = waiting.shift();
      if (!each) {
        document.getElementById("nothing").hidden = total > 0;
        pointing.mark(null);
        done?.();
        return;
      }
      const number = drawKind(each, found);
      total += number;
      if (number && total === number) first();
      setTimeout(step, 0);
    };
    step();
  }
  // those alone whose own control has moved
  function controlled(found, keys) {
    for (const each of kinds.values()) if (keys.has(each.kind.control?.key)) drawKind(each, found);
    pointing.mark(null);
  }
  function first() {
    if (document.documentElement.dataset.firstChartMs) return;
    performance.mark("attnbench-first-chart");
    document.documentElement.dataset.firstChartMs = String(Math.round(performance.now()));
  }

  // the same again at another width
  function fit() {
    for (const { kind, section, drawn } of kinds.values()) {
      if (!section.hidden) for (const made of drawn.values()) if (made.place.isConnected) place(made, kind);
    }
    pointing.mark(null);
  }
  return { build, refresh, controlled, fit };
})();
