// Ties the parts together: what the reader chooses goes into the address, and from there to charts and table.
(() => {
  const form = document.getElementById("filters");
  const summary = document.getElementById("filters-summary");
  const told = document.getElementById("filters-told");
  const lengths = document.getElementById("length");
  const reset = document.getElementById("reset");
  const drawing = new Set([...filters.keys, LENGTHS, "y", "length", "all"]);

  const known = [...new Set(column("n_k"))].sort((a, b) => a - b);
  for (const n of known) lengths.append(element("option", { value: n }, count(n)));
  lengths.addEventListener("change", () => state.set({ length: lengths.value || null }));
  document.getElementById("axis").addEventListener("change", (event) => state.set({ y: event.target.value || null }));
  reset.addEventListener("click", () => state.clear(["sort", "way", "columns"]));
  document.getElementById("share").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      told.textContent = "The address of this view is copied.";
    } catch {
      told.textContent = "The address in the browser's bar holds this view.";
    }
  });

  filters.build(document.getElementById("facets"));
  charts.build();
  table.build();

  function controls(found) {
    filters.refresh(form);
    lengths.value = state.get("length", "");
    document.getElementById("axis").value = state.get("y", "");
    const active = filters.active();
    summary.textContent = active ? `Filters (${active} in use)` : "Filters";
    const [low, high] = filters.range();
    const range = low === undefined ? "" : `, lengths ${count(low)} to ${count(high)}`;
    const pinned = state.list("pin");
    told.textContent = `${plural(found.length, "record")} of ${count(data.count)}${range}${pinned.length ? `; pinned: ${pinned.join(", ")}` : ""}`;
    reset.hidden = !active && !pinned.length && !state.get("q") && !state.get("length") && !state.get("y") && !state.get(SHARE);
  }

  function goTo(id) {
    const target = document.getElementById(id);
    if (!target) return;
    target.closest("details")?.setAttribute("open", "");
    target.scrollIntoView({ block: "start" });
    const head = target.matches("h2, h3, table") ? target : target.querySelector("h2, h3") ?? target;
    head.setAttribute("tabindex", "-1");
    head.focus({ preventScroll: true });
  }

  function update(keys) {
    const all = keys === null;
    const has = (...names) => all || names.some((name) => keys.has(name));
    const zoomed = !all && [...keys].some((key) => key.startsWith("zoom-"));
    const redraw = zoomed || has(...drawing);
    const found = filters.shown();
    if (redraw || has("pin", "q", SHARE)) controls(found);
    if (redraw) charts.refresh(found, settled);
    else charts.controlled(found, keys);
    if (has("q", "sort", "way", "page", "columns", "record", ...filters.keys, LENGTHS)) table.refresh(found);
    if (has("record")) {
      table.single();
      if (state.get("record") && rowOf(state.get("record")) !== undefined) goTo("record");
    }
    if (!all && keys.has("at") && state.get("at")) goTo(state.get("at"));
  }
  function settled() {
    if (document.documentElement.dataset.ready) return;
    document.documentElement.dataset.ready = "yes";
    if (state.get("at")) goTo(state.get("at"));
    else if (rowOf(state.get("record")) !== undefined) goTo("record");
  }

  // links within the page move in it, and leave what was chosen in the address
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#"]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const hash = link.getAttribute("href").slice(1);
    const wanted = hash.includes("=") ? Object.fromEntries(new URLSearchParams(hash)) : { at: hash };
    const before = state.get(Object.keys(wanted)[0]);
    state.set("record" in wanted ? { ...wanted, at: null } : wanted);
    if (wanted.at && before === wanted.at) goTo(wanted.at);
    if (wanted.record && before === wanted.record) goTo("record");
  });

  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's bars come and go: the height alone redraws nothing
    width = innerWidth;
    requestAnimationFrame(charts.fit);
  });
  let opened_ = [];
  addEventListener("beforeprint", () => {
    opened_ = [...document.querySelectorAll("details:not([open])")];
    opened_.forEach((each) => each.setAttribute("open", ""));
    charts.fit();
  });
  addEventListener("afterprint", () => { opened_.forEach((each) => each.removeAttribute("open")); charts.fit(); });

  if (matchMedia("(min-width: 62rem)").matches) document.getElementById("filters-box").open = true;
  document.documentElement.classList.add("live");
  state.on(update);
  update(null);
})();
