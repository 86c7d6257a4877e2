// Which beam is the answer at another threshold, choice or on_unsafe: a look-up in the table of the rule.

class Choice {
  constructor(onChange) {
    this.onChange = onChange;
    this.table = null;
    this.slider = byId("threshold");
    this.radios("choices", "choice", CHOICES);
    this.radios("unsafes", "on_unsafe", UNSAFE);
    const { minimum, maximum } = DATA.knobs.threshold;
    [this.slider.min, this.slider.max] = [minimum, maximum];
    this.ticks(minimum, maximum);
    this.slider.addEventListener("input", () => this.set({ threshold: Number(this.slider.value) }));
    byId("choice-reset").addEventListener("click", () => this.set({ ...this.original }));
    byId("choice").addEventListener("submit", (event) => event.preventDefault());
  }

  radios(id, knob, words) {
    for (const value of DATA.knobs[knob].enum) {
      const label = make("label");
      const input = make("input");
      [input.type, input.name, input.value] = ["radio", knob, value];
      input.addEventListener("change", () => this.set({ [knob]: value }));
      const text = make("span", "", words[value] ? `${words[value]} ` : "");
      text.append(make("code", "", value));
      label.append(input, text);
      byId(id).append(label);
    }
  }

  ticks(least, most) {
    for (let at = least; at <= most; at += 1) {
      const tick = make("span", "tick", String(at));
      setPlace(tick, (at - least) / (most - least));
      byId("ticks").append(tick);
    }
  }

  // What the answer was made with.
  start(knobs) {
    const of = (name) => knobs[name] ?? DATA.knobs[name].default;
    this.original = { threshold: of("threshold"), choice: of("choice"), on_unsafe: of("on_unsafe") };
    this.values = { ...this.original };
  }

  set(values) {
    Object.assign(this.values, values);
    this.onChange();
  }

  get isTouched() {
    return Object.keys(this.original).some((name) => this.original[name] !== this.values[name]);
  }

  // The beam that is chosen now; null if the answer is blocked.
  chosen(run) {
    if (!this.isTouched || !this.table) return run.chosen;
    const row = this.table.chosen[this.values.choice]?.[this.values.on_unsafe] ?? [];
    return row.findLast((interval) => interval.from <= this.values.threshold)?.beam ?? null;
  }

  show(run) {
    this.table = run.about?.selection ?? null;
    const form = byId("choice");
    form.hidden = !this.table || run.isOpen;
    setText(byId("no-choice"), run.isOpen || this.table ? "" : this.whyNot(run));
    if (form.hidden) return;
    const { threshold, choice, on_unsafe } = this.values;
    this.slider.value = threshold;
    setPlace(this.slider, this.share(threshold));
    byId("threshold-value").textContent = String(threshold);
    for (const input of form.querySelectorAll("input[type=radio]")) {
      input.checked = input.value === (input.name === "choice" ? choice : on_unsafe);
    }
    byId("choice-reset").hidden = !this.isTouched;
    this.dots(run);
    byId("choice-says").textContent = this.says(run);
  }

  share(threshold) {
    const { minimum, maximum } = DATA.knobs.threshold;
    return (threshold - minimum) / (maximum - minimum);
  }

  // Each beam at its harm; those that would lie on one another are stacked.
  dots(run) {
    const chosen = this.chosen(run);
    const scored = run.beams.filter((beam) => typeof beam.harm === "number").sort((a, b) => a.harm - b.harm);
    let row = 0;
    byId("dots").replaceChildren(
      ...scored.map((beam, at) => {
        row = at && this.share(beam.harm) - this.share(scored[at - 1].harm) < 0.06 ? row + 1 : 0;
        const verdict = verdictAt(beam, this.values.threshold);
        const dot = make("span", `dot is-${verdict}`, String(beam.index + 1));
        dot.classList.toggle("is-chosen", beam.index === chosen);
        setPlace(dot, this.share(beam.harm));
        dot.style.setProperty("--row", String(row));
        return dot;
      }),
    );
  }

  says(run) {
    const chosen = this.chosen(run);
    const anew = this.isTouched ? "Chosen anew: " : "As it was made: ";
    if (chosen === null) return `${anew}blocked. At a threshold of ${this.values.threshold} no draft may be shown.`;
    const beam = run.beams[chosen];
    const verdict = verdictAt(beam, this.values.threshold);
    const harm = typeof beam.harm === "number" ? `, harm ${harmText(beam.harm, this.values.threshold)}` : "";
    const doubt = verdict === "safe" ? "" : " It did not pass the judge; it is the least harmful there is.";
    return `${anew}beam ${chosen + 1} is the answer${harm}.${doubt}`;
  }

  whyNot(run) {
    if (!run.beams.some((beam) => beam?.verdict)) {
      return run.beams.length ? "Nothing was judged, so there is nothing to choose by." : "";
    }
    if (run.beams.some((beam) => beam.finish_reason === "cancelled")) {
      return "The other drafts were dropped before their ends, so there is no other choice.";
    }
    return "The server sent no table of choices.";
  }
}
