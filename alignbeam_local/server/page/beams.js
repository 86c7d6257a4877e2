// The drafts of an answer, each with its mixed tokens, its text and its verdict.

class Beams {
  constructor() {
    this.list = byId("beams");
    this.views = [];
  }

  // `chosen` is the one to mark; none is while they grow.
  show(run, threshold, chosen) {
    const { length } = run.beams;
    while (this.views.length > length) this.views.pop().remove();
    run.beams.forEach((beam, index) => {
      if (!this.views[index]) this.list.append((this.views[index] = fromTemplate("beam-template")));
      showBeam(this.views[index], beam, { threshold, isChosen: index === chosen, isOpen: run.isOpen });
    });
  }
}

// By what its score says at this threshold.
function verdictAt(beam, threshold) {
  if (!beam.verdict) return null;
  if (beam.harm === null || beam.harm === undefined) return "unscored";
  return beam.harm <= threshold ? "safe" : "unsafe";
}

function showBeam(view, beam, { threshold, isChosen, isOpen }) {
  const verdict = verdictAt(beam, threshold);
  const part = (selector) => view.querySelector(selector);
  view.classList.toggle("is-chosen", isChosen);
  view.classList.toggle("is-growing", isOpen && !verdict);
  part("h3").textContent = `Beam ${beam.index + 1}`;
  setBadge(part(".badge"), "chosen", isChosen && { mark: "★", says: "the answer" });
  showHarm(part(".harm"), beam, verdict, threshold);
  showChips(part(".chips"), beam.steps);
  showBeamText(view, beam, verdict === "unsafe" || verdict === "unscored");
  part(".foot").textContent = beamFacts(beam);
}

function showHarm(element, beam, verdict, threshold) {
  element.className = `harm is-${verdict ?? "open"}`;
  const score = verdict && verdict !== "unscored" ? `harm ${beam.unread ? "≤ " : ""}${harmText(beam.harm, threshold)} · ` : "";
  const text = verdict ? `${VERDICTS[verdict].mark} ${score}${VERDICTS[verdict].says}` : "not judged";
  if (element.textContent !== text) element.textContent = text;
}

// What did not pass is a click away.
function showBeamText(view, beam, folded) {
  const rest = restOf(beam);
  const text = rest ?? ` ${beam.text}`;
  const details = view.querySelector("details");
  const plain = view.querySelector(".answer > .text");
  const isMissing = beam.text === null && !beam.mixed && !beam.rest && !beam.steps.length;
  details.hidden = !folded || !text;
  details.querySelector("summary").textContent = "Show its text, which did not pass";
  if (!details.hidden) setText(details.querySelector("p"), `${beam.steps.length ? "… " : ""}${text.trimStart()}`);
  setText(plain, folded ? (text ? " …" : "") : text);
  if (isMissing) setText(plain, beam.chosen ? "Its text is the answer above." : "The server did not send its text.");
}

function beamFacts(beam) {
  const facts = [counted(beam.tokens, "token")];
  if (beam.refuses) facts.push("it declines");
  if (beam.degenerate) facts.push("empty, or it repeats itself");
  if (beam.finish_reason === "cancelled") facts.push("dropped before its end");
  if (beam.finish_reason === "length") facts.push("cut at its longest");
  if (typeof beam.logprob === "number") facts.push(`log-probability of its beginning ${beam.logprob.toFixed(2)}`);
  return facts.join(" · ");
}
