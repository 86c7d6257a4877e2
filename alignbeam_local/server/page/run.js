// One answer in the making, as far as the server has told of it.

class Run {
  constructor(column) {
    this.column = column;
    this.state = "waiting"; // then running, and done, stopped or failed
    this.phase = "";
    this.tokens = 0;
    this.began = performance.now();
    this.since = this.began;
    this.text = "";
    this.notices = [];
    this.beams = [];
    this.refusal = "";
    this.error = "";
    this.about = null; // the `alignbeam` object of the last chunk
    this.usage = null;
    this.finish = null;
    this.ended = 0;
  }

  // What is kept in a file, as a run that is over.
  static saved(saved) {
    const run = new Run("alignbeam");
    run.text = saved.text;
    run.finish = saved.finish_reason;
    run.notices = saved.notices;
    run.usage = saved.usage;
    run.conclude(saved.alignbeam);
    run.end("done");
    return run;
  }

  get isOpen() {
    return this.state === "waiting" || this.state === "running";
  }

  get outcome() {
    if (this.state === "failed" || this.state === "stopped") return this.state;
    return this.about?.outcome ?? (this.finish === "content_filter" ? "blocked" : this.finish && "answered");
  }

  get chosen() {
    return this.beams.find((beam) => beam?.chosen)?.index ?? null;
  }

  beam(index) {
    return (this.beams[index] ??= {
      index, steps: [], mixed: "", rest: "", text: null, tokens: 0,
      harm: null, verdict: null, refuses: false, degenerate: false, chosen: false,
    });
  }

  take(chunk) {
    this.state = "running";
    const choice = chunk.choices?.[0];
    const events = chunk.alignbeam?.events ?? [];
    // Where events are told, they tell the text too; a delta repeats what stands when its end is taken back.
    if (!events.length) this.text += choice?.delta?.content ?? "";
    if (choice?.delta?.refusal) this.refusal += choice.delta.refusal;
    for (const event of events) this.takeEvent(event);
    if (choice?.finish_reason) {
      this.finish = choice.finish_reason;
      if (chunk.alignbeam) this.conclude(chunk.alignbeam);
    }
    if (chunk.usage) this.usage = chunk.usage;
  }

  takeEvent(event) {
    switch (event.event) {
      case "phase":
        [this.phase, this.tokens, this.since] = [event.name, 0, performance.now()];
        if (event.name === "mix" && !this.goesBack) this.beams = []; // an answer that is made again
        this.goesBack = false;
        break;
      case "step":
        this.beam(event.beam).steps.push(event);
        break;
      case "beam_text": {
        const beam = this.beam(event.beam);
        beam[event.mixed ? "mixed" : "rest"] += event.text;
        beam.tokens += 1;
        this.tokens += 1;
        break;
      }
      case "judged":
        Object.assign(this.beam(event.beam), {
          harm: event.verdict.score, verdict: event.verdict.verdict, unread: event.verdict.unread,
        });
        break;
      case "steered_back":
        this.goesBack = true;
        this.putBack(this.beam(event.beam), event.tokens);
        break;
      case "answer_text":
        this.text += event.text;
        break;
      case "withdrawn":
        this.text = event.text;
        break;
      case "notice":
        this.notices.push(event.message);
    }
  }

  // Of its steps those that stand; how much of its text does, the event does not tell.
  putBack(beam, tokens) {
    const steps = beam.steps.filter((step) => step.position < tokens);
    Object.assign(beam, { steps, tokens, mixed: "", rest: "…" });
  }

  conclude(about) {
    this.about = about;
    for (const step of about.steered?.tokens ?? []) this.addStep(step);
    for (const told of about.beams ?? []) Object.assign(this.beam(told.index), told);
  }

  // A step that the stream has told already is not told twice.
  addStep(step) {
    const { steps } = this.beam(step.beam ?? 0);
    if (!steps.some((one) => one.position === step.position)) steps.push(step);
  }

  end(state, error = "") {
    [this.state, this.error, this.ended] = [state, error, performance.now()];
  }
}

// The characters of a beam that follow its mixed tokens; null where the tokens are not what it begins with.
function restOf(beam) {
  if (beam.text === null || beam.text === undefined) return beam.rest;
  const pieces = beam.steps.map((step) => step.piece).join("");
  for (const start of [beam.mixed, pieces, pieces.trimStart()]) {
    if (beam.text.startsWith(start) && (start || !pieces)) return beam.text.slice(start.length);
  }
  return pieces.trim().startsWith(beam.text) ? "" : null;
}
