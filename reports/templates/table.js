// The table of all records that the filters let through: sorted, searched, paged, copied, saved.
const PAGE = 50;
const USUAL = ["case_id", "label", "mode", "causality", "n_k", "inputs", "dtype", "threads", "status", "time_s", "time_s_low",
  "time_s_high", "baseline", "ratio", "ratio_low", "ratio_high", "peak_bytes", "state_bytes", "fidelity_error", "error", "ceiling_share", "machine"];
const SHORT = 60;

const table = (() => {
  const place = document.getElementById("table");
  const head = element("tr");
  const body = element("tbody");
  const caption = element("caption");
  const status = document.getElementById("found");
  const pages = document.getElementById("pages");
  const search = document.getElementById("search");
  const chosen = document.getElementById("record");
  let found = [];
  let wanted = rows;

  const differs = (name) => data.columns[name] && !("all" in data.columns[name]);
  const usual = USUAL.filter((name) => data.columns[name] && (differs(name) || ["case_id", "label", "status"].includes(name)));
  const every = Object.keys(data.columns).filter((name) => !data.hidden.includes(name));
  const shown = () => (state.get("columns") === "all" ? every.filter(differs) : usual);

  const texts = (given) => (given === null || given === undefined ? "" : given === true ? "yes" : given === false ? "no" : String(given));
  const cell = (name, row) => {
    const given = value(name, row);
    return isNumber(given) && !Number.isInteger(given) ? String(Number(given.toPrecision(4))) : texts(given);
  };

  const hay = [];
  const straw = (row) => (hay[row] ??= every.map((name) => texts(value(name, row))).join("\n").toLowerCase());

  function sorted(all) {
    const name = state.get("sort");
    if (!name || !data.columns[name]) return all;
    const way = state.get("way") === "down" ? -1 : 1;
    const values = column(name);
    const empty = (row) => values[row] === null || values[row] === undefined;
    return [...all].sort((a, b) => {
      if (empty(a) || empty(b)) return empty(a) - empty(b); // what has no figure stands last, both ways
      const [p, q] = [values[a], values[b]];
      return way * (typeof p === "number" ? p - q : String(p).localeCompare(String(q), "en", { numeric: true })) || a - b;
    });
  }

  function headings(columns) {
    head.replaceChildren(...columns.map((name) => {
      const down = state.get("way") === "down";
      const active = state.get("sort") === name;
      const button = element("button", { type: "button", "data-sort": name }, name, element("span", { "aria-hidden": "true" }, active ? (down ? " ▼" : " ▲") : ""));
      return element("th", { scope: "col", "aria-sort": active ? (down ? "descending" : "ascending") : "none" }, button);
    }));
  }

  function line(row, columns) {
    const made = element("tr", { "data-record": reference(row) });
    if (state.get("record") === reference(row)) made.classList.add("chosen");
    columns.forEach((name, place_) => {
      const text = cell(name, row);
      const short = text.length > SHORT ? `${text.slice(0, SHORT)}…` : text;
      const inside = name === "case_id" ? element("a", { href: `#record=${reference(row)}` }, short) : element("bdi", {}, short);
      if (name === "label") inside.style.color = `var(--${variant(text)?.family ?? "ink"})`;
      made.append(element(place_ ? "td" : "th", { scope: place_ ? null : "row", class: isNumber(value(name, row)) ? "figure" : null, title: short === text ? null : text }, inside));
    });
    return made;
  }

  function turn() {
    const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
    const page = Math.min(Math.max(0, Number(state.get("page", 1)) - 1 || 0), last);
    const columns = shown();
    headings(columns);
    body.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map((row) => line(row, columns)));
    const from = found.length ? page * PAGE + 1 : 0;
    status.textContent = `${plural(found.length, "record")} of ${count(data.count)}${found.length ? `, shown ${count(from)} to ${count(Math.min(from + PAGE - 1, found.length))}` : ""}`;
    const button = (text, to, able) => element("button", { type: "button", "data-page": to, disabled: !able }, text);
    pages.replaceChildren(button("First", 1, page > 0), button("Previous", page, page > 0), element("span", {}, `page ${count(page + 1)} of ${count(last + 1)}`),
      button("Next", page + 2, page < last), button("Last", last + 1, page < last));
    pages.hidden = last === 0;
  }

  function refresh(all) {
    wanted = all ?? wanted;
    const needles = state.get("q", "").toLowerCase().split(/\s+/).filter(Boolean);
    found = sorted(needles.length ? wanted.filter((row) => needles.every((needle) => straw(row).includes(needle))) : wanted);
    if (document.activeElement !== search) search.value = state.get("q", "");
    document.getElementById("all-columns").checked = state.get("columns") === "all";
    turn();
  }

  // one record, all of its fields: what every figure on the page leads to
  function single() {
    const row = rowOf(state.get("record"));
    chosen.hidden = row === undefined;
    if (row === undefined) return;
    const list = element("dl", { class: "facts" });
    for (const name of every) {
      const given = value(name, row);
      if (given !== null && given !== undefined && given !== "") list.append(element("dt", {}, name), element("dd", {}, element("bdi", {}, texts(given))));
    }
    chosen.replaceChildren(element("h3", {}, `Record ${value("case_id", row)}`), list, element("button", { type: "button", "data-close": true }, "Close this record"));
  }

  // a cell that a spreadsheet would take for a formula is marked as text
  const safe = (text) => (/^[=+@\t\r]|^-(?![\d.])/.test(text) ? `'${text}` : text);
  const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const csv = (columns) => [columns, ...found.map((row) => columns.map((name) => safe(texts(value(name, row)))))].map((each) => each.map(quoted).join(",")).join("\r\n") + "\r\n";
  const tabbed = (columns) => [columns, ...found.map((row) => columns.map((name) => safe(texts(value(name, row))).replace(/\s+/g, " ")))].map((each) => each.join("\t")).join("\n");

  function save() {
    const address = URL.createObjectURL(new Blob(["\ufeff", csv(every)], { type: "text/csv" }));
    const link = element("a", { href: address, download: "attnbench-records.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    status.textContent = `${plural(found.length, "record")} saved as attnbench-records.csv`;
  }
  async function copy() {
    const text = tabbed(shown());
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const field = element("textarea", { "aria-label": "Copied records" });
      field.value = text;
      document.body.append(field);
      field.select();
      document.execCommand("copy"); // where a page opened from a file may not use the clipboard otherwise
      field.remove();
    }
    status.textContent = `${plural(found.length, "record")} copied`;
  }

  function build() {
    place.append(element("table", { class: "records" }, caption, element("thead", {}, head), body));
    caption.textContent = "One row a record; the first column leads to all of its fields";
    head.addEventListener("click", (event) => {
      const name = event.target.closest("button")?.dataset.sort;
      if (!name) return;
      const again = state.get("sort") === name;
      state.set({ sort: name, way: again && state.get("way") !== "down" ? "down" : null, page: null });
      head.querySelector(`[data-sort="${CSS.escape(name)}"]`)?.focus();
    });
    pages.addEventListener("click", (event) => {
      const to = event.target.dataset.page;
      if (to) state.set({ page: to === "1" ? null : to });
    });
    search.addEventListener("input", () => state.set({ q: search.value.trim(), page: null }));
    document.getElementById("all-columns").addEventListener("change", (event) => state.set({ columns: event.target.checked ? "all" : null }));
    document.getElementById("save").addEventListener("click", save);
    document.getElementById("copy").addEventListener("click", copy);
    chosen.addEventListener("click", (event) => { if ("close" in event.target.dataset) state.set({ record: null }); });
  }
  return { build, refresh, single, csv: () => csv(every) };
})();
