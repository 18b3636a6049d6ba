// The same networks under several attacks, from the weakest to the strongest

const RUNGS = 12;

function ladder() {
  const found = view.studies.flatMap((study, s) => study.ladders.map((each) => ({ ...each, study, s })));
  byId("s-ladder").hidden = !found.length;
  byId("ladder").replaceChildren(...found.flatMap((each) => [
    html("h3", {}, `${each.how}${several ? `, ${each.study.name}` : ""}`), rungs(each),
    html("div", { class: "wide", role: "region", tabindex: 0, "aria-label": `Attacks, ${each.how}${several ? `, ${each.study.name}` : ""}` },
      table("Robust accuracy in percent, with 95 % intervals", ["trial", "weights", ...each.attacks],
        each.members.map(({ trial, weights, values }) => [html("th", { scope: "row" }, ofId(each.study, trial)), weights,
          ...values.map((value) => html("td", { class: "number" }, value ? `${text(value[0], 100)} [${text(value[1], 100)}, ${text(value[2], 100)}]` : ""))])))]));
}

const ofId = (study, id) => String(study.trials.find((trial) => trial.id === id)?.number ?? id);

function rungs({ attacks, members, study, s, how }) {
  const wide = width(), height = 280, left = 52, right = wide - 12, top = 12, bottom = height - 42;
  const shown = members.slice(0, RUNGS * 10);
  const [low, high] = extent(shown.flatMap(({ values }) => values.filter(Boolean).flat().map((value) => value * 100)));
  const x = (i) => left + ((i + 0.5) / attacks.length) * (right - left);
  const y = (value) => bottom - ((value * 100 - low) / (high - low)) * (bottom - top);
  const parts = svg("g", { "aria-hidden": "true" });
  for (const tick of ticks(low, high)) {
    parts.append(svg("path", { class: "grid", d: `M${left} ${y(tick / 100)}H${right}` }),
      svg("text", { x: left - 6, y: y(tick / 100) + 4, "text-anchor": "end" }, text(tick)));
  }
  attacks.forEach((attack, i) => parts.append(svg("text", { x: x(i), y: bottom + 18, "text-anchor": "middle" }, attack)));
  parts.append(svg("path", { class: "axis", d: `M${left} ${top}V${bottom}H${right}` }),
    svg("text", { transform: `translate(14 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, "robust accuracy (%)"));
  shown.forEach(({ trial, values }, m) => {
    const there = values.map((value, i) => [value, i]).filter(([value]) => value);
    const colour = `s${(several ? s : m) % COLOURS}`;
    parts.append(svg("path", { class: `rung ${colour}`, "stroke-dasharray": DASHES[m % DASHES.length],
      d: `M${there.map(([value, i]) => `${x(i).toFixed(1)} ${y(value[0]).toFixed(1)}`).join("L")}` }));
    for (const [value, i] of there) {
      parts.append(svg("path", { class: `bars ${colour}`, d: `M${x(i)} ${y(value[1])}V${y(value[2])}` }),
        marker(SHAPES.dominated, x(i), y(value[0]), { class: `point dominated ${colour}`, onclick: () => { const chosen = trials.find((each) => each.s === s && each.id === trial); if (chosen) choose(chosen); } },
          svg("title", {}, `trial ${ofId(study, trial)}, ${attacks[i]}: ${text(value[0], 100)}`)));
    }
    const [last, i] = there.at(-1);
    if (m < RUNGS) parts.append(svg("text", { x: x(i) + 8, y: y(last[0]) + 4 }, ofId(study, trial)));
  });
  return svg("svg", { viewBox: `0 0 ${wide} ${height}`, role: "img",
    "aria-label": `Robust accuracy of ${counted(members.length, "network")} under ${attacks.join(", ")}; ${how}` }, parts);
}
