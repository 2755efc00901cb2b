// Draws the plots, keeps them in step with the colour scheme, sorts tables, fills the Pareto plot.
"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const plots = read("plots");
  const views = [];

  async function draw() {
    for (const [id, item] of Object.entries(plots)) {
      const manager = await Bokeh.embed.embed_item(item, id);
      views.push(...manager.roots.filter((view) => view.model.type === "Figure"));
    }
    recolour();
    document.documentElement.dataset.plots = String(views.length);
  }

  // Bokeh reads its colours from CSS when it paints: a new scheme needs a new paint.
  function recolour() {
    const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
    for (const view of views) {
      const labels = view.model.document.get_model_by_name("labels");
      if (labels) labels.glyph.text_color = { value: ink };
      view.model.change.emit();
    }
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button")?.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        heads.forEach((h) => h.hasAttribute("aria-sort") && h.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => row.cells[column].dataset.sort ?? "";
        const order = (a, b) => {
          const difference = Number(key(a)) - Number(key(b));
          return Number.isNaN(difference) ? key(b).localeCompare(key(a)) : difference;
        };
        const rows = [...table.tBodies[0].rows].sort((a, b) => (down ? order(b, a) : order(a, b)));
        table.tBodies[0].append(...rows);
      });
    });
  }
  document.querySelectorAll("table.sortable").forEach(sortable);

  function list(id, lines) {
    const element = document.getElementById(id);
    element.replaceChildren(...lines.map((line) => {
      const entry = document.createElement("li");
      entry.textContent = line;
      return entry;
    }));
  }

  function compare() {
    const pairs = read("data");
    const [x, y] = [document.getElementById("x"), document.getElementById("y")];
    let last = { x: x.value, y: y.value };
    function show() {
      if (x.value === y.value) { // the same metric twice: swap the two
        x.value = last.y; y.value = last.x;
      }
      last = { x: x.value, y: y.value };
      const pair = pairs[`${x.value}|${y.value}`];
      list("front", pair.text.front);
      list("dominated", pair.text.dominated);
      list("volume", pair.text.volume);
      for (const row of document.querySelectorAll("tr[data-run]")) {
        row.querySelector(".badge").hidden = !pair.front.includes(row.dataset.run);
      }
      const plot = views[0]?.model;
      if (!plot) return;
      for (const name of ["region", "outline", "points"]) {
        plot.document.get_model_by_name(name).data = pair[name];
      }
      plot.below[0].axis_label = pair.x_label;
      plot.left[0].axis_label = pair.y_label;
    }
    x.addEventListener("change", show);
    y.addEventListener("change", show);
  }

  const drawn = Object.keys(plots).length ? draw() : Promise.resolve();
  drawn.then(() => { if (document.getElementById("x")) compare(); });
})();
