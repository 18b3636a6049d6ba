// Plots: a frame with two linear axes, markers, and lines with a legend

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

// Line plots with a table of their numbers for who cannot see them

function lines({ label, xLabel, yLabel, series, colours, within, whole = true, width = 420, height = 250, step = false }) {
  const all = within ?? series.flatMap((each) => each.points);
  if (!all.length) return html("p", { class: "note" }, `${label}: nothing was measured.`);
  const { at, parts } = frame({ width, height, xLabel, yLabel, whole,
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
