// Asking the server: JSON, and chat completions as a stream of server-sent events.

class ServerError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

class Server {
  key = "";

  async json(path) {
    const response = await this.fetched(path, {});
    try {
      return await response.json();
    } catch {
      throw new ServerError(`What came from ${path} is no JSON.`);
    }
  }

  // Yields the objects of a stream; throws a ServerError for an error in it, or if it ends too early.
  async *chunks(body, signal) {
    const response = await this.fetched("v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
    let finished = false;
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return;
      const chunk = parsed(data);
      if (chunk.error) throw new ServerError(wordsOf(chunk.error, 0));
      finished ||= Boolean(chunk.choices?.[0]?.finish_reason);
      yield chunk;
    }
    if (!finished) throw new ServerError(CUT_OFF);
  }

  async fetched(path, options) {
    const headers = { ...options.headers };
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    let response;
    try {
      response = await fetch(path, { ...options, headers, cache: "no-store", redirect: "error" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError(NO_SERVER);
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }
}

async function refusal(response) {
  let error = null;
  try {
    error = (await response.json()).error;
  } catch {
    // a proxy's page: its status has to say it
  }
  const wait = Number(response.headers.get("Retry-After"));
  const later = wait > 0 ? ` Try again in ${wait} s.` : "";
  return new ServerError(wordsOf(error, response.status) + later, response.status);
}

function wordsOf(error, status) {
  const own = typeof error?.message === "string" ? error.message : "";
  const known = STATUSES[status] ?? "";
  return [known, own].filter(Boolean).join(" ") || `The server answered with the status ${status}.`;
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new ServerError("The stream holds what is no JSON.");
  }
}

// The data of each event; comments and other fields are passed over.
async function* events(stream) {
  let data = [];
  for await (const line of lines(stream)) {
    if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
    if (line === "" && data.length) {
      yield data.join("\n");
      data = [];
    }
  }
  if (data.length) yield data.join("\n");
}

async function* lines(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += decoder.decode(value, { stream: !done });
      const found = rest.split(/\r\n|\n/);
      rest = found.pop();
      yield* found;
      if (done) break;
    }
    if (rest) yield rest;
  } catch (error) {
    throw error.name === "AbortError" ? error : new ServerError(CUT_OFF);
  } finally {
    reader.cancel().catch(() => {});
  }
}
