// What the page asks the server. Rows go without their identifiers: an answer is matched to its row by position.

const MOST_ROWS = 256;
const MOST_BYTES = 900_000; // the server takes 1 MiB
const MOST_VALUES = 120_000; // and 150,000 values
const MOST_TRIES = 5;
const LONGEST_WAIT_S = 30;

const SENTENCES = {
  401: "The server asks for a token. Reload the page and give it as the password; any user name will do.",
  403: "Your token does not allow this.",
  404: "The server does not have this. The model may have been withdrawn: reload the page.",
  413: "The server says that this is too much at a time.",
  421: "The server does not answer to this address.",
  422: "The server refused these rows.",
  429: "More requests than your token may send. Wait a little, then score again.",
  500: "The server failed. Its log says where.",
  503: "The server is busy or not ready yet. Wait a little, then score again.",
  504: "The server took too long. Score again, or send fewer rows.",
};

/** A refusal, as a sentence; `problem` is the server's own account of it (RFC 9457), where it gave one. */
export class AskError extends Error {
  constructor(status, problem) {
    super(status === 0 ? "The server cannot be reached. Is it still running?" : (SENTENCES[status] ?? `The server answered with status ${status}.`));
    this.status = status;
    this.problem = problem;
  }

  get detail() {
    return this.problem?.detail ?? "";
  }
}

export const models = (signal) => ask("v1/models", { signal });
export const describe = (name, signal) => ask(`v1/models/${encodeURIComponent(name)}`, { signal });
export const contract = (name, signal) => ask(`v1/models/${encodeURIComponent(name)}/schema`, { signal });

/** Why one row was scored as it was. */
export async function explain(name, row, signal) {
  const body = JSON.stringify({ rows: [{ features: row.values }], explain: true });
  return ask(`v1/models/${encodeURIComponent(name)}/explain`, { method: "POST", body, signal });
}

/**
 * Score rows, part by part; `onPart(answer, rows)` after each.
 * @returns {Promise<void>}
 */
export async function predict(name, rows, { signal, onPart, onWait }) {
  for (const part of parts(rows)) {
    const body = `{"rows":[${part.map(({ text }) => text).join(",")}],"explain":false,"invalid_rows":"report"}`;
    const sent = part.map(({ row }) => row);
    let answer;
    try {
      answer = await ask(`v1/models/${encodeURIComponent(name)}/predict`, { method: "POST", body, signal, onWait });
    } catch (error) {
      if (!(error instanceof AskError) || error.status !== 422) throw error;
      answer = allRefused(error, sent);
    }
    onPart(answer, sent);
  }
}

/** "/rows/3/features/a~1b" is about row 3 and the feature "a/b". */
export function placeOf(pointer) {
  const parts = String(pointer).split("/").slice(1).map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
  const row = parts[0] === "rows" && /^\d+$/.test(parts[1] ?? "") ? Number(parts[1]) : null;
  const at = parts.indexOf("features");
  return { row, feature: at >= 0 ? parts.slice(at + 1).join("/") : "" };
}

function* parts(rows) {
  let part = [];
  let bytes = 0;
  let values = 0;
  for (const row of rows) {
    const text = JSON.stringify({ features: row.values });
    const size = new Blob([text]).size + 1;
    const width = Object.keys(row.values).length;
    if (part.length > 0 && (part.length === MOST_ROWS || bytes + size > MOST_BYTES || values + width > MOST_VALUES)) {
      yield part;
      part = [];
      bytes = 0;
      values = 0;
    }
    part.push({ row, text });
    bytes += size;
    values += width;
  }
  if (part.length > 0) yield part;
}

/** Where every row of a part is invalid, the whole request is refused: its faults belong to their rows all the same. */
function allRefused(error, rows) {
  const errors = rows.map(() => []);
  for (const fault of error.problem?.errors ?? []) errors[placeOf(fault.pointer).row]?.push(fault);
  const predictions = errors.map((own) => ({ problem: { detail: error.detail || error.message, errors: own } }));
  return { model: null, predictions };
}

async function ask(path, { method = "GET", body, signal, onWait }) {
  for (let tries = 1; ; tries += 1) {
    const answer = await fetched(path, { method, body, signal });
    if (answer.ok) return answer.json();
    const wait = Number(answer.headers.get("retry-after"));
    const problem = await answer.json().catch(() => null);
    const isPassing = (answer.status === 429 || answer.status === 503) && wait > 0 && wait <= LONGEST_WAIT_S;
    if (!isPassing || tries === MOST_TRIES) throw new AskError(answer.status, problem);
    onWait?.(wait);
    await pause(wait * 1000, signal);
  }
}

async function fetched(path, { method, body, signal }) {
  try {
    return await fetch(addressOf(path), {
      method,
      body,
      signal,
      headers: body === undefined ? { accept: "application/json" } : { accept: "application/json", "content-type": "application/json" },
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
      referrerPolicy: "no-referrer",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new AskError(0, null);
  }
}

/** A page that was opened as name:token@host must not ask by that address; the browser adds the token by itself. */
function addressOf(path) {
  const address = new URL(path, document.baseURI);
  address.username = address.password = "";
  return address;
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("Given up.", "AbortError"));
    });
  });
}
