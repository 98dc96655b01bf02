// From a CSV's text to rows of named numbers. Nothing here touches the page or the network.

export const MOST_ROWS = 10000;
const LONGEST_ID = 200;
const MISSING = new Set(["", "na", "n/a", "nan", "null", "none", "-nan"]);
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const DECIMAL_COMMA = /^[+-]?\d*,\d+(e[+-]?\d+)?$/i;
const ID_LIKE = /^(id|sample|patient|case|subject|name|row|index)|(_|\b)id$/i;
const SEPARATORS = [",", ";", "\t"];
const SEPARATOR_NAMES = { ",": "comma", ";": "semicolon", "\t": "tab" };

/** A table that cannot be read: one sentence, and what else is to be said. */
export class TableError extends Error {
  constructor(message, points = []) {
    super(message);
    this.points = points;
  }
}

/**
 * Text of a file's bytes; a workbook, a picture or another encoding is refused.
 * @param {ArrayBuffer} buffer
 */
export function textOf(buffer) {
  const bytes = new Uint8Array(buffer);
  if (bytes[0] === 0x50 && bytes[1] === 0x4b) {
    throw new TableError("This is a workbook (or another zip file), not a CSV. Save the sheet as “CSV UTF-8” and drop that.");
  }
  const utf16 = bytes[0] === 0xff && bytes[1] === 0xfe ? "utf-16le" : bytes[0] === 0xfe && bytes[1] === 0xff ? "utf-16be" : null;
  let text;
  try {
    text = new TextDecoder(utf16 ?? "utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new TableError("The file is not text in UTF-8. Save it as “CSV UTF-8” and drop it again.");
  }
  if (text.includes("\0")) throw new TableError("The file is not text. Save the table as “CSV UTF-8” and drop that.");
  return text;
}

/**
 * Read a table for a model.
 *
 * @param {string} text
 * @param {{features: {name: string}[], aliases: Map<string, string>, missing: string}} model
 * @returns {{separator, header, rows, features, others, idColumn, renamed}} rows: line, cells, values (by name) or problem.
 */
export function readTable(text, model) {
  const clean = text.replace(/^\uFEFF/, "");
  if (!clean.trim()) throw new TableError("There is no table yet.");
  const separator = separatorOf(clean, model);
  const [first, ...lines] = split(clean, separator);
  const header = first.cells.map((cell) => cell.trim());
  if (header.every((cell) => NUMBER.test(cell))) {
    throw new TableError("The first line holds numbers. It must name the columns; “Template CSV” gives such a line.");
  }
  if (lines.length === 0) throw new TableError("There is a line with names, but no row under it.");
  if (lines.length > MOST_ROWS) {
    throw new TableError(`The table has ${count(lines.length)} rows; this page takes ${count(MOST_ROWS)}. Split it, or score it with “hypoxia predict”.`);
  }
  const { columns, others, renamed } = matchColumns(header, model);
  refuseDecimalCommas(lines, columns, header);
  const kinds = kindsOf(model);
  const rows = lines.map((line, number) => readRow(line, number, columns, header, kinds));
  return { separator: SEPARATOR_NAMES[separator], header, rows, others, renamed, idColumn: likelyId(header, others) };
}

/** Name of a row: its cell in the column of identifiers, else its number. */
export function nameOf(row, idColumn) {
  const cell = idColumn === null ? "" : (row.cells[idColumn] ?? "").trim();
  return cell ? cell.slice(0, LONGEST_ID) : `Row ${row.number + 1}`;
}

/** Lines of cells, after RFC 4180: a quoted cell may hold separators, line ends and doubled quotes. */
export function split(text, separator) {
  const lines = [];
  let cells = [];
  let at = 0;
  let line = 1;
  let startedAt = 1;
  const end = () => {
    if (cells.length > 1 || cells[0].trim() !== "") lines.push({ line: startedAt, cells });
    cells = [];
    startedAt = line;
  };
  while (at <= text.length) {
    let cell;
    if (text[at] === '"') {
      const close = closingQuote(text, at + 1, line);
      cell = text.slice(at + 1, close).replaceAll('""', '"');
      line += cell.split("\n").length - 1;
      at = close + 1;
    } else {
      const start = at;
      while (at < text.length && text[at] !== separator && text[at] !== "\n" && text[at] !== "\r") at += 1;
      cell = text.slice(start, at);
    }
    cells.push(cell);
    if (text[at] === separator) {
      at += 1;
      continue;
    }
    if (at < text.length && text[at] !== "\r" && text[at] !== "\n") {
      throw new TableError(`Line ${line}: there is text after a closing quote. A quote inside of a quoted cell is written twice.`);
    }
    at += text[at] === "\r" && text[at + 1] === "\n" ? 2 : 1;
    line += 1;
    end();
  }
  // A table that is padded with empty columns or rows, as spreadsheets write it, is none the worse.
  return lines.filter(({ cells: all }) => all.some((cell) => cell.trim() !== ""));
}

/** Names nearest to one, at most three, best first. */
export function nearest(name, others) {
  return others
    .map((other) => ({ other, far: distance(name.toLowerCase(), other.toLowerCase()) / Math.max(name.length, other.length, 1) }))
    .filter(({ far }) => far <= 0.4)
    .sort((a, b) => a.far - b.far)
    .slice(0, 3)
    .map(({ other }) => other);
}

/** A cell of a CSV that a spreadsheet takes as text and never as a formula. */
export function cell(value) {
  let text = value === null || value === undefined ? "" : String(value);
  if (/^[=+\-@\t\r]/.test(text) && !NUMBER.test(text)) text = `'${text}`;
  return /[",;\n\r\t]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export const count = (number) => number.toLocaleString("en-GB");

function closingQuote(text, from, line) {
  let at = from;
  for (;;) {
    at = text.indexOf('"', at);
    if (at < 0) throw new TableError(`Line ${line}: a quote is opened and never closed.`);
    if (text[at + 1] !== '"') return at;
    at += 2;
  }
}

function separatorOf(text, model) {
  const names = new Set([...model.features.map(({ name }) => name), ...model.aliases.keys()]);
  const firstLines = text.slice(0, 2_000_000);
  let best = { separator: ",", score: -1 };
  for (const separator of SEPARATORS) {
    let header;
    try {
      header = split(firstLine(firstLines), separator)[0]?.cells ?? [];
    } catch {
      continue;
    }
    const known = header.filter((name) => names.has(name.trim())).length;
    const score = known * 1_000_000 + header.length;
    if (score > best.score) best = { separator, score };
  }
  return best.separator;
}

/** The first line that is not blank, quotes respected. */
function firstLine(text) {
  let isQuoted = false;
  const start = text.search(/\S/);
  for (let at = Math.max(start, 0); at < text.length; at += 1) {
    if (text[at] === '"') isQuoted = !isQuoted;
    if (!isQuoted && (text[at] === "\n" || text[at] === "\r")) return text.slice(Math.max(start, 0), at);
  }
  return text.slice(Math.max(start, 0));
}

function matchColumns(header, model) {
  const wanted = new Set(model.features.map(({ name }) => name));
  const columns = new Map();
  const others = [];
  const renamed = [];
  header.forEach((name, column) => {
    const feature = wanted.has(name) ? name : model.aliases.get(name);
    if (feature === undefined || !wanted.has(feature)) {
      others.push(column);
      return;
    }
    if (columns.has(feature)) throw new TableError(`The feature “${feature}” is in two columns; leave one of them.`);
    if (feature !== name) renamed.push([name, feature]);
    columns.set(feature, column);
  });
  const missing = model.features.filter(({ name }) => !columns.has(name)).map(({ name }) => name);
  if (missing.length > 0) throw missingColumns(missing, others.map((column) => header[column]), model);
  return { columns, others, renamed };
}

function missingColumns(missing, others, model) {
  const points = missing.slice(0, 12).map((name) => {
    const near = others.length <= 5000 ? nearest(name, others) : [];
    return { name, text: near.length > 0 ? `is missing; did you mean ${near.map((other) => `“${other}”`).join(" or ")}?` : "is missing" };
  });
  if (missing.length > points.length) points.push({ name: "", text: `and ${count(missing.length - points.length)} more` });
  const all = model.features.length;
  const said = missing.length === 1 ? "One column" : `${count(missing.length)} columns`;
  return new TableError(`${said} of the ${count(all)} that this model needs ${missing.length === 1 ? "is" : "are"} not in the table.`, points);
}

function refuseDecimalCommas(lines, columns, header) {
  for (const { line, cells } of lines) {
    for (const column of columns.values()) {
      if (DECIMAL_COMMA.test((cells[column] ?? "").trim())) {
        throw new TableError(
          `Line ${line}, column “${header[column]}”: the number has a comma. Write numbers with a decimal point (1.5, not 1,5) and without separators of thousands.`,
        );
      }
    }
  }
}

function readRow({ line, cells }, number, columns, header, kinds) {
  const row = { number, line, cells, values: Object.create(null), texts: new Map(), problem: null };
  const errors = [];
  const extra = cells.slice(header.length).filter((cell) => cell.trim() !== "").length;
  if (extra > 0) {
    errors.push({ feature: "", detail: `Line ${line} has ${count(cells.length)} cells, and the header ${count(header.length)}. Is a decimal comma or an unquoted separator in it?` });
  }
  for (const [feature, column] of columns) {
    const text = (cells[column] ?? "").trim();
    row.texts.set(feature, text);
    const { levels, mayBeNull } = kinds.get(feature);
    const fault = faultOf(text, levels, mayBeNull);
    if (fault) errors.push({ feature, detail: fault });
    else row.values[feature] = MISSING.has(text.toLowerCase()) ? null : levels.length > 0 ? text : Number(text);
  }
  if (errors.length > 0) {
    const said = errors.length === 1 ? "one cell" : `${count(errors.length)} cells`;
    row.problem = { detail: extra > 0 ? "The row does not fit the header, and was not sent." : `The row was not sent, because of ${said}.`, errors };
  }
  return row;
}

/** What each feature takes, by its name: words (levels) or a number, and whether it may be empty. */
const kindsOf = (model) =>
  new Map(model.features.map((one) => [one.name, { levels: one.levels ?? [], mayBeNull: one.may_be_null ?? model.missing === "impute" }]));

function faultOf(text, levels, mayBeNull) {
  if (MISSING.has(text.toLowerCase())) return mayBeNull ? null : "is empty; this model takes no missing values";
  if (levels.length > 0) return null; // the server knows which words it takes
  if (!NUMBER.test(text)) return "is not a number";
  return Number.isFinite(Number(text)) ? null : "is too large for a number";
}

function likelyId(header, others) {
  const named = others.find((column) => ID_LIKE.test(header[column]));
  return named ?? others.find((column) => header[column] !== "") ?? null;
}

/** Edits (insert, delete, replace, swap neighbours) between two texts. */
function distance(a, b) {
  if (a.length > 200 || b.length > 200) return a === b ? 0 : Math.max(a.length, b.length);
  let before = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i += 1) {
    const current = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      current[j] = Math.min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) current[j] = Math.min(current[j], before[j - 2] + 1);
    }
    before = previous;
    previous = current;
  }
  return previous[b.length];
}
