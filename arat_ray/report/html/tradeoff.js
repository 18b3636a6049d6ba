// The trade-off: points, front, intervals and evaluations, a brush, and the controls that choose what is shown

const xOf = (trial) => (one ? trial.number : goalOf(trial, state.x));
const yOf = (trial) => goalOf(trial, state.y);
const isPlotted = (trial) => xOf(trial) !== null && yOf(trial) !== null;
const isIn = (trial) => state.kinds.has(trial.kind) && state.ranges.every(([low, high], i) => {
  const value = goalOf(trial, i);
  return (low === null && high === null) || (value !== null && (low === null || value >= low) && (high === null || value <= high));
});
const kindsThere = () => KINDS.filter((kind) => trials.some((trial) => trial.final.kind === kind));

function besideOf(trial) {
  const chosen = trial.study.beside.find((each) => each.how === conditions[state.beside]);
  const point = chosen?.points[trial.id];
  const at = { clean_accuracy: 0, robust_accuracy: 1 };
  if (!point || one || !(goals[state.x] in at) || !(goals[state.y] in at)) return null;
  return [point[at[goals[state.x]]] * 100, point[at[goals[state.y]]] * 100];
}

// The curves of a trial's dial, and of its soups and mixtures, under the conditions that are chosen
function dialsOf(trial) {
  const found = trial.study.dials.find((each) => each.how === conditions[state.beside]);
  return found && String(goals) === "clean_accuracy,robust_accuracy" ? found.curves.filter((each) => each.trial === trial.id) : [];
}

function range(of, all, beside) {
  const values = all.map(of);
  const front = all.filter((trial) => trial.kind === "front").map(of);
  if (state.all || !front.length) return extent([...values, ...beside]);
  const [low, high] = extent([...front, ...beside], 0);
  const span = Math.max(high - low, 0.02 * Math.abs(high), 1e-9);
  return extent([...values.filter((value) => value > low - 2 * span && value < high + 2 * span), ...beside]);
}

function tradeoff() {
  const wide = width(), height = Math.round(wide * 0.55 + 90);
  const plotted = trials.filter(isPlotted);
  if (!plotted.length) {
    byId("tradeoff").replaceChildren(html("p", {}, state.until === null
      ? "No trial was measured in every goal yet: there is nothing to draw." : "No trial had been measured in every goal by then."));
    return;
  }
  const whole = trials.map((trial) => ({ ...trial, ...trial.final })).filter(isPlotted); // so that the axes stay in time
  const dialled = whole.flatMap(dialsOf).flatMap((each) => each.points).map(([, ...point]) => [point[state.x] * 100, point[state.y] * 100]);
  const beside = [...whole.map(besideOf).filter(Boolean), ...dialled];
  if (state.all) beside.push(...publishedAt().map(({ at }) => at));
  const ends = (axis) => whole.filter((trial) => trial.kind === "front" && trial.intervals[axis])
    .flatMap((trial) => trial.intervals[axis].map((end) => end * 100));
  const x = one ? extent(whole.map(xOf)) : range(xOf, whole, [...beside.map((point) => point[0]), ...ends(state.x)]);
  const y = range(yOf, whole, [...beside.map((point) => point[1]), ...ends(state.y)]);
  const { box, at, parts } = frame({ width: wide, height, x, y,
    whole: one, xLabel: one ? "trial" : titled(goals[state.x]), yLabel: titled(goals[state.y]) });
  const inside = (px, py) => px >= x[0] && px <= x[1] && py >= y[0] && py <= y[1];
  const onFront = plotted.filter((trial) => trial.kind === "front");
  const drawing = svg("svg", { viewBox: `0 0 ${wide} ${height}`, role: "group",
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
  const groups = { back: svg("g"), lines: svg("g", { "aria-hidden": "true" }), front: svg("g") };
  drawn.points.clear();
  let outside = 0;
  for (const trial of [...plotted].sort((a, b) => xOf(a) - xOf(b))) {
    const px = xOf(trial), py = yOf(trial);
    if (!inside(px, py)) { outside++; continue; }
    const isFront = trial.kind === "front", colour = `s${trial.s % COLOURS}`;
    const label = `${named(trial)}, ${WORDS[trial.kind]}: ${goals.map((goal, i) => `${titled(goal)} ${text(trial.goals[i], scaleOf(goal))}`).join(", ")}`;
    const own = [marker(SHAPES[trial.kind], at.x(px), at.y(py), { class: `point ${trial.kind} ${colour}`, "data-trial": trial.number, "data-key": trial.key,
      onclick: () => choose(trial), onfocus: isFront ? () => choose(trial) : null, role: isFront ? "button" : null,
      tabindex: isFront ? 0 : null, "aria-label": isFront ? label : null }, svg("title", {}, label))];
    (isFront ? groups.front : groups.back).append(own[0]);
    const bars = (axis) => (isFront && trial.intervals[axis] ? trial.intervals[axis].map((end) => end * 100) : null);
    const across = one ? null : bars(state.x), up = bars(state.y);
    if (across || up) {
      own.push(svg("path", { class: `bars ${colour}`, d: (across ? `M${at.x(across[0])} ${at.y(py)}H${at.x(across[1])}` : "")
        + (up ? `M${at.x(px)} ${at.y(up[0])}V${at.y(up[1])}` : "") }));
      groups.lines.append(own.at(-1));
    }
    const other = state.until === null ? besideOf(trial) : null;
    if (other) {
      own.push(svg("path", { class: `beside ${colour}`, d: `M${at.x(px)} ${at.y(py)}L${at.x(other[0])} ${at.y(other[1])}` }),
        marker(DIAMOND, at.x(other[0]), at.y(other[1]), { class: `point ${colour}`, onclick: () => choose(trial) },
          svg("title", {}, `${named(trial)}, ${conditions[state.beside]}: ${text(other[0])}, ${text(other[1])}`)));
      groups.lines.append(...own.slice(-2));
    }
    if (state.until === null) {
      for (const { weights, points } of dialsOf(trial)) {
        const places = points.map(([dial, ...point]) => [dial, at.x(point[state.x] * 100), at.y(point[state.y] * 100), point]);
        const curve = svg("path", { class: `dial ${colour}`, d: `M${places.map(([, x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}` });
        const dots = places.map(([dial, x, y, point]) => marker(DOT, x, y, { class: `point dialled ${colour}`, onclick: () => choose(trial) },
          svg("title", {}, `${named(trial)}, ${weights}, dial ${text(dial)}: ${goals.map((goal, i) => `${titled(goal)} ${text(point[i], 100)}`).join(", ")}`)));
        own.push(curve, ...dots);
        groups.lines.append(curve, ...dots);
      }
    }
    drawn.points.set(trial, { own, x: at.x(px), y: at.y(py) });
  }
  const starred = publishedAt().filter(({ at: place }) => inside(...place));
  const stars = svg("g");
  for (const { at: place, point, sds } of starred) {
    stars.append(svg("path", { class: "bars published", d: `M${at.x(place[0] - sds[0])} ${at.y(place[1])}H${at.x(place[0] + sds[0])}`
      + `M${at.x(place[0])} ${at.y(place[1] - sds[1])}V${at.y(place[1] + sds[1])}` }),
    marker(STAR, at.x(place[0]), at.y(place[1]), { class: "published" }, svg("title", {}, `published: ${point[0]}, ${text(place[0])}, ${text(place[1])}`)));
  }
  drawn.ring = svg("circle", { class: "chosen out", r: 9 });
  drawing.append(groups.back, stars, groups.lines, groups.front, drawn.ring);
  brush(drawing, at);
  byId("tradeoff").replaceChildren(drawing);
  drawn.outside = outside;
  legend(starred.length > 0);
  published(starred.length);
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
    refilter();
  });
}

function legend(isStarred) {
  const sample = (shape, kind) => svg("svg", { viewBox: "-14 -8 28 16", "aria-hidden": "true" },
    svg("path", { d: shape, class: `point ${kind} s0` }));
  const there = KINDS.filter((kind) => trials.some((trial) => trial.kind === kind && isPlotted(trial)));
  const items = there.map((kind) => html("li", {}, sample(SHAPES[kind], kind),
    WORDS[kind] + (kind === "front" ? ", bars: 95 % intervals" : "")));
  if (trials.some((trial) => isPlotted(trial) && besideOf(trial))) items.push(html("li", {}, sample(DIAMOND, ""), conditions[state.beside]));
  if (trials.some((trial) => dialsOf(trial).length)) items.push(html("li", {}, sample(DOT, "dialled"), `settings of the dial, joined: ${conditions[state.beside]}`));
  if (isStarred) items.push(html("li", {}, svg("svg", { viewBox: "-14 -8 28 16", "aria-hidden": "true" },
    svg("path", { d: STAR, class: "published" })), "published, bars: standard deviations"));
  if (several) view.studies.forEach((study, s) => items.push(html("li", {}, svg("svg", { viewBox: "0 0 28 16", "aria-hidden": "true" },
    svg("path", { class: `stroke s${s % COLOURS}`, "stroke-width": 3, "stroke-dasharray": DASHES[s % DASHES.length], d: "M0 8H28" })), study.name)));
  byId("legend").replaceChildren(...items);
}

function controls() {
  const select = (name, options, chosen, change) => html("label", {}, `${name} `, html("select", {
    onchange: (event) => { change(Number(event.target.value)); tradeoff(); refilter(); } },
  ...options.map((option, i) => html("option", { value: i, selected: i === chosen ? "" : null }, option))));
  const number = (i, end, name) => html("label", {}, `${name} `, html("input", { type: "number", step: "any",
    value: state.ranges[i][end], "aria-label": `${titled(goals[i])}, ${name}`,
    onchange: (event) => { state.ranges[i][end] = event.target.value === "" ? null : Number(event.target.value); refilter(); } }));
  const parts = goals.map((goal, i) => html("fieldset", {}, html("legend", {}, titled(goal)), number(i, 0, "at least"), number(i, 1, "at most")));
  const there = kindsThere();
  parts.push(html("fieldset", {}, html("legend", {}, "Trials"), ...there.map((kind) => html("label", {}, html("input", {
    type: "checkbox", checked: state.kinds.has(kind) ? "" : null,
    onchange: (event) => { state.kinds[event.target.checked ? "add" : "delete"](kind); refilter(); } }), ` ${WORDS[kind]}`))));
  if (goals.length > 2) parts.push(select("x", goals.map(titled), state.x, (i) => { state.x = i; }),
    select("y", goals.map(titled), state.y, (i) => { state.y = i; }));
  if (conditions.length) parts.push(html("p", {}, select("Evaluations", [...conditions, "none"], state.beside, (i) => { state.beside = i; })));
  parts.push(html("label", { class: "check" }, html("input", { type: "checkbox", checked: state.all ? "" : null,
    onchange: (event) => { state.all = event.target.checked; tradeoff(); refilter(); } }), " far points too "),
  html("button", { type: "button", onclick: () => {
    state.ranges = goals.map(() => [null, null]);
    state.kinds = new Set(KINDS);
    controls();
    refilter();
  } }, "Show all trials"));
  byId("filter").replaceChildren(...parts);
}

// After another choice of the user's
function refilter() {
  state.rows = ROWS;
  filtered();
}

function filtered() {
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
  layers();
}
