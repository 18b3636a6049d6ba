// The table of trials

const columnsOfTrials = () => [
  { name: "trial", of: (trial) => trial.number },
  ...(several ? [{ name: "study", of: (trial) => trial.study.name }] : []),
  { name: "state", of: (trial) => WORDS[trial.kind] },
  ...goals.map((goal, i) => ({ name: titled(goal), of: (trial) => goalOf(trial, i), best: true })),
  ...goals.map((goal, i) => ({ name: `${words(goal)}, best - last`, of: (trial) => gapOf(trial, i) })),
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
      html("th", { scope: "row" }, html("button", { type: "button", "aria-label": `Show ${named(trial)}`, "data-key": trial.key, onclick: () => {
        choose(trial);
        byId("trial").scrollIntoView({ block: "start" });
      } }, String(trial.number))),
      ...columns.slice(1).map((column) => {
        const value = column.of(trial);
        return html("td", { class: typeof value === "number" ? "number" : column.name === "state" ? "state" : null }, text(value));
      }));
    drawn.rows.set(trial, row);
    return row;
  });
  byId("trials").replaceChildren(html("table", {}, html("caption", {}, `${shown.length} of ${counted(found.length, "trial")}`),
    html("thead", {}, html("tr", {}, ...head)), html("tbody", {}, ...body)));
  byId("more").replaceChildren(...(shown.length < found.length ? [html("button", { type: "button",
    onclick: () => { state.rows += ROWS; rows(); } }, `Show ${Math.min(ROWS, found.length - shown.length)} more`)] : []));
}
