// The one store of the page: every record, by columns. All charts and the table read from here, and nothing writes.
const data = JSON.parse(document.getElementById("store").textContent);
const rows = Array.from({ length: data.count }, (_, row) => row);

const opened = new Map();
// a column is one value for all, indices into its different values, or a value a row: see data.py
function column(name) {
  if (!opened.has(name)) {
    const { all, different, at, values } = data.columns[name] ?? { all: null };
    let found = values;
    if (at) found = at.map((place) => (place < 0 ? null : different[place]));
    else if (!values) found = new Array(data.count).fill(all);
    opened.set(name, found);
  }
  return opened.get(name);
}
const value = (name, row) => column(name)[row];
const reference = (row) => `${value("run_number", row)}-${value("case_id", row)}`;

const rowOf = (() => {
  let index;
  return (wanted) => {
    index ??= new Map(rows.map((row) => [reference(row), row]));
    return index.get(wanted);
  };
})();

const variant = (label) => data.variants[label];
const settings = new Map(data.settings.map((setting) => [setting.number, setting]));
const isOk = (row) => value("status", row) === "ok";
const isTimed = (row) => isOk(row) && value("time_s", row) > 0;

// elements and text only: what a record says is never read as markup
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, given] of Object.entries(attributes)) {
    if (given === true) made.setAttribute(key, "");
    else if (given !== false && given !== null && given !== undefined) made.setAttribute(key, String(given));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}
