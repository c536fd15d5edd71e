"use strict";
// The pages: which rows each shows.
const { load, choose, tick, input, objects, element, table, draw } = report;
const distinct = (rows, key) => [...new Set(rows.map((row) => row[key]))];
const workloadOf = (row) => `${row.precision}/${row.tree}`;
const SECONDS = "step.Step.track_seconds";
const NOTHING = "Nothing to draw: this machine's newest results have none of these figures.";

// What an object has by itself: a machine, a metric or a unit may be called like what every object has.
const own = (data, ...keys) => keys.reduce((at, key) => (at && Object.hasOwn(at, key) ? at[key] : undefined), data);

const UNITS = { seconds: { name: "ms", scale: 1e3 }, bytes: { name: "MB", scale: 1e-6 } };
const NOISY = 0.05;

const CASE_COLUMNS = [
  ["case", "case"], ["milliseconds", "ms", "number"], ["plus_minus", "±", "percent"],
  ["gigabytes_per_second", "GB/s", "number"], ["ceiling_fraction", "of the ceiling", "percent"],
  ["traffic_ratio", "traffic ratio", "number"], ["peak_ratio", "peak/ideal", "number"], ["error", "error", "error"],
  ["long_run_error", "error, 2000 steps", "error"], ["joules", "J a step", "number"],
  ["dram_ratio", "DRAM bytes/ideal", "number"], ["notes", "note"],
];
const OPTIONAL = ["joules", "dram_ratio"];

// The columns without those that no case here has a figure for.
const columnsOf = (cases) => CASE_COLUMNS.filter(([name]) => !OPTIONAL.includes(name)
  || cases.some((row) => typeof row[name] === "number"));

const historyLink = (row) => "history.html#" + new URLSearchParams(
  { machine: row.machine, metric: SECONDS, workload: workloadOf(row), variant: row.variant });

async function machine() {
  const data = await load("newest");
  report.about(data);
  const name = choose("machine", data.machines.map((one) => one.machine));
  const one = data.machines.find((other) => other.machine === name);
  return { data, one, cases: one ? objects(one.cases) : [] };
}

function about(one) {
  const place = document.getElementById("about");
  if (!one) return place.replaceChildren();
  const list = element("ul", null, { class: "about" });
  for (const line of [`commit ${one.commit.slice(0, 8)}, measured ${one.measured}, from ${one.file}`,
    ...one.described, ...one.problems]) list.append(element("li", line));
  place.replaceChildren(list);
}

const label = (row) => {
  if (row.state) return row.state;
  const text = row.milliseconds < 1000 ? row.milliseconds.toPrecision(3) : row.milliseconds.toFixed(0);
  return `${Number(text)}${row.plus_minus >= NOISY ? " ~" : ""}${row.notes?.includes("cache") ? " c" : ""}`;
};

// The fastest case of every workload.
function fastest(cases) {
  const best = new Map();
  for (const row of cases) {
    const other = best.get(workloadOf(row));
    if (!other || row.milliseconds < other.milliseconds) best.set(workloadOf(row), row);
  }
  return best;
}

const pages = {
  async index() {
    const { data, one, cases } = await machine();
    news(data);
    about(one);
    const inTree = (row) => row.tree && !row.tree.startsWith("leaf_");
    const missing = one ? objects(one.missing) : [];
    const best = fastest(cases);
    const rows = [...cases, ...missing].filter(inTree).map((row) => ({
      ...row, label: label(row), fastest: best.get(workloadOf(row)) === row, link: historyLink(row) }));
    await report.panels("heat", "heat", distinct(rows, "precision").map((precision) =>
      [precision, { rows: rows.filter((row) => row.precision === precision) }]), NOTHING);
    table("cases", "Every case of the newest commit", columnsOf(cases), cases, historyLink);
    table("fastest", "Of those measured here", [["case", "case"], ...columnsOf(cases).slice(1)],
      [...best.values()].filter(inTree), historyLink);
    table("missing", "Cases without a figure", [["case", "case"], ["state", "state"], ["why", "why"]], missing);
  },

  async roofline() {
    const { one, cases } = await machine();
    about(one);
    const precision = choose("precision", ["all", ...distinct(cases, "precision")]);
    const variants = tick("variant", distinct(cases, "variant").sort());
    const rows = cases.filter((row) => (precision === "all" || row.precision === precision)
      && variants.includes(row.variant) && row.gigabytes_per_second);
    const limits = one?.limits ?? {};
    await draw("sizes", "sizes", { rows, cache: limits.cache, ceilings: limits.ceilings, launch: limits.launch },
      NOTHING, `${one?.machine}, ${precision === "all" ? "all precisions" : precision}`);
    await draw("intensity", "intensity", { rows, roofs: limits.roofs }, NOTHING, one?.machine);
    table("cases", "The cases drawn", [CASE_COLUMNS[0], ["resident_bytes", "resident bytes", "exact"],
      ["operations_per_byte", "operations a byte", "number"],
      ["gigaoperations_per_second", "10⁹ operations a second", "number"], ...columnsOf(rows).slice(1)], rows, historyLink);
  },

  async time() {
    const { data, one, cases } = await machine();
    about(one);
    const split = cases.filter((row) => typeof row.rest_milliseconds === "number");
    const parts = Object.keys(data.how);
    const workload = choose("workload", distinct(split.map((row) => ({ at: workloadOf(row) })), "at"));
    const here = split.filter((row) => workloadOf(row) === workload);
    const variant = choose("variant", distinct(here, "variant").sort());
    const chosen = here.find((row) => row.variant === variant);
    await draw("waterfall", "waterfall", { rows: chosen ? waterfall(chosen, parts, data.how) : [] },
      "Nothing to draw: no case here has modelled bytes and a known tree.", `${chosen?.case} on ${one?.machine}`);
    table("parts", "Milliseconds a step, part by part", [["case", "case"], ["milliseconds", "measured", "number"],
      ...parts.map((part) => [key(part), part, "number"])], split, historyLink);
  },

  async history() {
    const data = await load("history"), asked = report.state(), wrong = [];
    report.about(data);
    const changed = data.changes.find((one) => own(data.series, one.machine, one.metric)) ?? {};
    const names = Object.keys(data.series);
    const machines = tick("machine", names, [changed.machine ?? names[0]].filter(Boolean));
    const of = (key) => [...new Set(machines.flatMap(key))];
    const metrics = of((name) => Object.keys(own(data.series, name) ?? {}));
    const usual = [changed.metric, SECONDS].find((name) => metrics.includes(name))
      ?? metrics.find((name) => !name.startsWith("controls.")) ?? metrics[0];
    const metric = choose("metric", metrics, usual);
    const workloads = of((name) => Object.keys(own(data.series, name, metric) ?? {}));
    const there = workloads.find((name) => (changed.case ?? "").endsWith(`/${name}`) || changed.case === name);
    const workload = choose("workload", workloads, metric === changed.metric && there ? there : workloads[0]);
    for (const [key, has] of [["metric", metric], ["workload", workload]]) {
      const wanted = asked.get(key);
      if (wanted && wanted !== has) wrong.push(`There is no ${key} ${wanted} here: ${has ?? "nothing"} is shown. `
        + "What was measured with another version of a benchmark is in no series.");
    }
    const found = machines.map((name) => [name, own(data.series, name, metric, workload)]).filter(([, one]) => one);
    const variants = tick("variant", [...new Set(found.flatMap(([, one]) => one.variants))].sort());
    const axis = report.choose("axis", ["commit", "date"]);
    const place = (key, fallback) => {
      const hash = input(key), at = hash ? data.commits.findIndex((one) => one.hash.startsWith(hash)) : -1;
      if (hash && at < 0) wrong.push(`There is no commit ${hash}: the range has no such end.`);
      return at < 0 ? fallback : at;
    };
    const from = place("from", 0), to = place("to", Infinity);
    report.notices(wrong);
    const inRange = (position) => position >= from && position <= to;
    const series = (await Promise.all(found.map(async ([name, one]) =>
      (await load(`series/${one.piece}`)).map((told) => ({ ...told, machine: name }))))).flat();
    const shown = series.filter((one) => variants.includes(one.variant));
    const known = own(data.units, metric) ?? "", unit = own(UNITS, known) ?? { name: known, scale: 1 };
    const rows = shown.flatMap((one) => points(one, data, found.length > 1, unit.scale))
      .filter((row) => inRange(row.position));
    const changes = data.changes.filter((one) => one.metric === metric && inRange(one.position)
      && shown.some((other) => one.machine === other.machine && one.environment === other.environment
        && one.case === [other.variant, workload].filter(Boolean).join("/")))
      .map((one) => ({ ...one, date: data.commits[one.position].date,
        told: [one.case, one.environment, one.told].filter(Boolean).join(": "),
        spoken: `${one.state}: ${one.case}: ${one.told}`,
        commits: `${one.good.slice(0, 8)}..${one.bad.slice(0, 8)}` }));
    const heading = [metric, workload, unit.name].filter(Boolean).join(", ");
    document.getElementById("unit").textContent = metric ? "Less is better." : "";
    const bumps = mlxBumps(data, machines).filter((one) => inRange(one.position));
    await draw("history", axis === "date" ? "history_by_date" : "history", { rows, changes, bumps },
      "Nothing to draw: no such series was measured in this range.", heading);
    const few = shown.every((one) => one.positions.length < 2);
    table("changes", few ? "Changes (no series here has two points)" : "Changes", [["told", "what"], ["state", "state"],
      ["machine", "machine"], ["commits", "commits"], ["position", "at"], ["alert", "alert"]], changes);
    table("points", "The points drawn", [["line", "series"], ["value", `value, ${unit.name}`, "number"],
      ["low", "99 % from", "number"], ["high", "to", "number"], ["roofline", "roofline", "number"],
      ["commit", "commit", "commit"], ["position", "number", "exact"], ["date", "date"], ["subject", "subject"],
      ["pins", "on"], ["file", "result file"]], rows.slice(-500));
  },

  async memory() {
    const { one, cases } = await machine();
    about(one);
    const known = cases.filter((row) => row.peak_bytes);
    const workload = choose("workload", distinct(known.map((row) => ({ at: workloadOf(row) })), "at"));
    const here = known.filter((row) => workloadOf(row) === workload);
    const kinds = [["active_bytes", "resident"], ["peak_bytes", "peak"], ["cache_bytes", "cache"], ["process_bytes", "process"]];
    const rows = here.flatMap((row) => kinds.map(([name, kind]) => ({
      ...row, kind, megabytes: row[name] / 1e6, ratio: row[name] / row.resident_bytes })));
    const ideal = here.slice(0, 1).map((row) => ({ megabytes: row.resident_bytes / 1e6, told: "ideal: parameters, gradients, state" }));
    await draw("memory", "memory", { rows, ideal }, NOTHING, `${workload} on ${one?.machine}`);
    table("bytes", "Bytes", [["case", "case"], ["resident_bytes", "ideal", "exact"],
      ...kinds.map(([name, kind]) => [name, kind, "exact"]), ["peak_ratio", "peak/ideal", "number"]], here, historyLink);
    const tree = here[0]?.tree;
    const same = cases.filter((row) => row.tree === tree && typeof row.error === "number");
    await draw("accuracy", "accuracy", { rows: same }, NOTHING, `${tree} on ${one?.machine}`);
    table("errors", `Error and speed on ${tree ?? "no tree"}`, columnsOf(same), same, historyLink);
  },

  async trust() {
    const [data, newest] = await Promise.all([load("trust"), load("newest")]);
    report.about(data);
    const name = choose("machine", newest.machines.map((one) => one.machine));
    const here = (rows) => rows.filter((row) => row.machine === name);
    const judges = [["found", "scripts.compare"], ["asv_found", "asv continuous, factor 1.05"], ["pyperf_found", "pyperf, 5 %"]];
    const calibrated = here(data.calibration).map((row) => ({ ...row, when: `${row.date}, ${row.commit.slice(0, 8)}, ${row.on}` }));
    const when = choose("calibration", distinct(calibrated, "when").reverse());
    const one = calibrated.filter((row) => row.when === when);
    await draw("calibration", "calibration", { rows: one.flatMap((row) =>
      judges.map(([key, method]) => ({ ...row, method, share: row[key] }))) },
      "Nothing to draw: this machine is not calibrated; python -m scripts.calibrate does it.",
      one.length ? `${one[0].case} on ${one[0].on}, ${one[0].separate} separate comparisons` : "");
    table("calibrations", "Calibrations", [["when", "calibration"], ["slowdown", "true slowdown", "percent"],
      ["found", "called slower", "percent"], ["called_faster", "called faster", "percent"],
      ["asv_found", "asv, 1.05", "percent"], ["pyperf_found", "pyperf", "percent"], ["comparisons", "comparisons", "exact"],
      ["separate", "separate", "exact"], ["case", "case"], ["file", "file"]], calibrated);
    const noise = here(data.noise);
    await draw("noise", "noise", { rows: noise }, "Nothing to draw: no series of this machine has eight points yet.");
    table("noises", "Noise from night to night", [["case", "case"], ["metric", "metric"], ["environment", "environment"],
      ["points", "points", "exact"], ["noise", "noise", "percent"]], noise.sort((a, b) => b.noise - a.noise));
    await draw("controls", "controls", { rows: here(data.controls) }, "Nothing to draw: this machine measured no control.");
    lines("shifts", data.shifts, "The controls show no change of a machine, as far as there are enough runs to tell.");
    table("environments", "The environment", [["what", "what"], ["is", "is"], ["was", "was"], ["environment", "series"], ["measured", "measured"],
      ["commit", "commit", "commit"], ["file", "result file"]], here(data.environments));
  },

  async releases() {
    const data = await load("releases");
    report.about(data);
    const name = choose("machine", data.machines.map((one) => one.machine));
    const here = data.machines.find((one) => one.machine === name);
    lines("described", here?.described ?? [], "No release was measured yet: python -m scripts.releases does it.");
    table("changes", "Exact changes", [["release", "release"], ["before", "as against"], ["verdict", "verdict"], ["variant", "variant"],
      ["what", "now, and before"], ["workloads", "workloads"], ["because", "because"], ["commit", "MLX's commit", "commit"],
      ["file", "result file"]], here?.changes ?? []);
    table("known", "Looked for", [["release", "release"], ["what", "what it did"], ["seen", "what was seen"],
      ["commit", "MLX's commit", "commit"]], here ? data.known : []);
    table("timings", "Timed in turns", [["release", "release"], ["before", "as against"], ["case", "case"], ["verdict", "verdict"],
      ["slower", "seconds", "percent"], ["low", "from", "percent"], ["high", "to", "percent"], ["pairs", "pairs", "exact"],
      ["why", "why not"], ["file", "result file"]], here?.timings ?? []);
    const figures = here?.figures ?? [];
    await report.panels("figures", "releases", Object.entries(data.headings).map(([key, heading]) =>
      [heading, { rows: figures.filter((row) => row.figure === key) }]), "Nothing to draw: only counters were taken.");
    table("figure_table", "Release by release", [["release", "release"], ["case", "case"], ["figure", "figure"],
      ["value", "value", "number"], ["processes", "processes", "exact"], ["file", "result file"]], figures);
    table("absent", "Not measured", [["release", "release"], ["why", "why"]], here?.absent ?? []);
  },

  async data() {},
};

function lines(id, told, nothing) {
  const list = element("ul");
  for (const line of told.length ? told : [nothing]) list.append(element("li", line));
  document.getElementById(id).replaceChildren(list);
}

function news(data) {
  const list = element("ul", null, { class: "news" });
  for (const one of data.news) {
    if (!one.open) continue;
    const item = element("li");
    item.append(element("strong", `${one.state}: `), element("a", one.told[0], { href: one.link }),
      ` (${one.machine}, commits ${one.good.slice(0, 8)}..${one.bad.slice(0, 8)}, ${one.measured.slice(0, 10)})`);
    for (const line of one.told.slice(1)) item.append(element("br"), line);
    list.append(item);
  }
  for (const line of data.shifts) list.append(element("li", line));
  const quiet = data.news.filter((one) => !one.open).length;
  if (!list.children.length) list.append(element("li", data.nothing_new));
  if (quiet) list.append(element("li", `${quiet} more acknowledged or refuted: python -m scripts.triage lists them.`));
  document.getElementById("news").replaceChildren(list);
}

const key = (part) => `${part.replaceAll(" ", "_")}_milliseconds`;

function waterfall(row, parts, how) {
  let at = 0;
  const bars = parts.map((part, number) => {
    const value = row[key(part)], start = at;
    at += value;
    const kind = number === 0 ? "roofline" : value >= 0 ? "lost" : "gained";
    return { part, how: how[part], milliseconds: value, start, end: at, kind };
  });
  bars.push({ part: "measured", how: "median of the samples", milliseconds: row.milliseconds, start: 0, end: row.milliseconds, kind: "measured" });
  return bars.map((bar) => ({
    ...bar, case: row.case, commit: row.commit, file: row.file, share: bar.milliseconds / row.milliseconds,
    right: Math.max(bar.start, bar.end),
    label: `${bar.milliseconds.toPrecision(3)} ms, ${(100 * bar.milliseconds / row.milliseconds).toFixed(1)} %` }));
}

function points(one, data, severalMachines, scale) {
  const line = [severalMachines ? one.machine : "", one.variant, one.environment].filter(Boolean).join(", ") || "all";
  const scaled = (value) => (value === null || value === undefined ? null : value * scale);
  return one.positions.map((position, number) => {
    const run = data.runs[one.runs[number]], commit = data.commits[position];
    return {
      line, machine: one.machine, position, value: scaled(one.values[number]), low: scaled(one.low?.[number]),
      high: scaled(one.high?.[number]), roofline: scaled(one.roofline?.[number]), commit: commit.hash,
      date: commit.date || null, subject: commit.subject, file: run.file,
      pins: Object.entries(run.pins).map(([name, version]) => `${name} ${version}`).join(", "),
      link: data.commit_url ? data.commit_url + commit.hash : undefined,
    };
  });
}

function mlxBumps(data, machines) {
  return machines.flatMap((name) => {
    const ours = data.runs.filter((run) => run.machine === name && run.pins.mlx);
    return distinct(ours, "environment").flatMap((environment) => {
      const runs = ours.filter((run) => run.environment === environment).sort((a, b) => a.position - b.position);
      return runs.slice(1).flatMap((run, number) => (run.pins.mlx === runs[number].pins.mlx ? [] : [{
        position: run.position, date: data.commits[run.position].date, told: `mlx ${run.pins.mlx}` }]));
    });
  });
}

report.start(pages[document.body.dataset.page]);
