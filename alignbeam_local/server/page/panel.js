// One column: an answer as it grows, what became of it, and its stop button.

class Panel {
  constructor(column, onStop) {
    this.column = column;
    this.view = fromTemplate("panel-template");
    this.view.dataset.column = column;
    const title = this.part("h2");
    title.textContent = COLUMNS[column].title;
    title.id = `title-${column}`;
    this.view.setAttribute("aria-labelledby", title.id);
    this.models = COLUMNS[column].about;
    this.part(".stop").setAttribute("aria-label", `Stop: ${COLUMNS[column].title}`);
    this.part(".stop").addEventListener("click", () => onStop(column));
    byId("answers").append(this.view);
  }

  part(selector) {
    return this.view.querySelector(selector);
  }

  set models(text) {
    setText(this.part(".who"), [text, COLUMNS[this.column].doubt].filter(Boolean).join(" · "));
  }

  // `shown` is what stands as the answer: see `answerOf`.
  show(run, shown) {
    this.view.classList.toggle("is-open", Boolean(run?.isOpen));
    this.part(".stop").hidden = !run?.isOpen;
    this.part(".answer").setAttribute("aria-busy", String(Boolean(run?.isOpen)));
    const outcome = run && !run.isOpen ? shown.outcome : null;
    this.view.dataset.outcome = outcome ?? "";
    setBadge(this.part(".badge"), outcome, outcome && OUTCOMES[outcome]);
    setText(this.part(".status"), run?.isOpen ? statusOf(run) : "");
    setText(this.part(".reason"), run ? shown.reason : "");
    this.showText(run, shown);
    setText(this.part(".foot"), run?.state === "done" ? footOf(run) : "");
  }

  showText(run, shown) {
    const text = this.part(".text");
    showChips(this.part(".chips"), shown.steps);
    setText(text, run ? shown.text : COLUMNS[this.column].waits);
    text.classList.toggle("is-waiting", !run);
    text.classList.toggle("is-preview", Boolean(shown.isPreview));
  }
}

const NO_STEPS = [];

// What stands in a column now: the chosen beam, the first of those that grow, or the text alone.
function answerOf(run, choice) {
  const plain = { text: run?.text ?? "", steps: NO_STEPS, outcome: run?.outcome, reason: run ? reasonOf(run) : "" };
  if (!run || run.column !== "alignbeam") return plain;
  if (run.isOpen) return run.text ? plain : previewOf(run, plain);
  const chosen = choice.chosen(run);
  if (choice.isTouched && chosen === null) return blockedAnew(run, plain);
  const beam = run.beams[chosen];
  if (!beam) return plain;
  const rest = restOf(beam);
  const isOther = chosen !== run.chosen;
  if (isOther && beam.text === null) return { ...plain, text: "The server did not send this beam's text.", reason: "" };
  const outcome = isOther ? (beam.refuses ? "refused" : "answered") : run.outcome;
  const found = isOther ? { ...plain, outcome, reason: choice.says(run) } : plain;
  return rest === null || beam.text === null ? { ...found, text: beam.text ?? run.text } : { ...found, steps: beam.steps, text: rest };
}

function previewOf(run, plain) {
  const beam = run.beams[0];
  if (!beam) return plain;
  const reason = run.beams.length > 1 ? `Beam 1 of ${run.beams.length}, not judged yet; the others grow below.` : "";
  return { ...plain, steps: beam.steps, text: beam.rest, isPreview: true, reason };
}

function blockedAnew(run, plain) {
  const text = run.chosen === null ? run.text : "A refusal would be shown here.";
  return { ...plain, text, outcome: "blocked", reason: "No draft may be shown by this rule." };
}

function reasonOf(run) {
  if (run.state === "failed") return run.error;
  if (run.state === "stopped") return "You stopped it.";
  const alone = run.column === "alignbeam" ? "" : "It refuses by itself.";
  const reason = (run.outcome === "refused" && alone) || REASONS[`${run.outcome} ${run.about?.by}`] || "";
  return [reason, ...new Set([...run.notices, ...(run.about?.notices ?? [])])].filter(Boolean).join(" ");
}

function statusOf(run) {
  const parts = [PHASES[run.phase] ?? (run.state === "waiting" ? "waiting for the server" : "the answer comes")];
  const took = (performance.now() - run.since) / 1000;
  if (run.tokens > 1) parts.push(`${run.tokens} tokens, ${(run.tokens / took).toFixed(took < run.tokens / 10 ? 0 : 1)} a second`);
  return parts.join(" · ");
}

function footOf(run) {
  const tokens = run.usage?.completion_tokens;
  const ms = run.about?.timings?.total_ms ?? (run.ended - run.began > 1 ? run.ended - run.began : 0);
  const parts = [tokens ? counted(tokens, "token") : "", ms ? seconds(ms) : ""];
  const won = run.about?.steered?.anchor_won;
  if (won) parts.push(`the anchor won ${won} of its first tokens`);
  if (run.about && !run.beams.some((beam) => beam?.verdict)) parts.push("nobody judged it");
  if (run.finish === "length") parts.push("cut at its longest");
  if (run.about?.batched_with) parts.push(`made beside ${counted(run.about.batched_with, "other")}`);
  return parts.filter(Boolean).join(" · ");
}
