// The live page: it asks whoever serves it for what is new, and draws that without losing what was chosen

const LOOK_MS = 500;
const STOPS = "a, button, input, select, summary, [tabindex]";

// Of what the page shows, by which the server knows what it lacks; nothing in a file
const version = () => document.documentElement.dataset.version;

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

async function follow() {
  let seen = Number(version());
  for (;;) {
    await pause(LOOK_MS);
    if (document.querySelector(".brush:not(.out)")) continue; // what is being dragged over is not drawn anew
    try {
      const answer = await fetch(`view?since=${seen}`);
      if (!answer.ok) throw new Error(`answer ${answer.status}`);
      if (answer.status === 204) { told("Live."); continue; }
      const news = await answer.json();
      const merged = news.view && merge(news.view);
      seen = news.view && !merged ? 0 : news.version;
      if (merged) update(merged);
      told(news.problem ? `Not up to date: ${news.problem}` : "Live.");
    } catch (error) {
      told(`Not up to date: arat-ray watch does not answer (${error.message}).`);
    }
  }
}

function told(words) {
  if (byId("live").textContent !== words) byId("live").textContent = words;
}

// What is known already, with the trials that changed; null where some are missing
function merge(news) {
  const studies = news.studies.map((study, s) => {
    const known = new Map((news.whole ? [] : view.studies[s].trials).map((trial) => [trial.id, trial]));
    for (const trial of study.trials) known.set(trial.id, trial);
    return { ...study, trials: [...known.values()].sort((a, b) => (a.number ?? 0) - (b.number ?? 0)) };
  });
  return studies.every((study) => study.trials.length === study.count) ? { ...news, studies } : null;
}

function update(found) {
  if (String(found.goals) !== String(goals)) { start(found); return; } // another study in the place of this one
  const options = () => JSON.stringify([kindsThere(), conditions]);
  const chosen = state.chosen?.key, before = options(), focus = focused();
  const sort = columns.indexOf(state.sort), how = conditions[state.beside];
  const hadNone = conditions.length > 0 && how === undefined;
  load(found);
  time();
  state.sort = columns[sort] ?? null;
  state.beside = hadNone ? conditions.length : Math.max(conditions.indexOf(how), 0);
  if (options() !== before) controls();
  draw();
  const again = trials.find((trial) => trial.key === chosen);
  if (again) choose(again); else first();
  focus();
}

// Put the focus back to where it is now, also where what has it was drawn again
function focused() {
  const stop = document.activeElement, box = stop?.closest("[id]");
  if (!box || stop === document.body) return () => {};
  const of = () => [...box.querySelectorAll(STOPS)], index = of().indexOf(stop), key = stop.dataset.key;
  return () => {
    if (document.contains(stop)) return;
    (of().find((each) => key && each.dataset.key === key) ?? of()[index])?.focus({ preventScroll: true });
  };
}
