// Parallel coordinates

function parallel() {
  const axes = [...params.map((name) => ({ name, of: (trial) => paramOf(trial, name),
    log: view.studies.some((study) => study.log[study.params.indexOf(name)]) })),
  ...goals.map((goal, i) => ({ name: titled(goal), of: (trial) => goalOf(trial, i) }))];
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
