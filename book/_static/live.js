/* Draws the live figures in place of their SVG, and lets a reader choose on the Explore page. `lrd book` bundles vega.js. */

(() => {
  const NARROW = 560, AXIS = 60, GAP = 26;

  /* The chart with its panels beside each other, as wide as there is room, or below each other on a narrow page. */
  function fitted(chart, width) {
    const spec = structuredClone(chart);
    spec.config.legend.columns = Math.max(2, Math.floor(width / 105));
    if (!spec.facet) return { ...spec, width, autosize: { type: "fit-x", contains: "padding" } };
    const field = spec.facet.field;
    const panels = Math.max(1, new Set(spec.data.values.map((row) => row[field])).size);
    spec.columns = width < NARROW ? 1 : Math.min(3, panels);
    const axes = AXIS * (spec.resolve?.scale?.y === "independent" ? spec.columns : 1);
    spec.spec.width = Math.min(420, Math.floor((width - 20 - axes - GAP * (spec.columns - 1)) / spec.columns));
    return spec;
  }

  async function draw(figure, chart) {
    figure.chart = chart;
    if (!figure.box) {
      figure.box = document.createElement("div");
      figure.box.className = "lrd-drawn";
      figure.append(figure.box);
    }
    const options = { actions: false, renderer: "svg", loader: { target: "_self" } };
    await vegaEmbed(figure.box, fitted(chart, figure.clientWidth), options);
    /* A group of marks that has none has nothing to be called by. */
    for (const group of figure.box.querySelectorAll("g[role=graphics-symbol]:empty")) group.removeAttribute("role");
    figure.classList.add("lrd-on");
  }

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  /* The Explore page: what is chosen stands in the address, the figure and the table follow it. */
  function explore(root) {
    const figure = root.querySelector(".lrd-live"), table = root.querySelector("tbody");
    const chart = JSON.parse(figure.querySelector("script").textContent);
    const sources = new Map([...root.querySelectorAll("script[data-preset]")].map((it) => [it.dataset.preset, it]));
    const form = root.querySelector("form"), parsed = new Map();
    const preset = (name) => parsed.get(name) ?? parsed.set(name, JSON.parse(sources.get(name).textContent)).get(name);

    const select = (name, options, value) => {
      const made = element("select", { name }, ...options.map(([key, text]) => new Option(text, key)));
      made.value = options.some(([key]) => key === value) ? value : options[0]?.[0];
      return [element("label", {}, `${name} `, made), made.value];
    };
    const several = (name, options, chosen) => {
      const boxes = options.map(([value, text]) =>
        element("label", {}, element("input", { type: "checkbox", name, value, checked: chosen(value) }), ` ${text}`));
      return element("fieldset", {}, element("legend", { textContent: name }), ...boxes);
    };

    /* Builds the choosers of the address's choice; a list that it does not name is chosen as a whole. */
    function restore() {
      const asked = new URLSearchParams(location.hash.slice(1));
      const [presets, name] = select("preset", [...sources.keys()].map((key) => [key, key]), asked.get("preset"));
      const data = preset(name), titles = Object.entries(data.metrics).map(([key, its]) => [key, its.title]);
      const [metrics] = select("metric", titles, asked.get("metric"));
      const lists = Object.entries({ rewards: data.rewards, arms: data.arms, seeds: data.seeds });
      form.replaceChildren(presets, metrics, ...lists.map(([key, options]) => {
        const some = asked.has(key) && new Set(asked.get(key).split(","));
        return several(key, options, (value) => !some || some.has(value));
      }));
      return show();
    }

    function show() {
      const data = preset(form.preset.value), metric = data.metrics[form.metric.value], address = new URLSearchParams();
      address.set("preset", form.preset.value);
      address.set("metric", form.metric.value);
      const [rewards, arms, seeds] = ["rewards", "arms", "seeds"].map((key) => {
        const boxes = [...form.querySelectorAll(`input[name=${key}]`)], on = boxes.filter((box) => box.checked);
        if (on.length < boxes.length) address.set(key, on.map((box) => box.value).join(","));
        return new Set(on.map((box) => box.value));
      });
      history.replaceState(null, "", `#${address}`);
      const number = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(3))) : "–");
      const rows = [], lines = [];
      data.cells.forEach((cell, i) => {
        if (!rewards.has(cell.regime) || !arms.has(cell.arm) || !seeds.has(String(cell.seed))) return;
        const values = metric?.values[i] ?? [], known = values.filter((value) => value !== null);
        const ends = { last: known.at(-1), least: Math.min(...known), most: Math.max(...known) };
        values.forEach((value, j) => value !== null && rows.push({ ...cell, ...ends, step: metric.steps[j], value }));
        const name = cell.href ? element("a", { href: cell.href, textContent: cell.cell }) : cell.cell;
        const cells = [cell.state, ...Object.values(ends).map(number)].map((text) => element("td", { textContent: text }));
        lines.push(element("tr", {}, element("th", {}, name), ...cells));
      });
      table.replaceChildren(...lines);
      const spec = structuredClone(chart);
      spec.data = { values: rows };
      spec.facet.sort = data.rewards.map(([key]) => key);
      for (const { encoding } of spec.spec.layer) {
        encoding.y.title = metric?.title;
        encoding.color.scale = data.colours;
      }
      return draw(figure, spec);
    }

    form.addEventListener("change", (event) => {
      if (event.target.name === "preset") {
        history.replaceState(null, "", `#${new URLSearchParams({ preset: form.preset.value, metric: form.metric.value })}`);
        return restore();
      }
      return show();
    });
    addEventListener("hashchange", restore);
    return restore();
  }

  async function start() {
    const root = document.querySelector("#lrd-explore");
    if (root) await explore(root);
    for (const figure of document.querySelectorAll(".lrd-live")) {
      if (!figure.chart) await draw(figure, JSON.parse(figure.querySelector("script").textContent));
    }
    let width = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth === width) return;  // a phone's bar that comes and goes
      width = innerWidth;
      for (const figure of document.querySelectorAll(".lrd-on")) draw(figure, figure.chart);
    });
  }

  start();
})();
