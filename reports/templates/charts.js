// Draws the charts whose specifications the page carries. Expressions are interpreted (ast), so no eval is needed.
(() => {
  const charts = JSON.parse(document.getElementById("charts-data").textContent);
  const options = { ast: true, actions: false, renderer: "svg", mode: "vega-lite" };
  const root = document.documentElement;
  let drawn = 0;
  for (const { id, spec } of charts) {
    const place = document.getElementById(id);
    vegaEmbed(place, spec, options).then(
      () => { root.dataset.chartsDrawn = String(++drawn); },
      (error) => {
        place.textContent = "This chart could not be drawn: " + error.message;
        root.dataset.chartsFailed = "yes";
        console.error(error);
      },
    );
  }
})();
