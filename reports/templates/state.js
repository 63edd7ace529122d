// What the reader has chosen, kept in the address: whoever is sent the address sees the same view.
const state = (() => {
  const listeners = [];
  let chosen = new Map();

  const text = () => {
    const sorted = [...chosen].sort(([a], [b]) => (a < b ? -1 : 1));
    return new URLSearchParams(sorted.flatMap(([key, all]) => all.map((each) => [key, each]))).toString();
  };
  const parsed = () => {
    const found = new Map();
    const hash = location.hash.slice(1);
    if (hash && !hash.includes("=")) return new Map([["at", [hash]]]);
    for (const [key, each] of new URLSearchParams(hash)) found.set(key, [...(found.get(key) ?? []), each]);
    return found;
  };
  const tell = (keys) => listeners.forEach((listener) => listener(keys));
  const same = (a, b) => a.length === b.length && a.every((each, place) => each === b[place]);

  addEventListener("hashchange", () => {
    if (location.hash.slice(1) === text()) return;
    const before = chosen;
    chosen = parsed();
    const keys = new Set([...before.keys(), ...chosen.keys()]);
    tell(new Set([...keys].filter((key) => key === "at" || !same(before.get(key) ?? [], chosen.get(key) ?? []))));
  });
  chosen = parsed();

  return {
    list: (key) => chosen.get(key) ?? [],
    get: (key, otherwise = null) => chosen.get(key)?.[0] ?? otherwise,
    // several keys at once, so that listeners are told once; null or an empty list takes a key away
    set(changes) {
      const changed = new Set();
      for (const [key, given] of Object.entries(changes)) {
        const all = given === null || given === "" ? [] : [given].flat().map(String);
        if (same(chosen.get(key) ?? [], all)) continue;
        changed.add(key);
        if (all.length) chosen.set(key, all);
        else chosen.delete(key);
      }
      if (!changed.size) return;
      const address = text();
      history.replaceState(null, "", address ? `#${address}` : location.pathname + location.search);
      tell(changed);
    },
    clear: (keep = []) => state.set(Object.fromEntries([...chosen.keys()].filter((k) => !keep.includes(k)).map((k) => [k, null]))),
    on: (listener) => listeners.push(listener),
  };
})();
