// Elements; whatever anybody wrote goes in as text.

const byId = (id) => document.getElementById(id);

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

function fromTemplate(id) {
  return byId(id).content.firstElementChild.cloneNode(true);
}

// Nothing is touched that is the same already: who selects or listens is not disturbed.
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}

function setBadge(element, name, about, beside = "") {
  element.hidden = !about;
  if (!about) return;
  const text = `${about.mark} ${about.says}${beside && ` · ${beside}`}`;
  if (element.textContent !== text) element.textContent = text;
  element.className = `badge is-${name}`;
}

function setPlace(element, share) {
  element.style.setProperty("--at", String(share));
}

function percent(share) {
  return `${Math.round(share * 100)} %`;
}

// A score with as many decimals as it takes to stay on its side of the threshold.
function harmText(score, threshold, digits = 1) {
  for (let places = digits; places < 15; places += 1) {
    const text = score.toFixed(places);
    if (threshold === null || Number(text) > threshold === score > threshold) return text;
  }
  return String(score);
}

function seconds(ms) {
  return `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s`;
}

function counted(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
