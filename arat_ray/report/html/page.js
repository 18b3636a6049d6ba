// The page: what it knows, and how all of it is drawn, at first and again where something is new

let view, goals, one, several, trials, params, conditions, columns;
const state = { x: 0, y: 1, all: false, beside: 0, sort: null, down: false, rows: ROWS, chosen: null, ranges: [], kinds: new Set(KINDS), until: null, over: 0 };
const drawn = { points: new Map(), parallel: new Map(), rows: new Map() };

const named = (trial) => `trial ${trial.number}${several ? ` of ${trial.study.name}` : ""}`;
const paramOf = (trial, name) => trial.params[trial.study.params.indexOf(name)] ?? null;
// How far a goal has come down since the best epoch
function gapOf(trial, i) {
  const values = measuredOf(trial, i).map((point) => point[1]);
  return values.length ? (Math.max(...values) - values.at(-1)) * scaleOf(goals[i]) : null;
}
const measuredOf = (trial, i) => (trial.curves[`validation_${goals[i]}`] ?? []).map((value, n) => [trial.curves.epoch[n], value])
  .filter(([epoch, value]) => value !== null && epoch <= trial.epochs);
const goalOf = (trial, i) => (trial.goals[i] === null ? null : trial.goals[i] * scaleOf(goals[i]));

// As wide as the screen, so that letters on a phone have their size
const width = () => Math.round(Math.min(Math.max(document.querySelector("main").clientWidth, 320), 832));

// Of a curve, which comes as steps of whole numbers
function numbers({ places, steps }) {
  let now = 0;
  return steps.map((step) => (step === null ? null : (places > 0 ? (now += step) / 10 ** places : (now += step) * 10 ** -places)));
}

function load(found) {
  view = found;
  goals = view.goals;
  one = goals.length === 1;
  several = view.studies.length > 1;
  trials = view.studies.flatMap((study, s) => study.trials.map((trial) => ({ ...trial, study, s, key: `${s} ${trial.id}`,
    final: { kind: trial.kind, goals: trial.goals, intervals: trial.intervals, epochs: trial.epochs, reason: trial.reason },
    curves: Object.fromEntries(Object.entries(trial.curves).map(([name, curve]) => [name, numbers(curve)])) })));
  params = [...new Set(view.studies.flatMap((study) => study.params))];
  conditions = [...new Set(view.studies.flatMap((study) => [...study.beside, ...study.dials].map((each) => each.how)))];
  columns = columnsOfTrials();
  setTime();
}

function draw() {
  summary();
  hypervolume();
  failed();
  facts();
  tradeoff();
  parallel();
  importance();
  ladder();
  filtered();
}

function start(found) {
  load(found);
  state.y = one ? 0 : 1;
  state.ranges = goals.map(() => [null, null]);
  controls();
  time();
  draw();
  first();
}

function first() {
  const trial = trials.find((each) => each.kind === "front") ?? trials[0];
  if (trial) choose(trial);
  else byId("detail").replaceChildren(html("p", { class: "note" }, "There is no trial yet."));
}

function summary() {
  const best = (i) => Math.max(...trials.filter((trial) => trial.kind === "front" && trial.goals[i] !== null).map((trial) => trial.goals[i]));
  const front = trials.filter((trial) => trial.kind === "front").length;
  const known = trials.filter((trial) => trial.kind !== "later").length;
  byId("summary").textContent = (state.until === null ? "" : `After ${text(state.until, 1, 3)} hours: `) + `${counted(known, "trial")}, ${front} on ${several ? "the fronts" : "the front"}`
    + (front ? `; best ${goals.map((goal, i) => `${titled(goal)} ${text(best(i), scaleOf(goal))}`).join(", ")}` : "")
    + `. Measured: ${[...new Set(view.studies.flatMap((study) => study.measured))].join("; ") || "nothing yet"}.`;
  byId("made").textContent = `Written ${view.made} by arat-ray ${view.version}. `
    + (version() ? "It is kept up to date while arat-ray watch runs; arat-ray report writes it as a file to send around."
      : "This file holds the tables that it shows: arat-ray report --extract FILE -o FOLDER.");
}

// What the hypervolume is drawn over: the place of each in its points
const OVER = [["complete trials", 0], ["hours", 2], ["device-hours of what had ended", 3], ["US dollars of what had ended", 4]];

function hypervolume() {
  const complete = view.studies.filter((study) => study.hypervolume.length);
  const there = OVER.filter(([, place]) => complete.some((study) => study.hypervolume.some((point) => point[place])));
  const [name, place] = there[state.over] ?? OVER[0];
  const shown = complete.map((study) => study.hypervolume.filter((point) => state.until === null || point[2] <= state.until));
  const drawnOver = (points) => points.filter((point) => point[place] !== null).map((point) => [point[place], point[1]]);
  const came = (study, i) => `${study.name} comes to ${shown[i].at(-1)?.[1] ?? 0} after ${shown[i].length}`;
  byId("hypervolume").replaceChildren(complete.length ? lines({ width: width(), height: 280, step: true,
    label: `Hypervolume over ${name}: ${complete.map(came).join("; ")}`,
    within: drawnOver(complete.flatMap((study) => study.hypervolume)), whole: place === 0,
    xLabel: place ? name : "complete trials, in the order in which they ended", yLabel: "hypervolume",
    colours: complete.map((study) => view.studies.indexOf(study)),
    series: complete.map((study, i) => ({ name: study.name, points: drawnOver(shown[i]) })) })
    : html("p", { class: "note" }, "No trial that may be on a front is complete yet."));
  if (there.length > 1 && !byId("over")) byId("h-hypervolume").after(html("p", { class: "controls" }, html("label", {}, "over ",
    html("select", { id: "over", onchange: (event) => { state.over = Number(event.target.value); hypervolume(); } },
      ...there.map(([each], i) => html("option", { value: i }, each))))));
}

function failed() {
  const found = trials.filter((trial) => trial.kind === "failed");
  byId("failed").replaceChildren(found.length ? table(`${found.length} failed`, ["trial", "epochs", "reason"],
    found.map((trial) => [named(trial), trial.epochs, trial.reason ?? "no reason given"])) : html("p", { class: "note" }, "None."));
}

function facts() {
  byId("facts").replaceChildren(...view.studies.map((study) => html("table", {}, html("caption", {}, study.name), html("tbody", {},
    ...study.facts.map(([name, value]) => html("tr", {}, html("th", { scope: "row" }, name), html("td", { class: "text" }, value)))))));
}
