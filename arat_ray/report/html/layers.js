// Which layers were regularised, set by set, and what came of it: a table whose cells are shaded by their values

const SETS = 40;
const known = new Map();

// The patterns of a trial, as its configuration has them
function layersOf(trial) {
  if (!known.has(trial.config)) {
    let found = null;
    try { found = JSON.parse(trial.config).method.layers; } catch { /* it does not say */ }
    known.set(trial.config, Array.isArray(found) ? found.map(String) : null);
  }
  return known.get(trial.config);
}

function layers() {
  const sets = new Map();
  for (const trial of trials.filter((each) => (each.kind === "front" || each.kind === "dominated") && isIn(each) && layersOf(each))) {
    const name = layersOf(trial).join(", ");
    if (!sets.has(name)) sets.set(name, { name, patterns: layersOf(trial), trials: [] });
    sets.get(name).trials.push(trial);
  }
  const patterns = [...new Set([...sets.values()].flatMap((set) => set.patterns))].sort();
  if (!sets.size) {
    byId("layers").replaceChildren(html("p", { class: "note" }, "No complete trial that is shown names layers that it regularises."));
    return;
  }
  const mean = (set, i) => set.trials.reduce((sum, trial) => sum + goalOf(trial, i), 0) / set.trials.length;
  const best = (set, i) => set.trials.reduce((first, trial) => (goalOf(trial, i) > goalOf(first, i) ? trial : first));
  const members = (set) => set.trials.filter((trial) => trial.kind === "front").length;
  const shown = [...sets.values()].sort((a, b) => members(b) - members(a) || mean(b, goals.length - 1) - mean(a, goals.length - 1)).slice(0, SETS);
  const ends = goals.map((_, i) => extent(shown.flatMap((set) => [mean(set, i), goalOf(best(set, i), i)]), 0));
  const shaded = (value, i, content) => {
    const cell = html("td", { class: "number heat" }, content);
    cell.style.setProperty("--heat", `${Math.round((100 * (value - ends[i][0])) / (ends[i][1] - ends[i][0] || 1))}%`);
    return cell;
  };
  const rows = shown.map((set) => html("tr", {}, html("th", { scope: "row" }, set.name || "none"),
    ...patterns.map((pattern) => html("td", { class: set.patterns.includes(pattern) ? "layer is-in" : "layer" }, set.patterns.includes(pattern) ? "yes" : "")),
    html("td", { class: "number" }, `${set.trials.length}`), html("td", { class: "number" }, `${members(set)}`),
    ...goals.flatMap((_, i) => {
      const first = best(set, i);
      return [shaded(mean(set, i), i, text(mean(set, i))), shaded(goalOf(first, i), i, html("button", { type: "button",
        "aria-label": `${text(goalOf(first, i))}, show ${named(first)}`, onclick: () => { choose(first); byId("trial").scrollIntoView({ block: "start" }); } },
      text(goalOf(first, i))))];
    })));
  const heads = ["set", ...patterns, "trials", "on the front", ...goals.flatMap((goal) => [`${titled(goal)}, mean`, `${titled(goal)}, best`])];
  const rest = sets.size > shown.length ? `; ${sets.size - shown.length} more sets are in the table of trials` : "";
  byId("layers").replaceChildren(html("table", {}, html("caption", {}, `Patterns of layers by set, over the complete trials that are shown${rest}`),
    html("thead", {}, html("tr", {}, ...heads.map((head) => html("th", { scope: "col" }, head)))), html("tbody", {}, ...rows),
    ...inclusions(patterns, heads.length)));
}

// Below the sets, what the inclusion of each pattern moves each goal by, the other knobs averaged over
function inclusions(patterns, columns) {
  const rows = view.studies.flatMap((study) => study.importance.knobs.flatMap(({ members }) =>
    (patterns.some((pattern) => pattern in members) ? [...goals, "front"].map((goal, i) => html("tr", {},
      html("th", { scope: "row", class: "inclusion" }, `included or not: ${effectUnit(goal)}${several ? `, ${study.name}` : ""}`),
      ...patterns.map((pattern) => html("td", { class: "number" }, members[pattern] ? effectText(goal, members[pattern][i]) : "")),
      html("td", { colspan: columns - patterns.length - 1 }, i === 0 ? "sets with the pattern over those without, with 90 % intervals, by a model of all trials" : ""))) : [])));
  return rows.length ? [html("tfoot", {}, ...rows)] : [];
}
