"use strict";
// Everything foreign comes from the packed view and is set as text or as an attribute's value; nothing is parsed as markup.

const SVG = "http://www.w3.org/2000/svg";
const KINDS = ["front", "dominated", "early-stopped", "unfinished", "infeasible", "failed"];
const WORDS = { front: "on the front", dominated: "dominated", "early-stopped": "stopped early", unfinished: "unfinished",
  infeasible: "breaks a constraint", failed: "failed" };
const SHAPES = {
  front: "M5 0A5 5 0 1 1-5 0A5 5 0 1 1 5 0Z", dominated: "M3.5 0A3.5 3.5 0 1 1-3.5 0A3.5 3.5 0 1 1 3.5 0Z",
  "early-stopped": "M0-4.5L4.5 4H-4.5Z", unfinished: "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0Z",
  infeasible: "M-4-4L4 4M-4 4L4-4", failed: "M-4 0H4M0-4V4",
};
const DIAMOND = "M0-6L6 0L0 6L-6 0Z";
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 4", "1 4"];
const COLOURS = 6;
const ROWS = 200;

const byId = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) { if (value) element.addEventListener(name.slice(2), value); }
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

async function unpack(id) {
  const letters = atob(byId(id).textContent);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

// Numbers

const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const isAccuracy = (goal) => goal.endsWith("accuracy");
const scaleOf = (goal) => (isAccuracy(goal) ? 100 : 1);
const words = (name) => name.replace(/^validation_/, "").replaceAll("_", " ");
const titled = (goal) => words(goal) + (isAccuracy(goal) ? " (%)" : "");
function text(value, scale = 1, digits = 4) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value * scale) ? String(value * scale) : String(Number((value * scale).toPrecision(digits)));
}

function ticks(low, high, { count = 5, whole = false } = {}) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const nice = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw);
  const step = whole ? Math.max(1, nice) : nice;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function extent(values, margin = 0.05) {
  let low = Infinity, high = -Infinity;
  for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
  if (low > high) return [0, 1];
  const pad = (high - low || Math.abs(high) || 1) * margin;
  return [low - pad, high + pad];
}

// A frame with two linear axes: where values lie in it, and the elements of grid and labels

function frame({ width, height, x, y, xLabel, yLabel, whole }) {
  const box = { left: 52, right: width - 12, top: 12, bottom: height - 42 };
  const at = {
    x: (value) => box.left + ((value - x[0]) / (x[1] - x[0])) * (box.right - box.left),
    y: (value) => box.bottom - ((value - y[0]) / (y[1] - y[0])) * (box.bottom - box.top),
    ofX: (place) => x[0] + ((place - box.left) / (box.right - box.left)) * (x[1] - x[0]),
    ofY: (place) => y[0] + ((box.bottom - place) / (box.bottom - box.top)) * (y[1] - y[0]),
  };
  const parts = svg("g", { "aria-hidden": "true" });
  for (const tick of ticks(...x, { whole })) {
    parts.append(svg("path", { class: "grid", d: `M${at.x(tick)} ${box.top}V${box.bottom}` }),
      svg("text", { x: at.x(tick), y: box.bottom + 16, "text-anchor": "middle" }, text(tick)));
  }
  for (const tick of ticks(...y)) {
    parts.append(svg("path", { class: "grid", d: `M${box.left} ${at.y(tick)}H${box.right}` }),
      svg("text", { x: box.left - 6, y: at.y(tick) + 4, "text-anchor": "end" }, text(tick)));
  }
  parts.append(svg("path", { class: "axis", d: `M${box.left} ${box.top}V${box.bottom}H${box.right}` }),
    svg("text", { x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle" }, xLabel),
    svg("text", { transform: `translate(14 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yLabel));
  return { box, at, parts };
}

const marker = (shape, x, y, attributes, ...children) =>
  svg("path", { d: shape, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, ...attributes }, ...children);

function table(caption, heads, rows) {
  const cell = (value) => (value instanceof Node ? value : html("td", { class: typeof value === "number" ? "number" : "text" },
    typeof value === "number" ? text(value, 1, 5) : (value ?? "")));
  return html("table", {}, html("caption", {}, caption),
    html("thead", {}, html("tr", {}, ...heads.map((head) => html("th", { scope: "col" }, head)))),
    html("tbody", {}, ...rows.map((row) => html("tr", {}, ...row.map(cell)))));
}

// Line plots with a table of their numbers for who cannot see them

function lines({ label, xLabel, yLabel, series, colours, width = 420, height = 250, step = false }) {
  const all = series.flatMap((each) => each.points);
  if (!all.length) return html("p", { class: "note" }, `${label}: nothing was measured.`);
  const { at, parts } = frame({ width, height, xLabel, yLabel, whole: true,
    x: extent(all.map((point) => point[0]), 0.02), y: extent(all.map((point) => point[1])) });
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, parts);
  const legend = html("ul", { class: "legend" });
  series.forEach(({ name, points }, i) => {
    const colour = `s${(colours ? colours[i] : i) % COLOURS}`;
    const dash = DASHES[i % DASHES.length];
    const path = points.map(([x, y], n) => (n && step ? `H${at.x(x).toFixed(1)}V` : `${n ? "L" : "M"}${at.x(x).toFixed(1)} `)
      + at.y(y).toFixed(1)).join("");
    drawing.append(svg("path", { class: `stroke ${colour}`, "stroke-width": 2, "stroke-dasharray": dash, d: path }));
    if (points.length <= 30) {
      for (const [x, y] of points) drawing.append(marker(SHAPES.dominated, at.x(x), at.y(y), { class: `point dominated ${colour}` },
        svg("title", {}, `${name}: ${text(y)} at ${text(x)}`)));
    }
    legend.append(html("li", {}, svg("svg", { viewBox: "0 0 28 16", "aria-hidden": "true" },
      svg("path", { class: `stroke ${colour}`, "stroke-width": 2, "stroke-dasharray": dash, d: "M0 8H28" })), name));
  });
  return html("div", {}, drawing, legend);
}

// The page

function start(view) {
  const goals = view.goals, one = goals.length === 1;
  const trials = view.studies.flatMap((study, s) => study.trials.map((trial) => ({ ...trial, study, s })));
  const several = view.studies.length > 1;
  const named = (trial) => `trial ${trial.number}${several ? ` of ${trial.study.name}` : ""}`;
  const state = { x: 0, y: one ? 0 : 1, all: false, beside: 0, sort: null, down: false, rows: ROWS, chosen: null,
    ranges: goals.map(() => [null, null]), kinds: new Set(KINDS) };
  const xOf = (trial) => (one ? trial.number : trial.goals[state.x] === null ? null : trial.goals[state.x] * scaleOf(goals[state.x]));
  const yOf = (trial) => (trial.goals[state.y] === null ? null : trial.goals[state.y] * scaleOf(goals[state.y]));
  const isPlotted = (trial) => xOf(trial) !== null && yOf(trial) !== null;
  const isIn = (trial) => state.kinds.has(trial.kind) && state.ranges.every(([low, high], i) => {
    const value = trial.goals[i] === null ? null : trial.goals[i] * scaleOf(goals[i]);
    return (low === null && high === null) || (value !== null && (low === null || value >= low) && (high === null || value <= high));
  });
  const conditions = [...new Set(view.studies.flatMap((study) => study.beside.map((each) => each.how)))];
  const besideOf = (trial) => {
    const chosen = trial.study.beside.find((each) => each.how === conditions[state.beside]);
    const point = chosen?.points[trial.id];
    const at = { clean_accuracy: 0, robust_accuracy: 1 };
    if (!point || one || !(goals[state.x] in at) || !(goals[state.y] in at)) return null;
    return [point[at[goals[state.x]]] * 100, point[at[goals[state.y]]] * 100];
  };
  const drawn = { points: new Map(), parallel: new Map(), rows: new Map() };

  // Trade-off

  function range(of, values, beside) {
    const front = trials.filter((trial) => trial.kind === "front" && isPlotted(trial)).map(of);
    if (state.all || !front.length) return extent([...values, ...beside]);
    const [low, high] = extent([...front, ...beside], 0);
    const span = Math.max(high - low, 0.02 * Math.abs(high), 1e-9);
    return extent([...values.filter((value) => value > low - 2 * span && value < high + 2 * span), ...beside]);
  }

  function tradeoff() {
    const { width } = view, height = Math.round(width * 0.55 + 90);
    const plotted = trials.filter(isPlotted);
    if (!plotted.length) {
      byId("tradeoff").replaceChildren(html("p", {}, "No trial was measured in every goal yet: there is nothing to draw."));
      return;
    }
    const beside = plotted.map(besideOf).filter(Boolean);
    const ends = (axis) => plotted.filter((trial) => trial.kind === "front" && trial.intervals[axis])
      .flatMap((trial) => trial.intervals[axis].map((end) => end * 100));
    const x = one ? extent(plotted.map(xOf)) : range(xOf, plotted.map(xOf), [...beside.map((point) => point[0]), ...ends(state.x)]);
    const y = range(yOf, plotted.map(yOf), [...beside.map((point) => point[1]), ...ends(state.y)]);
    const { box, at, parts } = frame({ width, height, x, y,
      whole: one, xLabel: one ? "trial" : titled(goals[state.x]), yLabel: titled(goals[state.y]) });
    const inside = (px, py) => px >= x[0] && px <= x[1] && py >= y[0] && py <= y[1];
    const onFront = plotted.filter((trial) => trial.kind === "front");
    const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group",
      "aria-label": `Trade-off of ${counted(plotted.length, "trial")}, ${onFront.length} on the front. Tab goes from one member of the `
        + "front to the next; all trials are in the table below." });
    const back = svg("rect", { class: "back", x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top });
    drawing.append(parts, back);
    view.studies.forEach((study, s) => {
      const members = onFront.filter((trial) => trial.s === s).sort((a, b) => xOf(a) - xOf(b));
      if (goals.length !== 2 || !members.length) return;
      const stairs = members.map((trial, i) => (i ? `V${at.y(yOf(trial))}H${at.x(xOf(trial))}`
        : `M${box.left} ${at.y(yOf(trial))}H${at.x(xOf(trial))}`)).join("") + `V${box.bottom}`;
      drawing.append(svg("path", { class: `stroke s${s % COLOURS}`, "stroke-dasharray": DASHES[s % DASHES.length], d: stairs,
        "pointer-events": "none" }));
    });
    const layers = { back: svg("g"), lines: svg("g", { "aria-hidden": "true" }), front: svg("g") };
    drawn.points.clear();
    let outside = 0;
    for (const trial of [...plotted].sort((a, b) => xOf(a) - xOf(b))) {
      const px = xOf(trial), py = yOf(trial);
      if (!inside(px, py)) { outside++; continue; }
      const isFront = trial.kind === "front", colour = `s${trial.s % COLOURS}`;
      const label = `${named(trial)}, ${WORDS[trial.kind]}: ${goals.map((goal, i) => `${titled(goal)} ${text(trial.goals[i], scaleOf(goal))}`).join(", ")}`;
      const own = [marker(SHAPES[trial.kind], at.x(px), at.y(py), { class: `point ${trial.kind} ${colour}`, "data-trial": trial.number,
        onclick: () => choose(trial), onfocus: isFront ? () => choose(trial) : null, role: isFront ? "button" : null,
        tabindex: isFront ? 0 : null, "aria-label": isFront ? label : null }, svg("title", {}, label))];
      (isFront ? layers.front : layers.back).append(own[0]);
      const bars = (axis) => (isFront && trial.intervals[axis] ? trial.intervals[axis].map((end) => end * 100) : null);
      const across = one ? null : bars(state.x), up = bars(state.y);
      if (across || up) {
        own.push(svg("path", { class: `bars ${colour}`, d: (across ? `M${at.x(across[0])} ${at.y(py)}H${at.x(across[1])}` : "")
          + (up ? `M${at.x(px)} ${at.y(up[0])}V${at.y(up[1])}` : "") }));
        layers.lines.append(own.at(-1));
      }
      const other = besideOf(trial);
      if (other) {
        own.push(svg("path", { class: `beside ${colour}`, d: `M${at.x(px)} ${at.y(py)}L${at.x(other[0])} ${at.y(other[1])}` }),
          marker(DIAMOND, at.x(other[0]), at.y(other[1]), { class: `point ${colour}`, onclick: () => choose(trial) },
            svg("title", {}, `${named(trial)}, ${conditions[state.beside]}: ${text(other[0])}, ${text(other[1])}`)));
        layers.lines.append(...own.slice(-2));
      }
      drawn.points.set(trial, { own, x: at.x(px), y: at.y(py) });
    }
    drawn.ring = svg("circle", { class: "chosen out", r: 9 });
    drawing.append(layers.back, layers.lines, layers.front, drawn.ring);
    brush(drawing, at);
    byId("tradeoff").replaceChildren(drawing);
    drawn.outside = outside;
    legend();
    ring();
  }

  function brush(drawing, at) {
    const area = svg("rect", { class: "brush out" });
    drawing.append(area);
    const place = (event) => {
      const matrix = drawing.getScreenCTM().inverse();
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
      return [point.x, point.y];
    };
    const isDrag = (to) => Math.hypot(to[0] - from[0], to[1] - from[1]) >= 5;
    let from = null;
    const end = () => { from = null; area.setAttribute("class", "brush out"); };
    drawing.addEventListener("pointerdown", (event) => { from = place(event); });
    drawing.addEventListener("pointermove", (event) => {
      const to = from && place(event);
      if (!to || !isDrag(to)) return;
      if (!drawing.hasPointerCapture(event.pointerId)) drawing.setPointerCapture(event.pointerId); // not before: a click is a point's
      area.setAttribute("class", "brush");
      for (const [name, value] of Object.entries({ x: Math.min(from[0], to[0]), y: Math.min(from[1], to[1]),
        width: Math.abs(to[0] - from[0]), height: Math.abs(to[1] - from[1]) })) area.setAttribute(name, value);
    });
    drawing.addEventListener("pointercancel", end);
    drawing.addEventListener("pointerup", (event) => {
      if (!from) return;
      const to = place(event), start = from, isClick = !isDrag(to);
      end();
      if (isClick) return;
      const sides = (a, b) => [Math.min(a, b), Math.max(a, b)].map((value) => Number(value.toPrecision(6)));
      if (!one) state.ranges[state.x] = sides(at.ofX(start[0]), at.ofX(to[0]));
      state.ranges[state.y] = sides(at.ofY(start[1]), at.ofY(to[1]));
      controls();
      filtered();
    });
  }

  function legend() {
    const sample = (shape, kind) => svg("svg", { viewBox: "-14 -8 28 16", "aria-hidden": "true" },
      svg("path", { d: shape, class: `point ${kind} s0` }));
    const there = KINDS.filter((kind) => trials.some((trial) => trial.kind === kind && isPlotted(trial)));
    const items = there.map((kind) => html("li", {}, sample(SHAPES[kind], kind),
      WORDS[kind] + (kind === "front" ? ", bars: 95 % intervals" : "")));
    if (trials.some((trial) => isPlotted(trial) && besideOf(trial))) items.push(html("li", {}, sample(DIAMOND, ""), conditions[state.beside]));
    if (several) view.studies.forEach((study, s) => items.push(html("li", {}, svg("svg", { viewBox: "0 0 28 16", "aria-hidden": "true" },
      svg("path", { class: `stroke s${s % COLOURS}`, "stroke-width": 3, "stroke-dasharray": DASHES[s % DASHES.length], d: "M0 8H28" })), study.name)));
    byId("legend").replaceChildren(...items);
  }

  function controls() {
    const select = (name, options, chosen, change) => html("label", {}, `${name} `, html("select", {
      onchange: (event) => { change(Number(event.target.value)); tradeoff(); filtered(); } },
    ...options.map((option, i) => html("option", { value: i, selected: i === chosen ? "" : null }, option))));
    const number = (i, end, name) => html("label", {}, `${name} `, html("input", { type: "number", step: "any",
      value: state.ranges[i][end], "aria-label": `${titled(goals[i])}, ${name}`,
      onchange: (event) => { state.ranges[i][end] = event.target.value === "" ? null : Number(event.target.value); filtered(); } }));
    const parts = goals.map((goal, i) => html("fieldset", {}, html("legend", {}, titled(goal)), number(i, 0, "at least"), number(i, 1, "at most")));
    const there = KINDS.filter((kind) => trials.some((trial) => trial.kind === kind));
    parts.push(html("fieldset", {}, html("legend", {}, "Trials"), ...there.map((kind) => html("label", {}, html("input", {
      type: "checkbox", checked: state.kinds.has(kind) ? "" : null,
      onchange: (event) => { state.kinds[event.target.checked ? "add" : "delete"](kind); filtered(); } }), ` ${WORDS[kind]}`))));
    if (goals.length > 2) parts.push(select("x", goals.map(titled), state.x, (i) => { state.x = i; }),
      select("y", goals.map(titled), state.y, (i) => { state.y = i; }));
    if (conditions.length) parts.push(html("p", {}, select("Evaluations", [...conditions, "none"], state.beside, (i) => { state.beside = i; })));
    parts.push(html("label", {}, html("input", { type: "checkbox", checked: state.all ? "" : null,
      onchange: (event) => { state.all = event.target.checked; tradeoff(); filtered(); } }), " far points too "),
    html("button", { type: "button", onclick: () => {
      state.ranges = goals.map(() => [null, null]);
      state.kinds = new Set(KINDS);
      controls();
      filtered();
    } }, "Show all trials"));
    byId("filter").replaceChildren(...parts);
  }

  function filtered() {
    state.rows = ROWS;
    let count = 0;
    for (const trial of trials) {
      const shown = isIn(trial);
      count += shown;
      for (const element of drawn.points.get(trial)?.own ?? []) element.classList.toggle("out", !shown);
      drawn.parallel.get(trial)?.classList.toggle("out", !shown);
    }
    const far = drawn.outside ? `; ${drawn.outside} outside the axes` : "";
    byId("shown").textContent = `Shown: ${count} of ${counted(trials.length, "trial")}${far}. Drag over the plot, or set bounds, to choose.`;
    rows();
  }

  // One trial

  function ring() {
    const place = state.chosen && drawn.points.get(state.chosen);
    if (!drawn.ring) return;
    drawn.ring.setAttribute("class", place ? "chosen" : "chosen out");
    if (place) { drawn.ring.setAttribute("cx", place.x); drawn.ring.setAttribute("cy", place.y); }
  }

  function choose(trial) {
    if (state.chosen === trial) return;
    for (const drawing of [drawn.rows, drawn.parallel]) {
      drawing.get(state.chosen)?.classList.remove("is-chosen");
      drawing.get(trial)?.classList.add("is-chosen");
    }
    state.chosen = trial;
    ring();
    detail(trial);
  }

  function detail(trial) {
    byId("h-trial").textContent = several ? `Trial ${trial.number} of ${trial.study.name}` : `Trial ${trial.number}`;
    const curves = trial.curves, epochs = curves.epoch ?? [];
    const series = (names) => names.filter((name) => curves[name]?.some((value) => value !== null)).map((name) => ({ name: words(name),
      points: epochs.map((epoch, i) => [epoch, curves[name][i]]).filter((point) => point[1] !== null)
        .map(([epoch, value]) => [epoch, value * scaleOf(name)]) }));
    const measured = goals.map((goal) => `validation_${goal}`);
    const losses = Object.keys(curves).filter((name) => name.startsWith("loss_"));
    const cells = Object.keys(curves);
    const values = goals.map((goal, i) => `${titled(goal)} ${text(trial.goals[i], scaleOf(goal)) || "not measured"}`
      + (trial.intervals[i] ? ` [${trial.intervals[i].map((end) => text(end, 100)).join(", ")}]` : ""));
    const parts = [
      html("p", { role: "status" }, `${trial.id}: ${WORDS[trial.kind]} (${trial.status}) after ${counted(trial.epochs ?? 0, "epoch")}. ${values.join("; ")}.`),
      html("p", {}, `Proposed: ${trial.proposed}. `
        + trial.study.params.map((name, i) => (trial.params[i] === null ? null : `${name} = ${text(trial.params[i])}`)).filter(Boolean).join(", ")),
    ];
    if (trial.reason) parts.push(html("p", {}, `Why it ended: ${trial.reason}`));
    parts.push(html("div", { class: "two" },
      lines({ label: `Validation over epochs, ${named(trial)}`, xLabel: "epoch", yLabel: measured.every(isAccuracy) ? "accuracy (%)" : "goals", series: series(measured) }),
      lines({ label: `Losses over epochs, ${named(trial)}`, xLabel: "epoch", yLabel: "loss", series: series(losses) })));
    if (cells.length > 1) parts.push(html("details", {}, html("summary", {}, "The curves as numbers"), html("div", { class: "wide",
      role: "region", tabindex: 0, "aria-label": "The curves as numbers" },
    table(`Epochs of ${named(trial)}; accuracies are shares`, cells.map((name) => name.replaceAll("_", " ")),
      epochs.map((_, i) => cells.map((name) => curves[name][i]))))));
    if (trial.decisions.length) parts.push(html("h3", {}, "Decisions of early stopping"), table("At each rung", ["epoch", "decision", "why"],
      trial.decisions.map((each) => [each.rung, each.goes_on ? "went on" : "stopped", each.why])));
    if (trial.evaluations.length) parts.push(html("h3", {}, "Evaluations"), html("div", { class: "wide", role: "region", tabindex: 0,
      "aria-label": "Evaluations" }, table("Accuracies in percent, with 95 % intervals", ["attack", "weights", "clean", "robust", "warnings"],
    trial.evaluations.map((each) => [each.how, each.checkpoint, ...[each.clean, each.robust].map((value, i) =>
      `${text(value, 100)} [${each.intervals[i].map((end) => text(end, 100)).join(", ")}]`), each.warnings ?? ""]))));
    parts.push(html("h3", {}, "Commands"), ...trial.commands.map((line) => {
      const code = html("code", {}, line);
      const button = html("button", { type: "button", "aria-label": `Copy ${line}`, onclick: async () => {
        try {
          await navigator.clipboard.writeText(line);
          button.textContent = "Copied";
        } catch {
          getSelection().selectAllChildren(code);
          button.textContent = "Selected";
        }
      } }, "Copy");
      return html("div", { class: "command" }, code, button);
    }));
    if (trial.config) parts.push(html("details", {}, html("summary", {}, "Configuration"),
      html("pre", { tabindex: 0, role: "region", "aria-label": "Configuration" }, indented(trial.config))));
    byId("detail").replaceChildren(...parts);
  }

  function indented(config) {
    try { return JSON.stringify(JSON.parse(config), null, 2); } catch { return config; }
  }

  // Table of trials

  const params = [...new Set(view.studies.flatMap((study) => study.params))];
  const paramOf = (trial, name) => trial.params[trial.study.params.indexOf(name)] ?? null;
  const columns = [
    { name: "trial", of: (trial) => trial.number },
    ...(several ? [{ name: "study", of: (trial) => trial.study.name }] : []),
    { name: "state", of: (trial) => WORDS[trial.kind] },
    ...goals.map((goal, i) => ({ name: titled(goal), of: (trial) => (trial.goals[i] === null ? null : trial.goals[i] * scaleOf(goal)), best: true })),
    { name: "epochs", of: (trial) => trial.epochs },
    ...params.map((name) => ({ name, of: (trial) => paramOf(trial, name) })),
  ];

  function sorted() {
    const found = trials.filter(isIn);
    if (!state.sort) return found;
    const { of } = state.sort, sign = state.down ? -1 : 1;
    return found.sort((a, b) => {
      const [left, right] = [of(a), of(b)];
      if (left === null || right === null) return (left === null) - (right === null);
      return sign * (typeof left === "number" && typeof right === "number" ? left - right : String(left).localeCompare(String(right)));
    });
  }

  function rows() {
    const found = sorted(), shown = found.slice(0, state.rows);
    drawn.rows.clear();
    const head = columns.map((column) => html("th", { scope: "col",
      "aria-sort": state.sort === column ? (state.down ? "descending" : "ascending") : null },
    html("button", { type: "button", "data-column": column.name, onclick: () => {
      state.down = state.sort === column ? !state.down : Boolean(column.best);
      state.sort = column;
      rows();
      byId("trials").querySelectorAll("thead button")[columns.indexOf(column)].focus();
    } }, column.name + (state.sort === column ? (state.down ? " \u2193" : " \u2191") : ""))));
    const body = shown.map((trial) => {
      const row = html("tr", { class: trial === state.chosen ? "is-chosen" : null },
        html("th", { scope: "row" }, html("button", { type: "button", "aria-label": `Show ${named(trial)}`, onclick: () => {
          choose(trial);
          byId("trial").scrollIntoView({ block: "start" });
        } }, String(trial.number))),
        ...columns.slice(1).map((column) => {
          const value = column.of(trial);
          return html("td", { class: typeof value === "number" ? "number" : null }, text(value));
        }));
      drawn.rows.set(trial, row);
      return row;
    });
    byId("trials").replaceChildren(html("table", {}, html("caption", {}, `${shown.length} of ${counted(found.length, "trial")}`),
      html("thead", {}, html("tr", {}, ...head)), html("tbody", {}, ...body)));
    byId("more").replaceChildren(...(shown.length < found.length ? [html("button", { type: "button",
      onclick: () => { state.rows += ROWS; rows(); } }, `Show ${Math.min(ROWS, found.length - shown.length)} more`)] : []));
  }

  // Parallel coordinates

  function parallel() {
    const axes = [...params.map((name) => ({ name, of: (trial) => paramOf(trial, name),
      log: view.studies.some((study) => study.log[study.params.indexOf(name)]) })),
    ...goals.map((goal, i) => ({ name: titled(goal), of: (trial) => (trial.goals[i] === null ? null : trial.goals[i] * scaleOf(goal)) }))];
    if (axes.length < 2 || !trials.length) {
      byId("parallel").replaceChildren(html("p", { class: "note" }, "Nothing was varied."));
      return;
    }
    const gap = 130, width = 60 + gap * (axes.length - 1) + 90, height = 340, top = 46, bottom = height - 16;
    const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, role: "img",
      "aria-label": `What was tried: ${axes.map((axis) => axis.name).join(", ")}. The numbers are in the table of trials.` });
    axes.forEach((axis, i) => {
      const values = trials.map(axis.of).filter((value) => value !== null);
      const x = 60 + gap * i, numeric = values.every((value) => typeof value === "number");
      drawing.append(svg("path", { class: "axis", d: `M${x} ${top}V${bottom}` }));
      if (numeric && values.length) {
        const log = axis.log && values.every((value) => value > 0), of = log ? Math.log10 : (value) => value;
        const [low, high] = extent(values.map(of), 0.02);
        axis.at = (value) => [x, bottom - ((of(value) - low) / (high - low)) * (bottom - top)];
        const marks = log ? [low, (low + high) / 2, high].map((each) => Number((10 ** each).toPrecision(2))) : ticks(low, high, { count: 4 });
        for (const mark of marks) drawing.append(svg("text", { x: x + 5, y: axis.at(mark)[1] + 4 }, text(mark)));
      } else {
        const labels = [...new Set(values.map(String))].sort();
        const step = (bottom - top) / Math.max(labels.length, 1);
        axis.at = (value) => [x, top + step * (labels.indexOf(String(value)) + 0.5)];
        labels.forEach((label, n) => drawing.append(svg("text", { x: x + 5, y: top + step * (n + 0.5) + 4 },
          label.length > 16 ? `${label.slice(0, 15)}\u2026` : label, svg("title", {}, label))));
      }
      const short = axis.name.split(".").slice(-2).join(".");
      drawing.append(svg("text", { x, y: i % 2 ? 34 : 16, "text-anchor": "middle" },
        short.length > 30 ? `${short.slice(0, 29)}\u2026` : short, svg("title", {}, axis.name)));
    });
    const layer = svg("g");
    for (const trial of [...trials].sort((a, b) => (a.kind === "front") - (b.kind === "front"))) {
      let path = "", pen = "M";
      for (const axis of axes) {
        const value = axis.of(trial);
        if (value === null) { pen = "M"; continue; }
        path += pen + axis.at(value).map((each) => each.toFixed(1)).join(" ");
        pen = "L";
      }
      const element = svg("path", { class: `parallel ${trial.kind === "front" ? "front" : ""} s${trial.s % COLOURS}`, d: path || "M0 0",
        "stroke-dasharray": several ? DASHES[trial.s % DASHES.length] : "", onclick: () => choose(trial) }, svg("title", {}, named(trial)));
      drawn.parallel.set(trial, element);
      layer.append(element);
    }
    drawing.insertBefore(layer, drawing.firstChild);
    byId("parallel").replaceChildren(drawing, html("p", { class: "note" }, "Thick lines are on the front."));
  }

  // The rest

  const complete = view.studies.filter((study) => study.hypervolume.length);
  byId("hypervolume").replaceChildren(complete.length ? lines({ width: view.width, height: 280, step: true,
    label: `Hypervolume over complete trials: ${complete.map((study) => `${study.name} comes to ${study.hypervolume.at(-1)[1]} after ${study.hypervolume.length}`).join("; ")}`,
    xLabel: "complete trials, in the order in which they ended", yLabel: "hypervolume",
    colours: complete.map((study) => view.studies.indexOf(study)),
    series: complete.map((study) => ({ name: study.name, points: study.hypervolume })) })
    : html("p", { class: "note" }, "No trial that may be on a front is complete yet."));
  const failed = trials.filter((trial) => trial.kind === "failed");
  byId("failed").replaceChildren(failed.length ? table(`${failed.length} failed`, ["trial", "epochs", "reason"],
    failed.map((trial) => [named(trial), trial.epochs, trial.reason ?? "no reason given"])) : html("p", { class: "note" }, "None."));
  byId("facts").replaceChildren(...view.studies.map((study) => html("table", {}, html("caption", {}, study.name), html("tbody", {},
    ...study.facts.map(([name, value]) => html("tr", {}, html("th", { scope: "row" }, name), html("td", { class: "text" }, value)))))));
  const best = (i) => Math.max(...trials.filter((trial) => trial.kind === "front" && trial.goals[i] !== null).map((trial) => trial.goals[i]));
  const front = trials.filter((trial) => trial.kind === "front").length;
  byId("summary").textContent = `${counted(trials.length, "trial")}, ${front} on ${several ? "the fronts" : "the front"}`
    + (front ? `; best ${goals.map((goal, i) => `${titled(goal)} ${text(best(i), scaleOf(goal))}`).join(", ")}` : "")
    + `. Measured: ${[...new Set(view.studies.flatMap((study) => study.measured))].join("; ") || "nothing yet"}.`;
  byId("made").textContent = `Written ${view.made} by arat-ray ${view.version}. This file holds the tables that it shows: arat-ray report --extract FILE -o FOLDER.`;
  controls();
  tradeoff();
  parallel();
  filtered();
  const first = trials.find((trial) => trial.kind === "front") ?? trials[0];
  if (first) choose(first);
  else byId("detail").replaceChildren(html("p", { class: "note" }, "There is no trial yet."));
}

// As wide as the screen when it is opened, so that letters on a phone have their size
const width = () => Math.round(Math.min(Math.max(document.querySelector("main").clientWidth, 320), 832));

unpack("view").then((view) => start({ ...view, width: width() })).catch((error) => {
  byId("summary").textContent = `This page could not be drawn (${error.message}). It needs a browser of 2023 or later; the tables are in the file all the same.`;
  throw error;
});
