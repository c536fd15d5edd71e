"use strict";
// What every page shares: data that is loaded as scripts, the address as the state, charts, tables. All text of
// results and commits goes into the page as text, never as HTML.
const report = (() => {
  const known = new Map(), loading = new Map();

  function provide(name, data) { known.set(name, data); }

  function load(name) {
    if (!loading.has(name)) loading.set(name, new Promise((resolve, reject) => {
      const script = document.createElement("script");
      const failed = () => {
        loading.delete(name); // so that it is asked for again
        reject(new Error(`data/${name}.js cannot be read`));
      };
      script.src = `data/${name}.js`;
      script.onload = () => (known.has(name) ? resolve(known.get(name)) : failed());
      script.onerror = failed;
      document.head.append(script);
    }));
    return loading.get(name);
  }

  // The state is the part of the address behind #: it works from a file as well, and can be sent.
  const state = () => new URLSearchParams(location.hash.slice(1));

  function change(key, values) {
    const next = state();
    next.delete(key);
    for (const value of values) next.append(key, value);
    location.hash = next.toString();
  }

  function element(name, text, attributes = {}) {
    const made = document.createElement(name);
    if (text !== undefined && text !== null) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  // A select offers `options`; what the address asks for is chosen if there is such, else the `preferred` one.
  function choose(key, options, preferred = options[0]) {
    const select = document.querySelector(`select[data-key="${key}"]`);
    const asked = state().get(key);
    const value = options.includes(asked) ? asked : preferred;
    select.replaceChildren(...options.map((name) => element("option", name, { value: name })));
    select.value = value ?? "";
    select.onchange = () => change(key, [select.value]);
    return value;
  }

  // The same with a box for each option, of which several may be ticked; NONE says that no one is.
  const NONE = "-";
  function tick(key, options, preferred = options) {
    const place = document.querySelector(`[data-checks="${key}"]`);
    const asked = state().getAll(key), known = asked.filter((name) => options.includes(name));
    const chosen = known.length || asked.includes(NONE) ? known : preferred;
    place.replaceChildren(...options.map((name) => {
      const label = element("label"), box = element("input", null, { type: "checkbox", value: name });
      box.checked = chosen.includes(name);
      box.onchange = () => {
        const ticked = [...place.querySelectorAll("input:checked")].map((one) => one.value);
        change(key, ticked.length ? ticked : [NONE]);
      };
      label.append(box, ` ${name || "(none)"}`);
      return label;
    }));
    return chosen;
  }

  function input(key) {
    const field = document.querySelector(`input[data-key="${key}"]`);
    field.value = state().get(key) ?? "";
    field.onchange = () => change(key, field.value.trim() ? [field.value.trim()] : []);
    return field.value;
  }

  const objects = ({ columns, rows }) =>
    rows.map((row) => Object.fromEntries(columns.map((name, place) => [name, row[place]])));

  const written = {
    text: (value) => String(value),
    number: (value) => Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 }),
    exact: (value) => value.toLocaleString("en", { maximumFractionDigits: 9 }),
    percent: (value) => `${(100 * value).toFixed(1)} %`,
    error: (value) => value.toExponential(1),
    commit: (value) => value.slice(0, 8),
  };

  const sorting = new Map();

  // In the order of the column whose heading was pressed last; pressed again, the other way round.
  function sorted(id, rows) {
    const [key, way] = sorting.get(id) ?? [];
    const of = (row) => row[key] ?? -Infinity;
    return key ? [...rows].sort((a, b) => way * (of(a) < of(b) ? -1 : of(a) > of(b) ? 1 : 0)) : rows;
  }

  // Columns are [key, heading, how it is written]; `link` gives a row's address for its first cell.
  function table(id, caption, columns, rows, link) {
    const place = document.getElementById(id);
    if (!rows.length) return place.replaceChildren(element("p", `${caption}: none.`));
    const built = element("table"), head = element("tr"), body = element("tbody"), top = element("thead");
    built.append(element("caption", caption));
    for (const [key, heading] of columns) {
      const [by, way] = sorting.get(id) ?? [], cell = element("th", null, { scope: "col" });
      const button = element("button", heading, { type: "button" });
      if (by === key) cell.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      button.onclick = () => {
        sorting.set(id, [key, by === key ? -way : 1]);
        table(id, caption, columns, rows, link);
        place.querySelectorAll("thead button")[columns.findIndex(([other]) => other === key)].focus();
      };
      cell.append(button);
      head.append(cell);
    }
    top.append(head);
    for (const row of sorted(id, rows)) {
      const line = element("tr");
      columns.forEach(([key, , how = "text"], number) => {
        const value = row[key], empty = value === null || value === undefined || value === "";
        const cell = element(number ? "td" : "th", null, number ? {} : { scope: "row" });
        const endless = value === Infinity; // half precision that has overflowed
        const text = empty ? "" : endless ? "not finite"
          : typeof value === "number" || how === "commit" ? written[how](value) : String(value);
        const address = how === "commit" ? commitLink(value) : number ? null : link?.(row);
        if (typeof value === "number") cell.className = "number";
        cell.append(address && text ? element("a", text, { href: address }) : text);
        line.append(cell);
      });
      body.append(line);
    }
    built.append(top, body);
    const frame = element("div", null, { class: "scroll", tabindex: 0, role: "region", "aria-label": caption });
    frame.append(built);
    place.replaceChildren(frame);
  }

  let commitUrl = "";
  const commitLink = (hash) => (commitUrl && /^[0-9a-f]{40,64}$/.test(hash) ? commitUrl + hash : null);

  function theme() {
    const style = getComputedStyle(document.documentElement), ink = style.getPropertyValue("--ink").trim();
    const line = style.getPropertyValue("--line").trim();
    const text = { labelColor: ink, titleColor: ink };
    return {
      background: "transparent",
      font: "system-ui, sans-serif",
      axis: { ...text, gridColor: line, domainColor: line, tickColor: line, labelLimit: 220 },
      legend: { ...text, labelLimit: 260, symbolLimit: 60, orient: "bottom", symbolBaseFillColor: ink, symbolBaseStrokeColor: ink, symbolOpacity: 1, columns: innerWidth < 700 ? 1 : 3 },
      header: { ...text, labelLimit: 400 },
      text: { color: ink },
      rule: { color: ink },
      tick: { color: ink },
      range: { category: style.getPropertyValue("--series").trim().split(/\s+/) },
      view: { stroke: line },
    };
  }

  // No axis has a place for what is not finite, nor a logarithmic one for zero: beneath the chart it is said which rows
  // that is, and they stand in the table.
  const UP = { accuracy: "error", history: "value", history_by_date: "value", releases: "value" };
  const LOGARITHMIC = ["accuracy"];

  function notDrawn(name, row) {
    const value = row[UP[name]];
    if (value === Infinity) return "Not finite, and so not drawn";
    return value === 0 && LOGARITHMIC.includes(name) ? "Exactly zero, and so not drawn" : null;
  }

  function leftOut(name, rows) {
    return distinct(rows.map((row) => notDrawn(name, row))).map((why) => {
      const names = distinct(rows.filter((row) => notDrawn(name, row) === why).map((row) => row.case ?? row.line));
      const more = names.length > 5 ? ` and ${names.length - 5} more` : "";
      return element("p", `${why}: ${names.slice(0, 5).join(", ")}${more}.`, { class: "notice" });
    });
  }

  const distinct = (values) => [...new Set(values)];

  // A figure has a chart for every panel: its heading, and its rows with what is drawn beside them.
  async function panels(id, name, given, nothing) {
    const figure = document.getElementById(id), frame = element("div", null, { class: "charts" });
    const drawn = given.map(([heading, datasets]) =>
      [heading, { ...datasets, rows: datasets.rows.filter((row) => !notDrawn(name, row)) }]);
    const others = given.flatMap(([, datasets]) => datasets.rows.filter((row) => notDrawn(name, row)));
    const old = figure.querySelector(".charts");
    const some = drawn.filter(([, datasets]) => datasets.rows.length);
    for (const place of old?.children ?? []) place.view?.finalize();
    old ? old.replaceWith(frame) : figure.prepend(frame);
    if (!some.length) frame.append(element("p", nothing, { class: "notice" }));
    for (const [heading, datasets] of some) await paint(figure, frame, heading, name, datasets);
    frame.append(...leftOut(name, others));
    figure.dataset.drawn = some.length ? name : "";
  }

  // Vega's expressions are interpreted (`ast`): the page's policy lets no text become a script.
  async function paint(figure, frame, heading, name, datasets) {
    const charts = await load("charts"), place = element("div", null, { class: "chart" }), inside = element("div");
    if (heading) frame.append(element("h3", heading));
    place.append(inside);
    frame.append(place);
    const told = figure.querySelector("figcaption").textContent;
    const spec = { ...charts[name], datasets, description: heading ? `${heading}. ${told}` : told };
    const made = await vegaEmbed(inside, spec, {
      ast: true, renderer: "svg", actions: false, defaultStyle: false, config: theme(), logLevel: 1,
      tooltip: { disableDefaultStyle: true }, loader: { target: "_self" },
    });
    place.view = made.view;
    // What has no mark has nothing to say; a screen reader would stop at it all the same.
    for (const empty of inside.querySelectorAll("[role=graphics-symbol]:empty")) empty.setAttribute("aria-hidden", "true");
  }

  const draw = (id, name, datasets, nothing, heading = "") => panels(id, name, [[heading, datasets]], nothing);

  // What the page could not do as the address asked, in lines at its top.
  function notices(lines) {
    document.querySelectorAll(".asked").forEach((old) => old.remove());
    document.getElementById("main").querySelector("h1").after(
      ...lines.map((line) => element("p", line, { class: "notice asked", role: "status" })));
  }

  // The other pages show the same machine, workload and variant.
  function carry() {
    const kept = [...state()].filter(([key]) => ["machine", "workload", "variant"].includes(key));
    for (const link of document.querySelectorAll("nav a")) {
      link.hash = new URLSearchParams(kept).toString();
    }
  }

  async function show(page) {
    const main = document.getElementById("main");
    try {
      delete main.dataset.done;
      for (const notice of main.querySelectorAll("[role=alert]")) notice.remove();
      carry();
      notices([]);
      await page();
    } catch (error) {
      main.prepend(element("p", `This page cannot be shown: ${error.message}`, { class: "notice", role: "alert" }));
      throw error;
    } finally {
      main.dataset.done = "yes";
    }
  }

  function start(page) {
    let busy = Promise.resolve();
    const again = () => { busy = busy.catch(() => {}).then(() => show(page)); };
    const button = document.getElementById("theme");
    button.onclick = () => {
      const root = document.documentElement;
      root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
      try { localStorage.setItem("theme", root.dataset.theme); } catch { /* see theme.js */ }
      again();
    };
    document.querySelector(".skip").onclick = (event) => { // its address would take the place of the page's state
      event.preventDefault();
      document.getElementById("main").focus();
    };
    addEventListener("hashchange", again);
    again();
  }

  function about(data) { commitUrl = data.commit_url; }

  return { provide, load, state, choose, tick, input, objects, element, table, draw, panels, notices, start, about };
})();
