// Mixed tokens as chips: who won each, and on hover or focus what both models wanted.

const card = byId("card");
let hiding = 0;

function shownPiece(piece) {
  if (piece === null || piece === undefined) return "not asked";
  return piece === "" ? "the end" : `“${spelt(piece)}”`;
}

function spelt(piece) {
  return piece.replaceAll("\n", "↵").replaceAll("\t", "⇥");
}

// The chips of these steps; those that are there already stay.
function showChips(element, steps) {
  const old = element.querySelectorAll(".chip").length;
  if (old > steps.length || element.steps !== steps) element.replaceChildren();
  element.steps = steps;
  for (const step of steps.slice(element.querySelectorAll(".chip").length)) {
    element.append(chip(step, element));
    const breaks = step.piece.replaceAll(/[^\n]/g, "");
    if (breaks) element.append(breaks);
  }
}

function chip(step, row) {
  const winner = WINNERS[step.won_by] ?? WINNERS.neither;
  const button = make("button", `chip by-${step.won_by}`);
  button.type = "button";
  button.tabIndex = row.querySelector(".chip") ? -1 : 0; // one stop for Tab; arrows lead on
  button.setAttribute("aria-label", `${shownPiece(step.piece)}, ${winner.title}`);
  button.append(make("span", "mark", winner.mark), make("span", "piece", spelt(step.piece) || "end"));
  button.addEventListener("pointerenter", () => showCard(button, step));
  button.addEventListener("pointerleave", hideSoon);
  button.addEventListener("focus", () => showCard(button, step));
  button.addEventListener("blur", hideCard);
  button.addEventListener("click", () => showCard(button, step));
  button.addEventListener("keydown", (event) => walk(event, button, row));
  return button;
}

function walk(event, button, row) {
  const all = [...row.querySelectorAll(".chip")];
  const to = {
    ArrowRight: all.indexOf(button) + 1,
    ArrowLeft: all.indexOf(button) - 1,
    Home: 0,
    End: all.length - 1,
  }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const next = all[Math.max(0, Math.min(all.length - 1, to))];
  button.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function showCard(button, step) {
  clearTimeout(hiding);
  card.replaceChildren(...cardParts(step));
  card.hidden = false;
  button.setAttribute("aria-describedby", "card");
  place(button.getBoundingClientRect(), card.getBoundingClientRect());
}

function place(chipBox, box) {
  const left = Math.max(8, Math.min(chipBox.left, document.documentElement.clientWidth - box.width - 8));
  const below = chipBox.bottom + 8;
  const fits = below + box.height < window.innerHeight || chipBox.top < box.height + 8;
  card.style.setProperty("--left", `${left + window.scrollX}px`);
  card.style.setProperty("--top", `${(fits ? below : chipBox.top - box.height - 8) + window.scrollY}px`);
}

function hideSoon() {
  clearTimeout(hiding);
  hiding = setTimeout(hideCard, 200); // time to move into the card
}

function hideCard() {
  clearTimeout(hiding);
  card.hidden = true;
}

card.addEventListener("pointerenter", () => clearTimeout(hiding));
card.addEventListener("pointerleave", hideSoon);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideCard();
});

function cardParts(step) {
  const winner = WINNERS[step.won_by] ?? WINNERS.neither;
  const head = make("p", `card-head by-${step.won_by}`);
  head.append(make("span", "mark", winner.mark), make("strong", "", shownPiece(step.piece)), ` ${winner.title}`);
  const wants = make("dl", "wants");
  for (const [who, piece] of [["anchor", step.anchor_piece], ["draft", step.draft_piece]]) {
    wants.append(make("dt", "", `${who} wanted`), make("dd", "", shownPiece(piece)));
  }
  return [head, wants, masses(step), candidates(step), make("p", "hint", crossed(step))];
}

function masses(step) {
  const list = make("div", "bars");
  list.append(make("p", "bars-title", `What ${shownPiece(step.piece)} got`));
  const shares = [["anchor", step.p_anchor], ["draft", step.p_draft], ["mixture", step.p_mixed]];
  list.append(...shares.map(([who, share]) => bar(who, share, `of-${who}`)));
  return list;
}

function candidates(step) {
  const list = make("div", "bars");
  if (!step.top?.length) return list;
  list.append(make("p", "bars-title", "Likeliest in the mixture"));
  list.append(...step.top.map((one) => bar(shownPiece(one.piece), one.p_mixed, "of-mixture")));
  return list;
}

function bar(name, share, className) {
  const row = make("div", `bar ${className}`);
  const track = make("span", "track");
  const fill = make("span", "fill");
  setPlace(fill, Math.max(0, Math.min(1, share ?? 0)));
  track.append(fill);
  row.append(make("span", "bar-name", name), track, make("span", "bar-value", (share ?? 0).toFixed(3)));
  return row;
}

function crossed(step) {
  if (step.anchor_token === null) return "The anchor was not asked here: the draft chose alone.";
  return `${percent(step.covered_mass)} of the anchor's probability crossed into the draft's vocabulary.`;
}

function showLegend() {
  for (const [name, winner] of Object.entries(WINNERS)) {
    const item = make("li", `by-${name}`);
    item.append(make("span", "mark", winner.mark), winner.says);
    item.title = winner.title;
    byId("legend").append(item);
  }
}
