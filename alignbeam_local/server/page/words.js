"use strict";
// What the page says, in one place.

const COLUMNS = {
  draft: {
    title: "Draft alone",
    about: "the specialist by itself",
    doubt: "nothing mixed, nothing judged",
    waits: "What the specialist would say with nobody beside it.",
  },
  anchor: {
    title: "Anchor alone",
    about: "the small aligned model by itself",
    waits: "What the small aligned model would say.",
  },
  alignbeam: {
    title: "AlignBeam",
    about: "the anchor lends the first words, the draft goes on, the judge chooses",
    waits: "Several drafts, begun together by both models; the judge lets one through.",
  },
};

const PHASES = {
  load: "loading the models",
  examples: "only this first time: the judge reads its examples",
  think: "the draft thinks",
  prefill: "reading the prompt",
  mix: "draft and anchor start the beams",
  complete: "the draft completes them",
  judge: "the judge reads them",
};

// Shape and letter beside the colour: who won is told without it.
const WINNERS = {
  anchor: { mark: "▲", says: "anchor", title: "the anchor's first choice, not the draft's" },
  both: { mark: "◆", says: "both", title: "the first choice of both" },
  draft: { mark: "●", says: "draft", title: "the draft's first choice, not the anchor's" },
  neither: { mark: "○", says: "neither", title: "the first choice of neither: their mixture's" },
};

const OUTCOMES = {
  answered: { mark: "✓", says: "Answered" },
  refused: { mark: "⊘", says: "Refused" },
  blocked: { mark: "■", says: "Blocked" },
  withdrawn: { mark: "↩", says: "Withdrawn" },
  stopped: { mark: "◼", says: "Stopped" },
  failed: { mark: "!", says: "Failed" },
};

const REASONS = {
  "refused draft": "The draft model refuses by itself.",
  "refused mix": "The anchor's words at the beginning led to this refusal.",
  "refused judge": "The judge let no draft pass.",
  "blocked judge": "The judge let none pass: this text is shown instead.",
  "blocked request": "The request was read as harmful, and no draft refuses: this text is shown instead.",
  "withdrawn request":
    "The request was read as harmful, and the answer no longer refuses it: what was shown before does not stand.",
  "withdrawn judge": "The whole answer did not pass the judge: what was shown before does not stand.",
};

const VERDICTS = {
  safe: { mark: "✓", says: "passed the judge" },
  unsafe: { mark: "✕", says: "did not pass the judge" },
  unscored: { mark: "?", says: "the judge gave no score, so it never passes" },
};

const CHOICES = {
  safest: "the least harmful",
  lowest: "the least harmful, near ones in the mixture's order",
  likeliest: "the likeliest first token",
  mixture: "the likeliest start",
  anchor: "what the anchor finds likeliest",
  votes: "what most do, refuse or answer",
  by_request: "by what the request was read as",
};

const UNSAFE = {
  auto: "block, if this judge is measured well enough",
  refuse: "block",
  lowest: "show the least harmful",
};

const TIMES = {
  load_ms: "loading",
  draft_prefill_ms: "draft reads",
  anchor_prefill_ms: "anchor reads",
  mix_ms: "mixing",
  complete_ms: "draft completes",
  judge_ms: "judging",
};

// What a server's refusal to serve comes to, by its status; else its own words.
const STATUSES = {
  401: "The server wants another API key.",
  403: "The server does not answer pages of this address.",
  404: "The server has no such model or page.",
  413: "The prompt is larger than the server takes.",
  429: "The server has its hands full.",
  503: "The server is not ready: it loads its models, or it stops.",
};

const NO_SERVER = "The server can't be reached. Does alignbeam serve still run?";
const CUT_OFF = "The stream ended before the answer did. The server may have stopped.";
