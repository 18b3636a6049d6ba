// Points that others have published, drawn beside evaluations that were measured like them

function publishedOf() {
  const how = conditions[state.beside];
  return { how, points: view.studies.map((study) => study.published.points[how]).find(Boolean) ?? [],
    why: view.studies.map((study) => study.published.why[how]).find(Boolean) };
}

// Where they lie in the plot, in percent
function publishedAt() {
  if (one || state.until !== null || ![goals[state.x], goals[state.y]].every(isAccuracy)) return [];
  const axes = [goals[state.x], goals[state.y]].map((goal) => (goal === "clean_accuracy" ? 0 : 1));
  return publishedOf().points.map((point) => ({ point, at: axes.map((axis) => point[1 + axis] * 100),
    sds: axes.map((axis) => (point[3 + axis] ?? 0) * 100) }));
}

function published(shown) {
  const { how, points, why } = publishedOf();
  const open = byId("published").querySelector("details")?.open;
  if (why && !points.length) {
    byId("published").replaceChildren(html("p", { class: "note" }, `Published points are not drawn beside ${how}: ${why}.`));
    return;
  }
  if (!points.length) {
    byId("published").replaceChildren();
    return;
  }
  const share = (value, sd) => text(value, 100) + (sd === null ? "" : ` \u00b1 ${text(sd, 100)}`);
  byId("published").replaceChildren(html("details", { open: open ? "" : null }, html("summary", {}, `${points.length} published points, measured like ${how}; ${shown} lie within the axes`),
    html("div", { class: "wide", role: "region", tabindex: 0, "aria-label": "Published points" },
      table("Accuracies in percent, as published", ["name", "clean", "robust", "source", "note"],
        points.map(([name, clean, robust, cleanSd, robustSd, source, note]) => [name, share(clean, cleanSd), share(robust, robustSd), source, note])))));
}
