// Which records are looked at: form controls, one group for each field that differs. Nothing ticked in a group: all of it.
const FACETS = [
  ["family", "Family"], ["mode", "Mode"], ["causality", "Mask"], ["inputs", "Inputs"], ["dtype", "Dtype"],
  ["machine", "Run and machine"], ["threads", "Threads"], ["device", "Device"], ["compiled", "Compiled"],
  ["shape", "Shape"], ["kind", "Kind"], ["status", "Status"], ["label", "Variant"],
];
const LENGTHS = "n";

const filters = (() => {
  const words = (key, row) => {
    const found = value(key, row);
    return found === null || found === undefined ? "none" : found === true ? "yes" : found === false ? "no" : String(found);
  };
  const kept = new Map(); // key → the text of each row
  const textOf = (key) => {
    if (!kept.has(key)) kept.set(key, rows.map((row) => words(key, row)));
    return kept.get(key);
  };
  const facets = FACETS.map(([key, title]) => {
    const texts = new Map();
    for (const each of textOf(key)) texts.set(each, (texts.get(each) ?? 0) + 1);
    const order = data.orders[key] ?? [];
    const place = (each) => (order.includes(each) ? order.indexOf(each) : order.length);
    const values = [...texts.keys()].sort((a, b) => place(a) - place(b) || a.localeCompare(b, "en", { numeric: true }));
    return { key, title, values };
  }).filter(({ values }) => values.length > 1);

  const range = () => state.get(LENGTHS)?.split("-").map(Number).filter((end) => end > 0) ?? [];

  function shown() {
    const tests = facets
      .map(({ key, values }) => [textOf(key), new Set(state.list(key).filter((each) => values.includes(each)))])
      .filter(([, wanted]) => wanted.size);
    const [low, high] = range();
    const lengths = column("n_k");
    return rows.filter((row) => tests.every(([texts, wanted]) => wanted.has(texts[row]))
      && (high === undefined || (lengths[row] >= low && lengths[row] <= high)));
  }

  const counts = new Map(); // element of a count, by key and value
  function build(place) {
    for (const { key, title, values } of facets) {
      const many = values.length > 8;
      const group = element("fieldset", { class: "facet" }, element("legend", {}, title));
      const list = element("div", { class: many ? "choices many" : "choices", tabindex: many ? 0 : null,
        role: many ? "group" : null, "aria-label": many ? `${title}: ${values.length} choices` : null });
      for (const each of values) {
        const box = element("input", { type: "checkbox", name: key, value: each });
        const number = element("span", { class: "count" });
        counts.set(`${key}\n${each}`, number);
        const name = element("span", { class: "name" }, each);
        const family = key === "family" ? each : key === "label" ? variant(each)?.family : null;
        if (family in data.families) name.style.color = `var(--${family})`;
        list.append(element("label", {}, box, name, number));
      }
      group.append(list);
      place.append(group);
    }
    place.addEventListener("change", (event) => {
      const { name } = event.target;
      if (!facets.some(({ key }) => key === name)) return;
      const ticked = [...place.querySelectorAll("input:checked")].filter((box) => box.name === name);
      state.set({ [name]: ticked.map((box) => box.value), page: null });
    });
  }

  // how many records each choice would show, the other groups as they are
  function refresh(place) {
    for (const box of place.querySelectorAll("input[type=checkbox]")) {
      if (facets.some(({ key }) => key === box.name)) box.checked = state.list(box.name).includes(box.value);
    }
    const wanted = facets.map(({ key }) => new Set(state.list(key)));
    const totals = new Map();
    for (const row of rows) {
      const missed = [];
      for (let f = 0; f < facets.length && missed.length < 2; f += 1) {
        if (wanted[f].size && !wanted[f].has(textOf(facets[f].key)[row])) missed.push(f);
      }
      if (missed.length > 1) continue;
      for (const f of missed.length ? missed : facets.keys()) {
        const name = `${facets[f].key}\n${textOf(facets[f].key)[row]}`;
        totals.set(name, (totals.get(name) ?? 0) + 1);
      }
    }
    for (const [name, place_] of counts) place_.textContent = count(totals.get(name) ?? 0);
  }

  const active = () => facets.filter(({ key }) => state.list(key).length).length + (range().length ? 1 : 0);
  return { facets, shown, build, refresh, active, range, keys: facets.map(({ key }) => key) };
})();
