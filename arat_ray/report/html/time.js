// The search as it stood after some hours: what each trial had shown by then, and which of them made up the front

const TICKS = 200;
const PLAY_MS = 10000;
const clock = { span: 0, timer: null };

// Of a trial that had not ended, what was measured last; what lies between two known moments went on evenly
function then(trial, hours) {
  const { knots } = trial;
  if (!knots.length || (trial.ended !== null && trial.ended <= hours)) return trial.final;
  const nothing = goals.map(() => null);
  if (knots[0][0] > hours) return { kind: "later", goals: nothing, intervals: nothing, epochs: 0, reason: null };
  const i = knots.findLastIndex((knot) => knot[0] <= hours), [at, done] = knots[i], [to, more] = knots[i + 1] ?? [at, done];
  const epochs = Math.floor(done + (to > at ? (more - done) * (hours - at) / (to - at) : 0));
  const count = (trial.curves.epoch ?? []).findLastIndex((epoch) => epoch <= epochs) + 1;
  const last = (goal) => trial.curves[`validation_${goal}`]?.slice(0, count).findLast((value) => value !== null) ?? null;
  return { kind: "unfinished", goals: goals.map(last), intervals: nothing, epochs, reason: null };
}

const dominates = (a, b) => a.goals.every((value, i) => value >= b.goals[i]) && a.goals.some((value, i) => value > b.goals[i]);

function setTime() {
  for (const trial of trials) Object.assign(trial, state.until === null ? trial.final : then(trial, state.until));
  if (state.until === null) return;
  view.studies.forEach((study, s) => {
    let front = [];
    const ended = trials.filter((trial) => trial.s === s && (trial.kind === "front" || trial.kind === "dominated"));
    for (const trial of ended) {
      trial.kind = "dominated";
      if (!front.some((other) => dominates(other, trial))) front = [...front.filter((other) => !dominates(trial, other)), trial];
    }
    for (const trial of front) trial.kind = "front";
  });
}

function asOf(hours) {
  state.until = hours === null || hours >= clock.span ? null : hours;
  setTime();
  draw();
  showTime();
}

function showTime() {
  const slider = byId("until");
  if (!slider) return;
  const words = state.until === null ? "as it stands" : `after ${text(state.until, 1, 3)} of ${text(clock.span, 1, 3)} hours`;
  slider.value = state.until === null ? TICKS : Math.round((state.until / clock.span) * TICKS);
  slider.setAttribute("aria-valuetext", words);
  byId("then").textContent = words;
  byId("play").textContent = clock.timer === null ? "Play the search" : "Pause";
}

function pausePlay() {
  clearInterval(clock.timer);
  clock.timer = null;
  showTime();
}

function play() {
  if (clock.timer !== null) { pausePlay(); return; }
  const steps = matchMedia("(prefers-reduced-motion: reduce)").matches ? 10 : 100;
  const began = performance.now() - ((state.until ?? 0) / clock.span) * PLAY_MS;
  clock.timer = setInterval(() => { // by the time that has passed, as many trials take longer to draw than a step
    asOf((clock.span * Math.round(((performance.now() - began) / PLAY_MS) * steps)) / steps);
    if (state.until === null) pausePlay();
  }, PLAY_MS / steps);
  asOf(state.until ?? 0);
}

// The controls, once something has taken time
function time() {
  clock.span = Math.max(0, ...trials.map((trial) => trial.ended ?? 0), ...trials.map((trial) => trial.knots.at(-1)?.[0] ?? 0));
  if (!clock.span || byId("until")) { showTime(); return; }
  byId("time").append(html("fieldset", {}, html("legend", {}, "What was known by then"),
    html("button", { type: "button", id: "play", onclick: play }),
    html("input", { type: "range", id: "until", min: 0, max: TICKS, "aria-label": "Hours since the search began", oninput: (event) => {
      const hours = (clock.span * Number(event.target.value)) / TICKS;
      if (clock.timer !== null) pausePlay();
      asOf(hours);
    } }), html("output", { id: "then", for: "until" })));
  showTime();
}
