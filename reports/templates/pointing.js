// Hover, keys, touch and zoom of a chart; what is pointed at in one is pointed out in all.
const pointing = (() => {
  const tip = element("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  document.body.append(tip);

  function mark(label) {
    const pinned = state.list("pin");
    const wanted = new Set(label ? [label, ...pinned] : pinned);
    for (const group of document.querySelectorAll(".series")) {
      group.classList.toggle("dim", wanted.size > 0 && !wanted.has(group.dataset.label));
      group.classList.toggle("hot", wanted.has(group.dataset.label));
    }
  }

  // facts are written when they are asked for: there are thousands of points
  const lines = (point) => [["", point.label], ...point.facts().filter(([, text]) => text !== "" && text !== NONE)];

  function show(point, rectangle) {
    tip.replaceChildren(...lines(point).map(([name, text]) => element("div", {}, name ? element("span", {}, `${name} `) : null, element(name ? "span" : "b", {}, text))));
    tip.hidden = false;
    const across = rectangle.left + point.px;
    const down = rectangle.top + point.py;
    const { offsetWidth, offsetHeight } = tip;
    tip.style.left = `${Math.max(4, across + 16 + offsetWidth > innerWidth ? across - offsetWidth - 16 : across + 16)}px`;
    tip.style.top = `${Math.max(4, Math.min(down - 12, innerHeight - offsetHeight - 4))}px`;
  }
  function hide() {
    tip.hidden = true;
  }

  // a sentence on the point under the chart, with the way to its record, for those who use no mouse
  function say(readout, point) {
    const text = lines(point).map(([name, each]) => (name ? `${name} ${each}` : each)).join(", ");
    readout.replaceChildren(text);
    if (point.row !== undefined) {
      readout.append(" ", element("a", { href: `#record=${reference(point.row)}` }, `record ${value("case_id", point.row).slice(0, 8)}`));
    }
  }

  function ringAt(chart, point) {
    chart.ring.setAttribute("cx", point.px);
    chart.ring.setAttribute("cy", point.py);
    chart.ring.setAttribute("visibility", "visible");
  }

  // `chart()` is the drawing that stands there now; `zoomTo` takes ends in the units of the axes, or null for all
  function attend(place, readout, chart, zoomTo) {
    let current = -1;
    let from = null;
    const nearest = (event) => {
      const { hot, root } = chart();
      const rectangle = root.getBoundingClientRect();
      const [px, py] = [event.clientX - rectangle.left, event.clientY - rectangle.top];
      let [best, least] = [-1, 34 ** 2];
      hot.forEach((point, i) => {
        const far = (point.px - px) ** 2 + (point.py - py) ** 2;
        if (far < least) [best, least] = [i, far];
      });
      return { best, px, py, rectangle };
    };
    const clear = () => {
      chart().ring.setAttribute("visibility", "hidden");
      hide();
      mark(null);
    };
    place.addEventListener("pointermove", (event) => {
      if (from) return stretch(event);
      const named = event.target.closest?.(".series")?.dataset.label;
      const { best, rectangle } = nearest(event);
      if (best >= 0) {
        const point = chart().hot[best];
        ringAt(chart(), point);
        show(point, rectangle);
        mark(point.label);
      } else {
        clear();
        if (named) mark(named);
      }
      return undefined;
    });
    place.addEventListener("pointerleave", () => { if (!from) clear(); });
    place.addEventListener("click", (event) => {
      const { best } = nearest(event);
      const label = best >= 0 ? chart().hot[best].label : event.target.closest?.(".series")?.dataset.label;
      if (best >= 0) {
        current = best;
        say(readout, chart().hot[best]);
      }
      if (label) {
        const pinned = state.list("pin");
        state.set({ pin: pinned.includes(label) ? pinned.filter((each) => each !== label) : [...pinned, label] });
      }
    });

    const limit = ({ px, py }) => {
      const { left, right, top, bottom } = chart();
      return [Math.min(Math.max(px, left), right), Math.min(Math.max(py, top), bottom)];
    };
    const boxed = (event) => {
      const [x, y] = limit(nearest(event));
      return { x: Math.min(x, from[0]), y: Math.min(y, from[1]), width: Math.abs(x - from[0]), height: Math.abs(y - from[1]) };
    };
    const stretch = (event) => {
      const box = boxed(event);
      for (const [key, pixels] of Object.entries(box)) chart().box.setAttribute(key, pixels);
      chart().box.setAttribute("visibility", box.width > 8 || box.height > 8 ? "visible" : "hidden");
    };
    place.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch" || event.button !== 0) return;
      from = limit(nearest(event));
    });
    addEventListener("pointerup", (event) => {
      if (!from) return;
      const box = boxed(event);
      const { x, y, byName, box: drawn } = chart();
      from = null;
      drawn.setAttribute("visibility", "hidden");
      if (box.width < 12 || (!byName && box.height < 6)) return;
      // a wide, flat pull means lengths alone
      const across = [x.back(box.x), x.back(box.x + box.width)];
      zoomTo({ x: across, y: byName || box.height < 24 ? null : [y.back(box.y + box.height), y.back(box.y)] });
      place.addEventListener("click", (event_) => event_.stopImmediatePropagation(), { once: true, capture: true });
      setTimeout(() => clear(), 0);
    });
    place.addEventListener("dblclick", () => zoomTo(null));

    place.addEventListener("keydown", (event) => {
      const { hot, x } = chart();
      const at = hot[current];
      const others = (test) => hot.map((_, i) => i).filter((i) => i !== current && test(hot[i]));
      const closest = (found, far) => found.reduce((best, i) => (best === -1 || far(hot[i]) < far(hot[best]) ? i : best), -1);
      let next = null;
      if (!hot.length) return;
      if (event.key.startsWith("Arrow") && !at) next = 0;
      else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
        const way = event.key === "ArrowRight" ? 1 : -1;
        next = closest(others((p) => p.label === at.label && (p.px - at.px) * way > 0), (p) => Math.abs(p.px - at.px));
        if (next < 0) next = closest(others((p) => (p.px - at.px) * way > 0), (p) => Math.abs(p.px - at.px) + Math.abs(p.py - at.py));
      } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
        const way = event.key === "ArrowDown" ? 1 : -1;
        next = closest(others((p) => (p.py - at.py) * way > 0), (p) => Math.abs(p.py - at.py) + 3 * Math.abs(p.px - at.px));
      } else if (event.key === "Enter" && at?.row !== undefined) state.set({ record: reference(at.row), at: null });
      else if (event.key === "Escape") { clear(); readout.replaceChildren(); current = -1; }
      else if (event.key === "0") zoomTo(null);
      else if ((event.key === "+" || event.key === "-") && x.back) zoomTo(zoomed(chart(), event.key === "+" ? 0.5 : 2, at));
      else return;
      event.preventDefault();
      if (next !== null && next >= 0) {
        current = next;
        ringAt(chart(), hot[next]);
        say(readout, hot[next]);
        mark(hot[next].label);
      }
    });
    place.addEventListener("blur", () => { clear(); });
  }

  // half or twice as much of the axes, about a point or the middle
  function zoomed({ x, y, left, right, top, bottom, byName }, share, about) {
    const ends = (scale_, from, to, middle) => {
      const half = (Math.abs(to - from) / 2) * share;
      return [scale_.back(middle - half * Math.sign(to - from)), scale_.back(middle + half * Math.sign(to - from))];
    };
    return {
      x: ends(x, left, right, about?.px ?? (left + right) / 2),
      y: byName ? null : ends(y, bottom, top, about?.py ?? (top + bottom) / 2),
    };
  }
  return { attend, mark, zoomed };
})();
