// What each knob moves each goal by: its best value over its worst, the others averaged over; with 90 % intervals

const effectScale = (goal) => (goal === "front" || isAccuracy(goal) ? 100 : 1);
const effectUnit = (goal) => (goal === "front" ? "front (% of hypervolume)" : isAccuracy(goal) ? `${words(goal)} (points)` : words(goal));
const effectText = (goal, [effect, low, high]) => `${text(effect, effectScale(goal), 3)} [${text(low, effectScale(goal), 3)}, ${text(high, effectScale(goal), 3)}]`;

function importance() {
  byId("importance").replaceChildren(...view.studies.flatMap((study, s) => {
    const { knobs, why, command } = study.importance;
    const title = several ? [html("h3", {}, study.name)] : [];
    if (!knobs.length) return [...title, html("p", { class: "note" }, `${why ?? "No knob applies to any trial."} By hand: `, html("code", {}, command))];
    const effects = [...goals, "front"];
    return [...title,
      html("div", { class: "two" }, ...effects.map((goal, i) => whiskers(study, s, goal, i))),
      html("div", { class: "wide", role: "region", tabindex: 0, "aria-label": `Effects of the knobs as numbers${several ? `, ${study.name}` : ""}` },
        table("The best value of a knob over its worst, the other knobs averaged over, with 90 % intervals; by a model of all trials",
          ["knob", ...effects.flatMap((goal) => [effectUnit(goal), "best over worst"])],
          knobs.map(({ knob, moved }) => [html("th", { scope: "row" }, knob), ...effects.flatMap((goal, i) => [html("td", { class: "number" }, effectText(goal, moved[i].slice(2))), `${text(moved[i][0])} over ${text(moved[i][1])}`])])))];
  }));
}

function whiskers(study, s, goal, i) {
  const { knobs } = study.importance, scale = effectScale(goal), row = 34, wide = 420, height = knobs.length * row + 46;
  const [low, high] = extent([0, ...knobs.flatMap(({ moved }) => moved[i].slice(3).map((end) => end * scale))], 0.06);
  const at = (value) => 8 + ((value - low) / (high - low)) * (wide - 16);
  const parts = svg("g", { "aria-hidden": "true" });
  for (const tick of ticks(low, high)) {
    parts.append(svg("path", { class: tick === 0 ? "axis" : "grid", d: `M${at(tick)} 4V${height - 40}` }),
      svg("text", { x: at(tick), y: height - 24, "text-anchor": "middle" }, text(tick)));
  }
  parts.append(svg("text", { x: wide / 2, y: height - 6, "text-anchor": "middle" }, effectUnit(goal)));
  knobs.forEach(({ knob, moved }, k) => {
    const [, , effect, from, to] = moved[i], y = k * row + 26;
    parts.append(svg("text", { x: 8, y: y - 9 }, knob), svg("path", { class: `whisker s${s % COLOURS}${from <= 0 && to >= 0 ? " is-unsure" : ""}`,
      d: `M${at(from * scale)} ${y}H${at(to * scale)}` }), marker(SHAPES.front, at(effect * scale), y, { class: `point front s${s % COLOURS}` }));
  });
  const label = `What each knob moves: ${effectUnit(goal)}. ${knobs.map(({ knob, moved }) => `${knob} ${effectText(goal, moved[i].slice(2))}`).join("; ")}`;
  return svg("svg", { viewBox: `0 0 ${wide} ${height}`, role: "img", "aria-label": label }, parts);
}
