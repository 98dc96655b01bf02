// What is shown. Every text is set as text: a name or an identifier that looks like markup stays what it is.

import { count } from "./table.js";

const SVG = "http://www.w3.org/2000/svg";
const MOST_SHOWN = 200;
const MOST_LEADING = 10;
const AGREES = 1e-6;

/** An element; `children` are elements or texts, `props` attributes (`on…` listeners). */
export function make(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

const shape = (tag, props = {}, ...children) => fill(document.createElementNS(SVG, tag), props, children);

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Three decimals, and as many more as it takes that a value just below the threshold does not look as if it were at it. */
export function probability(value, threshold = null) {
  for (let digits = 3; digits < 12; digits += 1) {
    const text = value.toFixed(digits);
    if (threshold === null || (Number(text) >= threshold) === (value >= threshold)) return text;
  }
  return String(value);
}

export const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;

/** A number of any size in few characters. */
export function short(value) {
  if (value === null || value === undefined) return "none";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  return text.replace("e+", "e").replaceAll("-", "−");
}

/** A threshold as the study wrote it: two decimals at least. */
const cut = (value) => value.toFixed(4).replace(/0{1,2}$/, "");

/** A long name may be broken where its words are joined; its text stays the same. */
const breakable = (name) => name.split(/(?<=[_.-])/).flatMap((word) => [word, document.createElement("wbr")]).slice(0, -1);

const listed = (names) => (names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`);
const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** What a row is called tells how it came out: in some models a score decides, in others the probability. */
export const isPositive = (prediction, model) => prediction.label === model.positive;

/** Unlike the training samples, or, of a profile, unlike any of its clusters. */
export const isUnlike = (prediction) => prediction.out_of_distribution?.flagged === true || prediction.profile?.unlike_any_cluster === true;

// ---- the model -------------------------------------------------------------------------------------------------------

export function aim({ card, positive, probability: words }) {
  const decides = card.score ? `A ${card.score.name} at or above ${short(card.score.cutoff)}${card.score.unit ? ` ${card.score.unit}` : ""}` : "A probability at or above the threshold";
  const risk = card.horizon == null && !card.profile ? "" : ` The probability is the ${words}.`;
  return `Predicts: ${endpointWords(card)}. ${decides} is called ${positive}.${risk}`;
}

/** What is predicted, in words; a card holds the endpoint as the study set it, or what a reader can read already. */
function endpointWords(card) {
  const endpoint = parsed(card.endpoint);
  return ENDPOINTS.get(endpoint?.kind)?.(endpoint, card) ?? card.endpoint;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

const ENDPOINTS = new Map([
  ["survival", ({ event, positive, time }, card) => `${happened(event, positive)}${byWhen(card)} (${time})`],
  ["binary", ({ column, positive }) => `${column} = ${positive}`],
  ["signature", ({ signature }) => `a score of the signature ${signature} at or above its median`],
  ["staining", ({ intensity, proportion, cutoff }) => `a staining index (${[intensity].flat().join(", ")}; ${[proportion].flat().join(", ")}) of at least ${short(cutoff)}`],
]);

const happened = (event, positive) => (positive === 1 || positive === true ? event : `${event} = ${positive}`);

/** " by 60 months", of a card that has a horizon. */
export const byWhen = ({ horizon, time_unit: unit }) => (horizon == null ? "" : [" by", short(horizon), unit].filter(Boolean).join(" "));

const decisionFact = ({ card, threshold }) => (card.score ? fact("Cutoff", short(card.score.cutoff), card.score.words) : fact("Threshold", cut(threshold), card.threshold_origin));

function emptyWords({ card, missing }) {
  if (card.composite) return card.composite.missing === "alone" ? "one of the two may be empty" : "neither may be empty";
  return missing === "impute" ? "empty cells are filled as in training" : "no empty cells";
}

export function facts(model) {
  const { card } = model;
  const { term, estimate: found } = headline(card);
  return [
    fact(term, found?.value == null ? "not estimable" : found.value.toFixed(2), estimateNote(found), found?.value != null),
    fact("Patients", count(card.patients), `${plural(card.samples, "sample")}, ${plural(card.events, "event")}; ${heldOut(card)}`),
    decisionFact(model),
    fact("Features", count(model.features.length), emptyWords(model)),
  ];
}

const NOT_SERVED = { unverified: "it could not be verified", registry: "the registry cannot be reached", files: "its files cannot be read" };

/** That another version should answer than the one that does. */
export function pending(problem, version) {
  if (!problem) return [];
  const which = problem.version ? `Version ${problem.version}` : "The newest version";
  return [notice("warned", `${which} should be served and is not: ${NOT_SERVED[problem.kind] ?? "taking it over failed"}. Version ${version} answers.`)];
}

function fact(term, value, note, isNumber = true) {
  return make("div", { class: "fact" }, make("dt", {}, term), make("dd", { class: isNumber ? "fact-value" : "fact-value fact-words" }, value), make("dd", { class: "fact-note" }, note ?? ""));
}

const MEASURES = { roc_auc: "AUC", c_index: "concordance" };

/** The estimate that says most: the held-out AUC; of a card that has no such entry (survival, composites) the first estimate. */
function headline(card) {
  if (!card.held_out?.roc_auc) {
    const all = [["Held-out", card.held_out], ["Internal", card.internal]].flatMap(([kind, of]) => Object.entries(of ?? {}).map(([name, estimate]) => ({ kind, name, estimate })));
    const first = all.find(({ estimate }) => estimate?.value != null);
    if (first) return { term: `${first.kind} ${MEASURES[first.name] ?? first.name.replaceAll("_", " ")}`, estimate: first.estimate };
  }
  return { term: "Held-out AUC", estimate: card.held_out?.roc_auc };
}

function estimateNote(found) {
  if (found?.value == null) return found?.reason ?? "no estimate in the card";
  if (found.lower == null || found.upper == null) return "without an interval";
  return `${Math.round((found.level ?? 0.95) * 100)}% interval ${found.lower.toFixed(2)} to ${found.upper.toFixed(2)}`;
}

const heldOut = (card) => (card.held_out_patients > 0 ? `${count(card.held_out_patients)} patients held out` : "none held out");

export function cardLines(model) {
  const { card } = model;
  const lines = [
    ["Intended use", card.intended_use],
    ["Study", card.study],
    ["Sequence", card.sequence],
    ["Pipeline", card.pipeline],
    ["Score", card.score?.words],
    ["Composite", card.composite?.words],
    ...(card.composite?.parts ?? []).map(({ name, source }) => [name, source]),
    ...clusterLines(card.profile),
    ["Made", card.created],
    ...Object.entries(card.held_out ?? {}).map(([name, value]) => [`Held out: ${name}`, estimate(value)]),
    ...Object.entries(card.internal ?? {}).map(([name, value]) => [`Internal: ${name}`, estimate(value)]),
    ...(card.warnings ?? []).map((warning) => ["Warning", warning]),
    ["Data", (card.data_hash ?? "").slice(0, 12)],
    ["Settings", (card.fingerprint ?? "").slice(0, 12)],
  ];
  return lines.filter(([, value]) => value).map(([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, String(value))));
}

/** The clusters of a profile, and whether the outcome had a say in them. */
function clusterLines(profile) {
  if (!profile) return [];
  const clusters = profile.clusters.map(({ number, patients, events, risk }) => [`Cluster ${number}`, `${plural(patients, "patient")}, ${count(events)} with the event; risk ${risk.toFixed(3)}`]);
  const exploratory = profile.exploratory && "The outcome had a say in how many clusters there are or in which are combined.";
  return [["Profiles", profile.words], ["Clustering", profile.method], ["Number of clusters", profile.chosen_by], ["Exploratory", exploratory], ...clusters];
}

function estimate(one) {
  if (one?.value == null) return `not estimable${one?.reason ? ` (${one.reason})` : ""}`;
  return one.lower == null || one.upper == null ? one.value.toFixed(3) : `${one.value.toFixed(3)} (${one.lower.toFixed(3)} to ${one.upper.toFixed(3)})`;
}

// ---- the table as it was read ----------------------------------------------------------------------------------------

export function reading(table, onId) {
  const chooser = make("select", { id: "id-column", onchange: (event) => onId(event.target.value === "" ? null : Number(event.target.value)) }, make("option", { value: "" }, "row number"));
  for (const column of table.others) {
    if (table.header[column] !== "") chooser.append(make("option", { value: column }, table.header[column]));
  }
  chooser.value = table.idColumn === null ? "" : String(table.idColumn);
  return [
    make("p", { class: "read-line" }, `${plural(table.rows.length, "row")}, ${table.separator} separated.`),
    make("label", { class: "read-line" }, "Rows are called by ", chooser),
    table.renamed.map(([name, feature]) => make("p", { class: "read-line" }, `“${name}” is taken as ${feature}.`)),
    ignored(table),
  ].flat();
}

function ignored(table) {
  const names = table.others.filter((column) => column !== table.idColumn && table.header[column] !== "").map((column) => table.header[column]);
  if (names.length === 0) return [];
  if (names.length <= 6) return [make("p", { class: "read-line" }, `Ignored, since the model does not use ${names.length === 1 ? "it" : "them"}: ${names.join(", ")}.`)];
  const shown = names.slice(0, MOST_SHOWN).join(", ") + (names.length > MOST_SHOWN ? ", …" : "");
  return [make("details", { class: "read-line" }, make("summary", {}, `${count(names.length)} columns are ignored, since the model does not use them`), make("p", {}, shown))];
}

export function notice(kind, title, points = []) {
  const list = points.length > 0 && make("ul", {}, points.map(({ name, text }) => make("li", {}, name && make("b", {}, name), name && " ", text)));
  return make("div", { class: `notice ${kind}` }, make("p", {}, title), list);
}

// ---- the rows --------------------------------------------------------------------------------------------------------

export function rowLine(result, name, isChosen, model, onChoose) {
  const button = make("button", { type: "button", class: "row-name", "aria-current": isChosen ? "true" : null, "data-row": result.row.number }, name);
  const cells = result.problem
    ? [make("td", { class: "cell-score" }, "–"), make("td", { class: "cell-label" }, make("span", { class: "tag tag-refused" }, "refused")), make("td", { class: "cell-range" }, plural(Math.max(result.problem.errors.length, 1), "fault"))]
    : result.prediction
      ? [
          make("td", { class: "cell-score" }, make("span", { class: "number" }, probability(result.prediction.probability, model.limit)), miniBar(result.prediction, model)),
          make("td", { class: "cell-label" }, labelTag(result.prediction, model), clusterWords(result.prediction.profile)),
          make("td", { class: "cell-range" }, rangeWords(result.prediction)),
        ]
      : [make("td", { class: "cell-score" }, "…"), make("td", { class: "cell-label" }), make("td", { class: "cell-range" })];
  return make("tr", { class: isChosen ? "chosen" : null, onclick: () => onChoose(result.row.number) }, make("th", { scope: "row" }, button), cells);
}

const labelTag = (prediction, model) => make("span", { class: isPositive(prediction, model) ? "tag tag-positive" : "tag tag-negative" }, prediction.label);

const clusterWords = (profile) => profile && make("div", { class: "quiet" }, profile.cluster);

function rangeWords(prediction) {
  const outside = prediction.out_of_distribution;
  if (!isUnlike(prediction)) return "within";
  if (!outside?.flagged) return make("span", { class: "unlike" }, "unlike any cluster");
  const number = outside.outside_range.filter(({ feature }) => outside.drivers.includes(feature)).length;
  return make("span", { class: "unlike" }, number > 0 ? `${count(number)} outside` : "unlike together");
}

const percent = (share) => `${(100 * share).toFixed(4)}%`;

const thresholdLine = (limit, from, to) => limit !== null && shape("line", { class: "threshold", x1: percent(limit), x2: percent(limit), y1: from, y2: to });

function miniBar(prediction, model) {
  return shape(
    "svg",
    { class: "mini", width: "100%", height: 8, "aria-hidden": "true", focusable: "false" },
    shape("rect", { class: "track", x: 0, y: 2, width: "100%", height: 4, rx: 2 }),
    shape("rect", { class: isPositive(prediction, model) ? "fill-positive" : "fill-negative", x: 0, y: 2, width: percent(prediction.probability), height: 4, rx: 2 }),
    thresholdLine(model.limit, 0, 8),
  );
}

// ---- one row ---------------------------------------------------------------------------------------------------------

/**
 * @param {{result, name, model, explanation, failure}} shown explanation: as answered, null while it is fetched.
 */
export function detail({ result, name, model, explanation, failure }) {
  const head = [make("p", { class: "eyebrow" }, `Line ${count(result.row.line)} of the table`), make("h2", { id: "detail-title" }, name)];
  if (result.problem) return [...head, refusal(result, model)];
  if (!result.prediction) return [...head, make("p", { class: "quiet" }, "Not scored yet.")];
  return [
    ...head,
    score(result.prediction, model),
    make("p", { class: "caution-inline" }, model.caution),
    unlikeness(result.prediction.out_of_distribution),
    ...profile(result.prediction.profile),
    ...(result.prediction.profile ? whereItLies(result, model) : whatDroveIt(result, model, explanation, failure)),
    footnotes(explanation),
  ];
}

function score(prediction, model) {
  const missing = prediction.composite?.missing;
  const said = isPositive(prediction, model) ? "at or above" : "below";
  const decided = model.card.score ? `${model.card.score.name} ${short(prediction.score)}, ${said} the cutoff ${short(model.card.score.cutoff)}` : `${said} the threshold ${cut(prediction.threshold)}`;
  return make(
    "div",
    { class: "score" },
    make(
      "div",
      { class: "score-number" },
      make("span", { class: "big", id: "probability", "data-value": prediction.probability }, probability(prediction.probability, model.limit)),
      make("span", { class: "score-words" }, model.probability),
    ),
    make(
      "div",
      { class: "score-scale" },
      labelTag(prediction, model),
      scale(prediction, model),
      make("p", { class: "quiet" }, `${decided} · version ${prediction.model_version}`),
      missing ? make("p", { class: "quiet", id: "missing" }, `${missing.part} is missing: answered ${missing.answered}`) : null,
    ),
  );
}

function scale(prediction, model) {
  const { probability: value } = prediction;
  const side = isPositive(prediction, model) ? "positive" : "negative";
  const limit = model.limit === null ? "" : `, threshold ${cut(model.limit)}`;
  return shape(
    "svg",
    { class: "scale", width: "100%", height: 26, role: "img", "aria-label": `Probability ${probability(value, model.limit)} on a scale from 0 to 1${limit}` },
    shape("rect", { class: "track", x: 0, y: 9, width: "100%", height: 8, rx: 4 }),
    shape("rect", { class: `fill-${side}`, x: 0, y: 9, width: percent(value), height: 8, rx: 4 }),
    thresholdLine(model.limit, 2, 24),
    shape("circle", { class: `dot dot-${side}`, cx: percent(value), cy: 13, r: 6 }),
  );
}

function unlikeness(outside) {
  if (!outside) return null;
  const far = `distance ${short(outside.distance)}, limit ${short(outside.limit)}`;
  const just = outside.outside_range.length;
  const ranges = just === 0 ? "every value is within its range" : `${just === 1 ? "one value is" : `${count(just)} values are`} only just outside the training range`;
  if (!outside.flagged) return make("p", { class: "within" }, `Like the training samples: ${ranges} (${far}).`);
  const driving = outside.outside_range.filter(({ feature }) => outside.drivers.includes(feature));
  const sides = ["below", "above"].map((side) => ({ side, names: driving.filter((one) => one.side === side).map((one) => one.feature) }));
  const points = sides
    .filter(({ names }) => names.length > 0)
    .map(({ side, names }) => ({ name: listed(few(names)), text: `${names.length === 1 ? "lies" : "lie"} ${side} the training range.` }));
  if (outside.distance > outside.limit) {
    const by = outside.drivers.length > 0 ? `, mostly by ${listed(few(outside.drivers))}` : "";
    points.push({ name: "", text: `Taken together the values are farther from the training samples than these are from each other${by} (${far}).` });
  }
  if (points.length === 0) points.push({ name: "", text: "Most of its values are missing." });
  return make("div", { id: "unlike" }, notice("warned", "Unlike what the model was trained on: the score is an extrapolation.", points));
}

/** The first five of many: what comes below must stay in sight. */
const few = (names) => (names.length <= 6 ? names : [...names.slice(0, 5), `${count(names.length - 5)} more`]);

function refusal({ row, problem }, model) {
  const known = new Map(model.features.map((feature) => [feature.name, feature]));
  const items = problem.errors.map(({ feature, detail: why }) => {
    const range = known.get(feature)?.range;
    return make(
      "li",
      {},
      feature && make("b", {}, feature),
      feature && " ",
      why,
      row.texts.get(feature) ? make("span", { class: "given" }, "; the cell holds ", make("code", {}, shortened(row.texts.get(feature)))) : null,
      range ? make("span", { class: "quiet" }, ` (trained on ${short(range.minimum)} to ${short(range.maximum)})`) : null,
    );
  });
  return make("div", { class: "notice refused", id: "refusal" }, make("p", {}, make("strong", {}, "This row was refused and has no score. "), problem.detail), items.length > 0 && make("ul", {}, items));
}

const shortened = (text) => (text.length <= 60 ? text : `${text.slice(0, 60)}…`);

// ---- the clusters of a profile ---------------------------------------------------------------------------------------

/** Nearest cluster, how far every one is, and which features decided. */
function profile(found) {
  if (!found) return [];
  const { cluster, patients, events, runner_up: runnerUp, margin, deciding, rest } = found;
  const others = runnerUp ? ` The next, ${runnerUp}, is ${short(margin)} farther.` : "";
  const whose = `Nearest to ${cluster}, with ${plural(patients, "training patient")}, ${count(events)} of them with the event.${others}`;
  const far = `Unlike any cluster: it is ${short(found.distances[cluster])} from ${cluster}, and of that cluster’s training patients none is farther than ${short(found.limit)}.`;
  return [
    make("h3", {}, "Which cluster it is nearest to"),
    make("p", { class: "within", id: "cluster", "data-cluster": cluster }, whose),
    found.unlike_any_cluster ? make("div", { id: "unlike-any" }, notice("warned", far)) : null,
    distanceTable(found),
    deciding.length > 0 ? decidingTable({ deciding, rest, margin, cluster, runnerUp }) : null,
    make("p", { class: "footnote" }, "Distances are squared, in standard deviations of the features, from the patient in the middle of each cluster (its medoid). Dotted line: beyond it a patient is unlike any cluster."),
  ];
}

function distanceTable({ cluster: nearest, distances, limit }) {
  const most = Math.max(...Object.values(distances), limit, Number.MIN_VALUE);
  const line = ([name, distance]) =>
    make(
      "tr",
      { class: name === nearest ? "nearest" : null, "data-cluster": name, "data-distance": distance },
      make("th", { scope: "row" }, name),
      make("td", { class: "col-bar" }, lengthBar(distance / most, name === nearest ? limit / most : null, `distance ${short(distance)}`)),
      make("td", { class: "col-change" }, short(distance)),
    );
  return lengthTable("distances", "Distance from every cluster", ["Cluster", "Distance", ""], Object.entries(distances).map(line));
}

function decidingTable({ deciding, rest, margin, cluster, runnerUp }) {
  const most = Math.max(...deciding.map(({ contribution }) => contribution), Math.abs(rest));
  const line = ({ feature, contribution }) =>
    make(
      "tr",
      { "data-deciding": feature },
      make("th", { scope: "row" }, breakable(feature)),
      make("td", { class: "col-bar" }, lengthBar(contribution / most, null, `adds ${short(contribution)} to the margin`)),
      make("td", { class: "col-change" }, short(contribution)),
    );
  const others = make("tr", { class: "rest" }, make("th", { scope: "row", colspan: 2 }, "all other features together"), make("td", { class: "col-change" }, short(rest)));
  const total = make("tr", { class: "total" }, make("th", { scope: "row", colspan: 2 }, "Margin"), make("td", { class: "col-change" }, short(margin)));
  return lengthTable("deciding", `What speaks for ${cluster} and against ${runnerUp}`, ["Deciding feature", "Adds to the margin", ""], [...deciding.map(line), others, total]);
}

function lengthTable(id, caption, heads, lines) {
  return make(
    "table",
    { class: "lengths", id },
    make("caption", { class: "visually-hidden" }, caption),
    make("thead", {}, make("tr", {}, heads.map((text) => make("th", { scope: "col" }, text || make("span", { class: "visually-hidden" }, "Value"))))),
    make("tbody", {}, lines),
  );
}

function lengthBar(share, limit, label) {
  return shape(
    "svg",
    { class: "bar", role: "img", "aria-label": label },
    shape("rect", { class: "length", x: 0, y: "50%", width: percent(share), height: 12, rx: 1.5 }),
    limit !== null && shape("line", { class: "threshold-line", x1: percent(limit), x2: percent(limit), y1: 0, y2: "100%" }),
  );
}

// ---- features: value, range, contribution ----------------------------------------------------------------------------

function whatDroveIt(result, model, explanation, failure) {
  return [make("h3", {}, "What drove it, and where it lies"), failure ? notice("warned", failure) : null, driverTable(result, model, explanation, failure)];
}

/** Of a profile, which has no SHAP values: the features that decided its cluster, then those that lie outside the range. */
function whereItLies(result, model) {
  const outside = outsideOf(result.prediction);
  const deciding = result.prediction.profile.deciding.map(({ feature }) => feature);
  const leading = [...new Set([...deciding, ...outside.keys(), ...model.features.map(({ name }) => name)])].slice(0, MOST_LEADING);
  const line = featureLines(result, model, outside);
  const table = featureTable("Features with their values, and where these lie in the training samples", ["Feature", "Value", "Training samples"], leading.map((name) => line(name)));
  return [make("h3", {}, "Where its values lie"), table, otherFeatures(othersThan(leading, model, outside), line)];
}

const outsideOf = (prediction) => new Map((prediction.out_of_distribution?.outside_range ?? []).map(({ feature, side }) => [feature, side]));

/** The features that are not among the leading ones, those outside the range first. */
const othersThan = (leading, model, outside) =>
  model.features
    .map(({ name }) => name)
    .filter((name) => !leading.includes(name))
    .sort((a, b) => outside.has(b) - outside.has(a));

function featureLines(result, model, outside) {
  const known = new Map(model.features.map((feature) => [feature.name, feature]));
  return (name, moves) => featureLine(known.get(name) ?? { name }, result.row, outside.get(name), moves);
}

function featureTable(caption, heads, body) {
  const head = heads.map((text, at) => make("th", { scope: "col", class: `col-${at}` }, text || make("span", { class: "visually-hidden" }, "Change")));
  return make("table", { class: "drivers" }, make("caption", { class: "visually-hidden" }, caption), make("thead", {}, make("tr", {}, head)), make("tbody", {}, body));
}

function driverTable(result, model, explanation, failure) {
  const steps = explanation ? waterfall(explanation, result.prediction, model.limit) : null;
  const outside = outsideOf(result.prediction);
  const leading = steps ? steps.features.map(({ feature }) => feature) : [...outside.keys()];
  const others = othersThan(leading, model, outside);
  const featured = featureLines(result, model, outside);
  const line = (name, step) => featured(name, [make("td", { class: "col-bar" }, step ? bar(step, steps) : null), make("td", { class: "col-change" }, step ? signed(step.shap) : null)]);
  const body = [];
  if (steps) body.push(totalLine("Base value", "the model's mean over its background", steps.base, steps, "base"));
  const shown = steps ? leading : [...leading, ...others].slice(0, MOST_SHOWN);
  body.push(...shown.map((name, index) => line(name, steps?.features[index])));
  if (steps && steps.restCount > 0) body.push(restLine(steps));
  if (steps) body.push(totalLine("Probability", sumWords(steps), steps.probability, steps, "total"));
  const caption = "Features with their values, where these lie in the training samples, and how they move the probability";
  const table = featureTable(caption, ["Feature", "Value", "Training samples", "Moves the probability", ""], body);
  if (!steps) return [explanation === null && !failure ? make("p", { class: "quiet", id: "explaining" }, "Explaining…") : null, table];
  return [table, otherFeatures(others, line)];
}

/** The features behind the sum of the rest: their values and ranges, drawn when they are asked for. */
function otherFeatures(others, line) {
  if (others.length === 0) return null;
  const body = make("tbody", {});
  const open = () => {
    if (body.childElementCount === 0) others.slice(0, MOST_SHOWN).forEach((name) => body.append(line(name)));
  };
  const more = others.length > MOST_SHOWN ? `, the first ${MOST_SHOWN} shown` : "";
  return make("details", { class: "more", ontoggle: open }, make("summary", {}, `Values of the other ${plural(others.length, "feature")}${more}`), make("table", { class: "drivers" }, body));
}

/** Where each bar starts and ends on the way from the base value to the probability. */
export function waterfall(explanation, prediction, limit) {
  let at = explanation.base_value;
  const step = (shap) => {
    const from = at;
    at += shap;
    return { from, to: at, shap };
  };
  const features = explanation.features.map(({ feature, shap }) => ({ feature, ...step(shap) }));
  const rest = step(explanation.rest);
  const points = [explanation.base_value, prediction.probability, ...features.map(({ to }) => to), rest.to];
  const low = Math.min(...points);
  const high = Math.max(...points);
  const margin = Math.max(high - low, 1e-6) * 0.05;
  return {
    base: explanation.base_value,
    features,
    rest,
    restCount: explanation.rest_count,
    sum: at,
    probability: prediction.probability,
    threshold: limit,
    place: (value) => (value - low + margin) / (high - low + 2 * margin),
  };
}

function sumWords(steps) {
  const moved = steps.sum - steps.base;
  const words = `${probability(steps.base)} ${moved < 0 ? "−" : "+"} ${Math.abs(moved).toFixed(3)}`;
  return Math.abs(steps.sum - steps.probability) <= AGREES ? `base value and all changes: ${words}` : `the changes add up to ${probability(steps.sum)}, not to the score`;
}

/** @param {Element[]} moves the cells on how it moves the probability, where it does. */
function featureLine(feature, row, side, moves = []) {
  const text = row.texts.get(feature.name) ?? "";
  const value = row.values[feature.name];
  return make(
    "tr",
    { class: side ? "outside" : null, "data-feature": feature.name },
    make("th", { scope: "row" }, breakable(feature.name), feature.unit ? make("span", { class: "unit" }, ` ${feature.unit}`) : null),
    make("td", { class: "col-value" }, value === null || value === undefined ? make("span", { class: "quiet" }, feature.gap) : shortened(text.replace(/^-/, "−"))),
    make("td", { class: "col-strip" }, feature.range ? strip(feature.range, value) : null, side ? make("span", { class: "unlike" }, `${side} training range`) : null),
    moves,
  );
}

function restLine(steps) {
  return make(
    "tr",
    { class: "rest" },
    make("th", { scope: "row", colspan: 3 }, `${plural(steps.restCount, "other feature")} together`),
    make("td", { class: "col-bar" }, bar(steps.rest, steps)),
    make("td", { class: "col-change" }, signed(steps.rest.shap)),
  );
}

function totalLine(title, words, value, steps, kind) {
  return make(
    "tr",
    { class: `total total-${kind}` },
    make("th", { scope: "row", colspan: 3 }, title, make("span", { class: "quiet" }, ` ${words}`)),
    make("td", { class: "col-bar" }, mark(value, steps, kind)),
    make("td", { class: "col-change" }, probability(value, kind === "total" ? steps.threshold : null)),
  );
}

function frame(steps, label, ...shapes) {
  const lines = [shape("line", { class: "base-line", x1: percent(steps.place(steps.base)), x2: percent(steps.place(steps.base)), y1: 0, y2: "100%" })];
  const threshold = steps.threshold === null ? 0 : steps.place(steps.threshold);
  if (threshold > 0 && threshold < 1) lines.push(shape("line", { class: "threshold-line", x1: percent(threshold), x2: percent(threshold), y1: 0, y2: "100%" }));
  return shape("svg", { class: "bar", role: "img", "aria-label": label }, lines, shapes);
}

function bar(step, steps) {
  const from = steps.place(Math.min(step.from, step.to));
  const to = steps.place(Math.max(step.from, step.to));
  const isUp = step.shap >= 0;
  const label = `${isUp ? "raises" : "lowers"} the probability by ${Math.abs(step.shap).toFixed(3)}, from ${probability(step.from)} to ${probability(step.to)}`;
  return frame(
    steps,
    label,
    shape("rect", { class: isUp ? "up" : "down", x: percent(from), y: "50%", width: percent(Math.max(to - from, 0.002)), height: 12, rx: 1.5, "data-from": step.from, "data-to": step.to }),
  );
}

function mark(value, steps, kind) {
  const at = percent(steps.place(value));
  return frame(steps, `${kind === "base" ? "starts" : "ends"} at ${probability(value)}`, shape("circle", { class: `mark mark-${kind}`, cx: at, cy: "50%", r: kind === "base" ? 3.5 : 5, "data-value": value }));
}

/** Where a value lies among the training samples: whole range, 5 to 95% and 25 to 75% of them, median. */
export function strip(range, value) {
  const span = range.maximum - range.minimum;
  const place = (one) => (span > 0 ? 0.12 + (0.76 * (one - range.minimum)) / span : 0.5);
  const quantile = (share) => range.quantiles?.[share];
  const box = (from, to, props) => (from == null || to == null ? null : shape("rect", { x: percent(place(from)), width: percent(Math.max(place(to) - place(from), 0.004)), ...props }));
  const end = (at) => shape("line", { class: "strip-end", x1: percent(at), x2: percent(at), y1: 7, y2: 15 });
  const median = quantile("0.5");
  return make(
    "div",
    { class: "strip-frame" },
    shape(
      "svg",
      { class: "strip", width: "100%", height: 22, role: "img", "aria-label": stripWords(range, value) },
      shape("line", { class: "strip-line", x1: percent(place(range.minimum)), x2: percent(place(range.maximum)), y1: 11, y2: 11 }),
      end(place(range.minimum)),
      end(place(range.maximum)),
      box(quantile("0.05"), quantile("0.95"), { class: "strip-most", y: 7, height: 8, rx: 1 }),
      box(quantile("0.25"), quantile("0.75"), { class: "strip-half", y: 7, height: 8, rx: 1 }),
      median == null ? null : shape("line", { class: "strip-median", x1: percent(place(median)), x2: percent(place(median)), y1: 6, y2: 16 }),
      value === null || value === undefined ? null : marker(value, range, place),
    ),
    make("div", { class: "strip-ends", "aria-hidden": "true" }, make("span", {}, short(range.minimum)), make("span", {}, short(range.maximum))),
  );
}

/** Inside: a dot where it lies. Outside: an arrow at the edge, which no scale could show otherwise. */
function marker(value, range, place) {
  if (value >= range.minimum && value <= range.maximum) return shape("circle", { class: "strip-mark", cx: percent(place(value)), cy: 11, r: 4.5 });
  const isAbove = value > range.maximum;
  const nested = shape("svg", { x: isAbove ? "95%" : "5%", y: 11, width: 1, height: 1, overflow: "visible" });
  nested.append(shape("path", { class: "strip-mark strip-mark-out", d: isAbove ? "M-6 -6 L6 0 L-6 6 Z" : "M6 -6 L-6 0 L6 6 Z" }));
  return nested;
}

function stripWords(range, value) {
  const trained = `trained on ${short(range.minimum)} to ${short(range.maximum)}, median ${short(range.quantiles?.["0.5"])}`;
  if (value === null || value === undefined) return `No value; ${trained}`;
  const where = value < range.minimum ? "below the training range" : value > range.maximum ? "above the training range" : "within the training range";
  return `${short(value)} is ${where}; ${trained}`;
}

function footnotes(explanation) {
  return make(
    "p",
    { class: "footnote" },
    explanation ? "Bars run from the base value to the probability (SHAP, in probability); they tell what the model does with a value, not what the value does in a tumour. " : "",
    "Training samples: line, smallest to largest; light box, 5 to 95%; dark box, 25 to 75%; tick, median; dot, this row.",
  );
}
