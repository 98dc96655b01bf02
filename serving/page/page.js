// The page: choose a model, take a table, score it, show why. Keeps everything in memory and nothing anywhere else.

import * as draw from "./draw.js";
import { AskError, contract, describe, explain, models, placeOf, predict } from "./ask.js";
import { TableError, cell, count, nameOf, readTable, textOf } from "./table.js";

const PER_PAGE = 20;
const MOST_BYTES = 64 * 1024 * 1024;
const MOST_SHOWN_TEXT = 100_000;
const MOST_RESCORES = 2;
const CAUTION = "Research use only: not a medical device, not for decisions about a patient.";

const $ = (id) => document.getElementById(id);

const state = {
  pending: new Map(), // by a model's name: why its newest version is not served
  model: null,
  text: "",
  fileName: "",
  table: null,
  results: [],
  explanations: new Map(),
  chosen: null,
  page: 0,
  scoring: null, // what ends the scoring that goes on
  explaining: null, // what ends the explaining that goes on, and of which row
};

// ---- models ----------------------------------------------------------------------------------------------------------

async function start() {
  try {
    const { models: served } = await models();
    state.pending = new Map(served.map(({ name, pending_problem: problem }) => [name, problem]));
    const chooser = $("model");
    chooser.replaceChildren(...served.map(({ name }) => draw.make("option", { value: name }, name)));
    chooser.disabled = false;
    if (served.length === 0) throw new TableError("This server serves no model.");
    await choose(served[0].name);
  } catch (error) {
    alarm(error);
  }
}

async function choose(name) {
  stop();
  setModel(null);
  clearResults();
  try {
    const model = await fetchModel(name);
    if ($("model").value !== name) return; // another was chosen meanwhile
    setModel(model);
    if (state.text.trim()) take(state.text, state.fileName);
  } catch (error) {
    alarm(error);
  }
}

async function fetchModel(name) {
  const [described, agreed] = await Promise.all([describe(name), contract(name)]);
  if (described.version !== agreed.version) return fetchModel(name); // it was replaced between the two
  return modelOf(described, agreed);
}

/** What the page needs of a model's description and its contract. */
function modelOf(described, agreed) {
  const { card } = described;
  const gap = card.composite ? "missing" : "empty, filled in";
  const features = agreed.features.map((feature) => ({ name: feature.name, unit: feature.unit ?? null, range: feature, levels: feature.levels ?? [], may_be_null: feature.may_be_null, gap }));
  const aliases = agreed.features.flatMap(({ name, aliases: others }) => (others ?? []).map((other) => [other, name]));
  return {
    name: described.name,
    version: String(described.version),
    card,
    threshold: card.threshold,
    limit: card.score ? null : card.threshold, // a score with a cutoff of its own decides before the probability does
    positive: card.positive_label,
    probability: probabilityWords(card),
    caution: described.research_use_only || CAUTION,
    missing: agreed.missing,
    aliases: new Map(aliases),
    features,
  };
}

/** What the number is; of a profile, what became of the training patients of the row's cluster. */
function probabilityWords(card) {
  const of = card.profile ? " in its cluster" : "";
  if (card.horizon != null) return `risk of the event${draw.byWhen(card)}${of}`;
  return card.profile ? `risk of the event${of}` : `probability of ${card.positive_label}`;
}

function setModel(model) {
  state.model = model;
  $("about").hidden = model === null;
  for (const id of ["example", "template", "score"]) $(id).disabled = model === null;
  $("alert").replaceChildren();
  if (model === null) return;
  $("about-title").textContent = model.name;
  $("about-version").textContent = `version ${model.version}`;
  $("about-endpoint").textContent = draw.aim(model);
  $("pending").replaceChildren(...draw.pending(state.pending.get(model.name), model.version));
  $("facts").replaceChildren(...draw.facts(model));
  $("card").replaceChildren(...draw.cardLines(model));
  $("show").options[1].textContent = `called ${model.positive}`;
}

// ---- the table -------------------------------------------------------------------------------------------------------

/** Read a table and score it. */
function take(text, name = "") {
  stop();
  clearResults();
  state.text = text;
  state.fileName = name;
  $("file-name").textContent = name && `${name}${text.length > MOST_SHOWN_TEXT ? " (too long to show)" : ""}`;
  if ($("text").value !== text) $("text").value = text.length > MOST_SHOWN_TEXT ? "" : text;
  if (state.model === null) return;
  try {
    state.table = readTable(text, state.model);
  } catch (error) {
    if (!(error instanceof TableError)) throw error;
    $("reading").replaceChildren(draw.notice("refused", error.message, error.points));
    return;
  }
  $("reading").replaceChildren(...draw.reading(state.table, callBy));
  score();
}

async function takeFile(file) {
  try {
    if (file.size > MOST_BYTES) throw new TableError("The file is larger than 64 MB. Keep the columns that the model needs, or score it with “hypoxia predict”.");
    take(textOf(await file.arrayBuffer()), file.name);
  } catch (error) {
    if (!(error instanceof TableError)) throw error;
    stop();
    clearResults();
    state.text = $("text").value = "";
    $("file-name").textContent = file.name;
    $("reading").replaceChildren(draw.notice("refused", error.message));
  }
}

function callBy(column) {
  state.table.idColumn = column;
  drawRows();
  drawDetail();
}

function clearResults() {
  state.table = null;
  state.results = [];
  state.explanations.clear();
  state.chosen = null;
  state.page = 0;
  $("results").hidden = true;
  $("reading").replaceChildren();
  $("alert").replaceChildren();
  say("");
}

// ---- scoring ---------------------------------------------------------------------------------------------------------

async function score(rescored = 0) {
  stop();
  const scoring = (state.scoring = new AbortController());
  const { model, table } = state;
  state.explanations.clear();
  state.results = table.rows.map((row) => ({ row, problem: row.problem, prediction: null }));
  $("alert").replaceChildren();
  $("results").hidden = false;
  $("show").value = "all";
  $("order").value = "row";
  drawRows();
  select(0);
  const sound = table.rows.filter((row) => row.problem === null);
  try {
    progress(0, sound.length);
    let done = 0;
    const versions = new Set([model.version]);
    await predict(model.name, sound, {
      signal: scoring.signal,
      onWait: (seconds) => say(`The server is busy; trying again in ${seconds} s.`),
      onPart: (answer, rows) => {
        if (answer.model) versions.add(String(answer.model.version));
        rows.forEach((row, at) => note(row, answer.predictions[at]));
        done += rows.length;
        progress(done, sound.length);
        drawRows();
        if (rows.some((row) => row.number === state.chosen)) drawDetail();
        explainChosen();
      },
    });
    if (versions.size > 1) return await scoreAnew(rescored);
    say(summary());
  } catch (error) {
    if (error.name === "AbortError") return;
    say("");
    alarm(error);
  } finally {
    if (state.scoring === scoring) {
      $("progress").hidden = true;
      state.scoring = null;
    }
  }
}

/** Another version came into use: its threshold and ranges are others, and no table is scored by two models. */
async function scoreAnew(rescored) {
  if (rescored >= MOST_RESCORES) throw new TableError("The model was replaced again and again while the table was scored. Score it once more later.");
  const model = await fetchModel(state.model.name);
  setModel(model);
  await score(rescored + 1);
  if (state.results.length > 0) $("alert").replaceChildren(draw.notice("warned", `Version ${model.version} of the model came into use meanwhile; all rows were scored again by it.`));
}

function note(row, answered) {
  const result = state.results[row.number];
  if (answered.problem) {
    const errors = (answered.problem.errors ?? []).map(({ pointer, detail }) => ({ feature: placeOf(pointer).feature, detail }));
    result.problem = { detail: answered.problem.detail ?? "", errors };
  } else {
    result.prediction = answered;
  }
}

function summary() {
  const scored = state.results.filter(({ prediction }) => prediction);
  const positive = scored.filter(({ prediction }) => draw.isPositive(prediction, state.model)).length;
  const unlike = scored.filter(({ prediction }) => prediction.out_of_distribution?.flagged).length;
  const refused = state.results.length - scored.length;
  const parts = [`${count(scored.length)} of ${count(state.results.length)} rows scored: ${count(positive)} called ${state.model.positive}`];
  if (unlike > 0) parts.push(`${count(unlike)} unlike the training samples`);
  const apart = scored.filter(({ prediction }) => prediction.profile?.unlike_any_cluster).length;
  if (apart > 0) parts.push(`${count(apart)} unlike any cluster`);
  if (refused > 0) parts.push(`${count(refused)} refused`);
  return `${parts.join(", ")}.`;
}

function stop() {
  state.scoring?.abort();
  state.explaining?.abort();
  state.scoring = state.explaining = null;
  $("progress").hidden = true;
}

function progress(done, all) {
  $("progress").hidden = done >= all;
  $("progress").max = Math.max(all, 1);
  $("progress").value = done;
  if (done < all) say(`Scoring: ${count(done)} of ${count(all)} rows.`);
}

// ---- rows ------------------------------------------------------------------------------------------------------------

const FILTERS = {
  all: () => true,
  positive: ({ prediction }) => prediction !== null && draw.isPositive(prediction, state.model),
  unlike: ({ prediction }) => prediction !== null && draw.isUnlike(prediction),
  refused: ({ problem }) => problem !== null,
};

function listedResults() {
  const results = state.results.filter(FILTERS[$("show").value]);
  const order = $("order").value;
  if (order === "row") return results;
  const side = order === "high" ? -1 : 1;
  const key = ({ prediction }) => (prediction ? side * prediction.probability : Infinity); // what has no score comes last
  return results.sort((a, b) => key(a) - key(b) || a.row.number - b.row.number);
}

function drawRows() {
  if (state.table === null) return;
  const all = listedResults();
  const pages = Math.max(1, Math.ceil(all.length / PER_PAGE));
  state.page = Math.min(state.page, pages - 1);
  const shown = all.slice(state.page * PER_PAGE, (state.page + 1) * PER_PAGE);
  const { idColumn } = state.table;
  const hadFocus = document.activeElement?.classList.contains("row-name");
  $("rows-id").textContent = idColumn === null ? "Row" : state.table.header[idColumn];
  $("rows").replaceChildren(...shown.map((result) => draw.rowLine(result, nameOf(result.row, idColumn), result.row.number === state.chosen, state.model, open)));
  if (shown.length === 0) $("rows").append(draw.make("tr", {}, draw.make("td", { colspan: 4, class: "quiet" }, "No such row.")));
  if (hadFocus) $("rows").querySelector("[aria-current]")?.focus();
  $("pager").hidden = pages === 1;
  $("pages").textContent = `${count(state.page * PER_PAGE + 1)} to ${count(state.page * PER_PAGE + shown.length)} of ${count(all.length)}`;
  $("previous").disabled = state.page === 0;
  $("next").disabled = state.page === pages - 1;
}

function turn(by) {
  state.page += by;
  drawRows();
}

/** By hand: where the row's account stands below the list, go there. */
function open(number) {
  select(number);
  const detail = $("detail");
  if (detail.getBoundingClientRect().top > window.innerHeight - 80) detail.scrollIntoView({ block: "start" });
}

function select(number) {
  state.chosen = number;
  if (state.explanations.get(number)?.failure) state.explanations.delete(number); // once more
  drawRows();
  drawDetail();
  explainChosen();
  const { prediction, problem } = state.results[number];
  const name = nameOf(state.results[number].row, state.table.idColumn);
  $("spoken").textContent = problem ? `${name}: refused. ${problem.detail}` : prediction ? `${name}: probability ${draw.probability(prediction.probability, state.model.limit)}, ${prediction.label}.` : "";
}

function step(event) {
  const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!move || !event.target.classList.contains("row-name")) return;
  event.preventDefault();
  const all = listedResults();
  const at = all.findIndex(({ row }) => row.number === Number(event.target.dataset.row)) + move;
  if (at < 0 || at >= all.length) return;
  state.page = Math.floor(at / PER_PAGE);
  select(all[at].row.number);
}

// ---- one row ---------------------------------------------------------------------------------------------------------

function drawDetail() {
  const result = state.results[state.chosen];
  if (!result) return;
  const known = state.explanations.get(state.chosen) ?? {};
  const name = nameOf(result.row, state.table.idColumn);
  $("detail").replaceChildren(...draw.detail({ result, name, model: state.model, explanation: known.explanation ?? null, failure: known.failure }).flat().filter(Boolean));
}

async function explainChosen() {
  if (state.model.card.profile) return; // it has no SHAP values; what decided a row's cluster came with its score
  const number = state.chosen;
  const result = state.results[number];
  if (!result?.prediction || state.explanations.has(number) || state.explaining?.number === number) return;
  state.explaining?.abort();
  const explaining = (state.explaining = Object.assign(new AbortController(), { number }));
  try {
    const answer = await explain(state.model.name, result.row, explaining.signal);
    state.explanations.set(number, explained(answer, result.prediction));
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof AskError)) throw error;
    state.explanations.set(number, { failure: `The score could not be explained. ${error.message} ${error.detail}`.trim() });
  }
  if (state.explaining !== explaining) return;
  state.explaining = null;
  if (state.chosen === number) drawDetail();
}

function explained(answer, prediction) {
  const [{ explanation, model_version: version }] = answer.predictions;
  if (version !== prediction.model_version) return { failure: `Version ${version} of the model came into use after this row was scored. Score the table again.` };
  return explanation ? { explanation } : { failure: "The server gave no explanation of this row." };
}

// ---- files out -------------------------------------------------------------------------------------------------------

function example() {
  const { features } = state.model;
  const lines = [["id", ...features.map(({ name }) => name)], ["training medians", ...features.map(({ range }) => range.quantiles["0.5"])]];
  take(csv(lines).trimEnd());
}

function template() {
  save(`${fileName(state.model.name)}-template.csv`, csv([["id", ...state.model.features.map(({ name }) => name)]]));
}

function download() {
  const { model, table } = state;
  const header = ["row", "id", "probability", "threshold", "label", "model", "model_version", "unlike_training", "distance", "distance_limit", "outside_range", "driven_by", "problem", "note", ...(model.card.score ? ["score"] : []), ...clusterHeads(model)];
  const lines = state.results.map(({ row, prediction, problem }) => {
    const outside = prediction?.out_of_distribution;
    return [
      row.number + 1,
      table.idColumn === null ? "" : row.cells[table.idColumn],
      prediction?.probability,
      prediction?.threshold,
      prediction?.label,
      model.name,
      prediction?.model_version,
      outside?.flagged,
      outside?.distance,
      outside?.limit,
      outside?.outside_range.map(({ feature, side }) => `${feature} ${side}`).join("; "),
      outside?.drivers.join("; "),
      problem && [problem.detail, ...problem.errors.map(({ feature, detail }) => `${feature} ${detail}`.trim())].join(" "),
      model.caution,
      ...(model.card.score ? [prediction?.score] : []),
      ...clusterCells(model, prediction?.profile),
    ];
  });
  save(`${fileName(model.name)}-version-${fileName(model.version)}-scores.csv`, csv([header, ...lines]));
}

const clusters = (model) => (model.card.profile?.clusters ?? []).map(({ number }) => number);

/** As `hypoxia predict` names its columns. */
function clusterHeads(model) {
  if (!model.card.profile) return [];
  return ["cluster", ...clusters(model).map((number) => `distance.cluster_${number}`), "margin", "runner_up", "unlike_any_cluster"];
}

function clusterCells(model, found) {
  if (!model.card.profile) return [];
  return [found?.cluster, ...clusters(model).map((number) => found?.distances[`cluster ${number}`]), found?.margin, found?.runner_up, found?.unlike_any_cluster];
}

const csv = (lines) => lines.map((line) => `${line.map(cell).join(",")}\r\n`).join("");
const fileName = (text) => text.replace(/[^A-Za-z0-9_-]+/g, "-").slice(0, 80);

function save(name, text) {
  // The mark tells spreadsheets that this is UTF-8; the page reads past it.
  const address = URL.createObjectURL(new Blob(["\uFEFF", text], { type: "text/csv;charset=utf-8" }));
  draw.make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

// ---- saying ----------------------------------------------------------------------------------------------------------

function say(text) {
  $("status").textContent = text;
}

function alarm(error) {
  if (!(error instanceof AskError) && !(error instanceof TableError)) throw error;
  const points = [];
  if (error.detail) points.push({ name: "", text: error.detail });
  for (const fault of error.problem?.errors ?? []) points.push({ name: placeOf(fault.pointer).feature, text: fault.detail });
  $("alert").replaceChildren(draw.notice("refused", error.message, points.slice(0, 8)));
}

// ---- hands on --------------------------------------------------------------------------------------------------------

function listen() {
  $("model").addEventListener("change", (event) => choose(event.target.value));
  $("example").addEventListener("click", example);
  $("template").addEventListener("click", template);
  $("download").addEventListener("click", download);
  $("score").addEventListener("click", () => take($("text").value || state.text));
  $("clear").addEventListener("click", () => {
    $("file").value = "";
    take("");
    $("reading").replaceChildren();
    $("text").focus();
  });
  $("file").addEventListener("change", (event) => {
    if (event.target.files.length > 0) takeFile(event.target.files[0]);
    event.target.value = ""; // so that the same file can be chosen again once it was mended
  });
  $("text").addEventListener("input", edited);
  $("text").addEventListener("paste", () => setTimeout(() => take($("text").value)));
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  for (const id of ["show", "order"]) {
    $(id).addEventListener("change", () => {
      state.page = 0;
      drawRows();
    });
  }
  $("rows").addEventListener("keydown", step);
  listenForDrops();
}

/** The scores of a table that has been changed are no longer its scores. */
function edited(event) {
  if (event.inputType === "insertFromPaste") return;
  stop();
  clearResults();
  state.text = $("text").value;
  $("file-name").textContent = "";
}

/** Anywhere on the page: a file that is dropped beside the field would otherwise be opened in the page's place. */
function listenForDrops() {
  let depth = 0;
  const veil = (isOn) => document.body.classList.toggle("dropping", isOn);
  addEventListener("dragenter", () => {
    depth += 1;
    veil(true);
  });
  addEventListener("dragleave", () => {
    depth -= 1;
    if (depth <= 0) veil(false);
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    veil(false);
    const { files } = event.dataTransfer;
    if (files.length > 1) {
      stop();
      clearResults();
      $("reading").replaceChildren(draw.notice("refused", "Drop one file at a time."));
    } else if (files.length === 1) takeFile(files[0]);
    else if (event.dataTransfer.getData("text/plain")) take(event.dataTransfer.getData("text/plain"));
  });
}

listen();
start();
