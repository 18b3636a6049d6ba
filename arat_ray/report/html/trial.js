// One trial: its curves, decisions, evaluations, commands and configuration

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

function detail(chosen) {
  const trial = { ...chosen, ...chosen.final }; // all of it, at whatever time the page stands
  const shown = JSON.stringify({ ...trial, study: trial.study.name });
  if (drawn.detail === shown) return;
  const open = drawn.key === trial.key ? [...document.querySelectorAll("#detail details[open] > summary")].map((each) => each.textContent) : [];
  drawn.detail = shown;
  drawn.key = trial.key;
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
  const gaps = goals.map((goal, i) => [i, measuredOf(trial, i)]).filter(([, points]) => points.length);
  if (gaps.length) parts.push(html("div", { class: "wide", role: "region", tabindex: 0, "aria-label": "Best and last epoch" }, table("Best and last epoch", ["goal", "best", "at epoch", "last", "at epoch", "gap"], gaps.map(([i, points]) => {
    const best = points.reduce((first, point) => (point[1] > first[1] ? point : first)), last = points.at(-1);
    return [titled(goals[i]), best[1] * scaleOf(goals[i]), best[0], last[1] * scaleOf(goals[i]), last[0], gapOf(trial, i)];
  }))));
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
  for (const each of document.querySelectorAll("#detail details > summary")) each.parentElement.open = open.includes(each.textContent);
}

function indented(config) {
  try { return JSON.stringify(JSON.parse(config), null, 2); } catch { return config; }
}
