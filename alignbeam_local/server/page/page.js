// The page itself: asks the server, or shows the answer that is kept in it.

const runs = {}; // by column, the last one asked
const stops = {}; // by column, what stops it
const panels = {};
const beams = new Beams();
const server = new Server();
let choice = null;
let info = { knobs: {}, reports: [], allows_knobs: false };
let models = {};
let isDue = false;

// At most once a frame, whatever has come.
function redraw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    draw();
  });
}

function draw() {
  for (const [column, panel] of Object.entries(panels)) panel.show(runs[column], answerOf(runs[column], choice));
  const run = runs.alignbeam;
  byId("how").hidden = !run?.beams.length;
  byId("legend").hidden = !run?.beams.some((beam) => beam?.steps.length);
  if (run) {
    choice.show(run);
    beams.show(run, choice.values.threshold, run.isOpen ? null : choice.chosen(run));
    showAbout(run);
  }
  showRunning();
}

function showRunning() {
  const isOpen = Object.values(runs).some((run) => run.isOpen);
  byId("stop-all").hidden = !isOpen;
  byId("go").textContent = isOpen ? "Ask anew" : "Ask";
}

function addPanels(columns) {
  for (const column of columns) panels[column] ??= new Panel(column, stop);
  byId("answers").dataset.columns = String(columns.length);
}

// --- what lies behind an answer

function showAbout(run) {
  const timings = run.about?.timings;
  byId("about").hidden = run.isOpen || !(timings || DATA.saved);
  if (byId("about").hidden || byId("about").run === run) return;
  byId("about").run = run;
  byId("times").replaceChildren(...(timings ? timeBars(timings) : []));
  byId("facts").replaceChildren();
  const mass = run.about?.covered_mass;
  if (typeof mass === "number") fact("crossed", `${percent(mass)} of the anchor's probability, on average`);
  for (const [role, card] of Object.entries(DATA.saved?.models ?? {})) {
    if (card) fact(role, `${card.name} · ${card.quantisation} · sha256 ${card.sha256.slice(0, 16)}…`);
    for (const { name, scale, sha256 } of card?.adapters ?? []) {
      fact("adapter", `${name} · scale ${scale} · sha256 ${sha256.slice(0, 16)}…`);
    }
  }
  for (const [knob, value] of Object.entries(DATA.saved?.knobs ?? {})) fact(knob, knobText(value));
}

function timeBars(timings) {
  const longest = Math.max(1, ...Object.keys(TIMES).map((name) => timings[name] ?? 0));
  return Object.entries(TIMES)
    .filter(([name]) => timings[name] > 0)
    .map(([name, words]) => {
      const row = bar(words, timings[name] / longest, "of-mixture");
      row.lastChild.textContent = seconds(timings[name]);
      return row;
    });
}

function fact(name, text) {
  byId("facts").append(make("dt", "", name), make("dd", "", text));
}

function knobText(value) {
  if (value === null || (Array.isArray(value) && !value.length)) return "none";
  return typeof value === "string" ? value : JSON.stringify(value);
}

// --- asking

function ask(prompt) {
  stopAll();
  choice.start({ ...info.knobs, ...(info.allows_knobs ? choice.values : {}) });
  for (const column of Object.keys(panels)) {
    delete runs[column];
    panels[column].view.hidden = !isWanted(column);
    if (isWanted(column)) follow(column, prompt);
  }
  const shown = Object.values(panels).filter((panel) => !panel.view.hidden);
  byId("answers").dataset.columns = String(shown.length);
  redraw();
}

function isWanted(column) {
  const box = byId(`with-${column}`)?.querySelector("input");
  return !box || box.checked;
}

async function follow(column, prompt) {
  const run = (runs[column] = new Run(column));
  const stopper = (stops[column] = new AbortController());
  try {
    for await (const chunk of server.chunks(request(column, prompt), stopper.signal)) {
      run.take(chunk);
      redraw();
    }
    run.end("done");
  } catch (error) {
    if (error.name === "AbortError") run.end("stopped");
    else run.end("failed", error instanceof ServerError ? error.message : `This page failed: ${error.message}`);
    if (error.status === 401) byId("key-row").hidden = false;
  }
  redraw();
}

function request(column, prompt) {
  const body = {
    model: models[column === "anchor" ? "anchor" : "pair"].id,
    messages: [{ role: "user", content: prompt }],
    stream: true,
    stream_options: { include_usage: true },
    alignbeam: wishes(column),
  };
  const longest = knobValue("max_tokens");
  if (longest !== null) body.max_completion_tokens = longest;
  return body;
}

function wishes(column) {
  if (!info.allows_knobs) return { stream: "hold", include: [] };
  if (column === "anchor") return { stream: "open" };
  const sampling = changedKnobs(["temperature", "seed"]);
  if (column === "draft") return { ...sampling, depth: 0, beams: 1, judge: false, stream: "open" };
  const chosen = Object.fromEntries(
    Object.entries(choice.values).filter(([name, value]) => value !== info.knobs[name]),
  );
  const method = changedKnobs(["alpha", "depth", "beams"]);
  return { ...method, ...sampling, ...chosen, stream: "open", include: ["beams.text", "steps"] };
}

function stop(column) {
  stops[column]?.abort();
}

function stopAll() {
  Object.keys(stops).forEach(stop);
}

// --- the knobs of the next answer

const OFFERED = { alpha: 0.05, depth: 1, beams: 1, max_tokens: 1, temperature: 0.1, seed: 1 };
const ALWAYS = ["max_tokens"]; // a client may always ask for less

function showKnobs() {
  const names = info.allows_knobs ? Object.keys(OFFERED) : ALWAYS;
  byId("knobs").replaceChildren(...names.map(knobField));
  byId("settings").hidden = false;
}

function knobField(name) {
  const about = DATA.knobs[name];
  const field = make("div", "knob");
  const label = make("label", "", name);
  const input = make("input");
  input.id = label.htmlFor = `knob-${name}`;
  input.type = "number";
  [input.min, input.max, input.step] = [about.minimum, about.maximum, OFFERED[name]];
  input.placeholder = String(info.knobs[name] ?? about.default);
  const help = make("p", "hint", about.description);
  help.id = `help-${name}`;
  input.setAttribute("aria-describedby", help.id);
  field.append(label, input, help);
  return field;
}

// What was typed; null for nothing.
function knobValue(name) {
  const input = byId(`knob-${name}`);
  return input && input.value !== "" && input.checkValidity() ? input.valueAsNumber : null;
}

function changedKnobs(names) {
  return Object.fromEntries(names.map((name) => [name, knobValue(name)]).filter(([, value]) => value !== null));
}

// --- starting

function say(text, onRetry = null) {
  const banner = byId("banner");
  banner.replaceChildren(text);
  banner.hidden = !text;
  if (!onRetry) return;
  const again = make("button", "", "Try again");
  again.type = "button";
  again.addEventListener("click", onRetry);
  banner.append(" ", again);
}

async function startLive() {
  byId("ask").hidden = false;
  byId("go").disabled = true;
  try {
    info = await server.json("page/info");
    choice.start(info.knobs);
    byId("version").textContent = info.version;
    byId("locked").hidden = info.allows_knobs;
    byId("key-row").hidden = !info.needs_key;
    showReports(info.reports ?? []);
    showKnobs();
    if (info.needs_key && !server.key) byId("key").focus();
    else await loadModels();
  } catch (error) {
    say(error.message, startLive);
  }
}

async function loadModels() {
  const { data } = await server.json("v1/models");
  const of = (kind) => data.find((model) => model.alignbeam?.kind === kind);
  models = { pair: of("pair"), anchor: of("anchor") };
  if (!models.pair) throw new ServerError("This server has no profile: no draft with an anchor.");
  byId("with-draft").hidden = !info.allows_knobs;
  byId("with-anchor").hidden = !models.anchor;
  addPanels([...(info.allows_knobs ? ["draft"] : []), ...(models.anchor ? ["anchor"] : []), "alignbeam"]);
  nameModels();
  say("");
  byId("go").disabled = false;
  byId("prompt").focus();
  draw();
}

function nameModels() {
  const { draft, adapters } = models.pair.alignbeam;
  if (panels.draft) panels.draft.models = adapted(draft, adapters);
  if (panels.anchor) panels.anchor.models = models.anchor.alignbeam.anchor ?? models.anchor.id;
  const isRole = (key) => /^(draft|anchor\d*|judge)$/.test(key);
  const named = Object.entries(models.pair.alignbeam).filter(([key, name]) => isRole(key) && name);
  panels.alignbeam.models = named
    .map(([role, name]) => `${role} ${adapted(name, role === "draft" ? adapters : [])}`)
    .join(" · ");
}

function adapted(name, adapters) {
  return [name, ...(adapters ?? []).map((adapter) => adapter.name)].join(" + ");
}

// Of this server only: an address of elsewhere is not followed.
function showReports(reports) {
  const links = reports.filter(({ url }) => new URL(url, location.href).origin === location.origin).map(link);
  byId("reports").hidden = !links.length;
  byId("reports").querySelector("span").replaceChildren(...links.flatMap((one, at) => (at ? [", ", one] : [one])));
}

function link({ name, url }) {
  const anchor = make("a", "", name);
  anchor.href = url;
  return anchor;
}

function startSaved(saved) {
  document.title = `${saved.prompt.slice(0, 60)} · AlignBeam`;
  byId("asked").hidden = false;
  setText(byId("asked-prompt"), saved.prompt);
  if (saved.system) {
    byId("asked-system").hidden = false;
    setText(byId("asked-system").querySelector(".text"), saved.system);
  }
  byId("version").textContent = saved.program.version;
  byId("where").textContent = "an answer of local models, kept in this file";
  choice.start(saved.knobs);
  addPanels(["alignbeam"]);
  const named = Object.entries(saved.models).filter(([, card]) => card);
  panels.alignbeam.models = named.map(([role, card]) => `${role} ${adapted(card.name, card.adapters)}`).join(" · ");
  runs.alignbeam = Run.saved(saved);
  draw();
}

function submit(event) {
  event.preventDefault();
  const prompt = byId("prompt").value;
  if (prompt.trim() && !byId("go").disabled) ask(prompt);
}

function listen() {
  byId("ask").addEventListener("submit", submit);
  byId("stop-all").addEventListener("click", stopAll);
  byId("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  });
  byId("key-go").addEventListener("click", useKey);
  byId("key").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    useKey();
  });
}

function useKey() {
  server.key = byId("key").value.trim();
  startLive();
}

const DATA = JSON.parse(byId("data").textContent);
showLegend();
choice = new Choice(redraw);
listen();
if (DATA.saved) startSaved(DATA.saved);
else startLive();
