"use strict";

const DATA = pageData();
const [NO, YES, UNKNOWN, NOT_LISTED] = [0, 1, 2, 3];
const SHOWN_LABELS = 40;
const percent = (share) => (share === null || share === undefined ? "–" : share.toFixed(3));

/** An image's label as an object: see `gallery.py` for the list that it is in the data. */
function entry(image, [label, state, probability, truth, arms, human, others, verdict]) {
  const differs = (image.covered & (state === YES ? ~others : others)) !== 0;
  let kind = "denied";
  if (state === YES) kind = truth === 0 ? "wrong" : truth === 1 ? "right" : "given";
  else if (truth === 1) kind = "missed";
  else if (state === UNKNOWN) kind = "unknown";
  return { label, name: DATA.labels[label], state, probability, truth, arms, human, others, verdict, differs, kind };
}

for (const image of DATA.images) image.entries = image.labels.map((each) => entry(image, each));

const VERDICTS = ["probably the annotator", "both defensible", "probably the model"];
const MARKS = {
  right: ["✓", "right"],
  given: ["•", "given, not judged"],
  wrong: ["✕", "wrong: the truth says no"],
  missed: ["○", "missed: the truth says yes"],
  unknown: ["?", "undecided"],
  denied: ["–", "no"],
};

// --- labels ----------------------------------------------------------------------------------------------------------

const COLUMNS = DATA.judged
  ? [["f1", "F1", "bars"], ["precision", "precision"], ["recall", "recall"], ["ap", "AP", "wide"], ["support", "true", "wide"], ["yes", "given", "wide"], ["unknown", "undecided", "wide"]]
  : [["yes", "given", "bars"], ["no", "denied"], ["unknown", "undecided"]];
const sorting = { by: DATA.judged ? "f1" : "yes", up: DATA.judged, all: false };
let chosenLabel = null;

function sortedRows() {
  const rows = [...DATA.rows];
  const last = (row) => (DATA.judged && sorting.by !== "yes" && !row.support ? 1 : 0);
  const key = (row) => (sorting.by === "name" ? row.name : row[sorting.by] ?? -1);
  return rows.sort((a, b) => {
    const order = key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0;
    return last(a) - last(b) || (sorting.up ? order : -order);
  });
}

function drawLabels() {
  const rows = sortedRows();
  const most = Math.max(1, ...DATA.rows.map((row) => row.yes + row.unknown));
  const head = element("tr", {}, ...[["name", "label"], ...COLUMNS].map(([key, title, kind]) =>
    element("th", { class: key === "name" || kind === "bars" ? null : `number ${kind ?? ""}`, "aria-sort": sorting.by === key ? (sorting.up ? "ascending" : "descending") : null },
      element("button", { type: "button", text: title, onclick: () => sortBy(key) }))));
  const shown = sorting.all ? rows : rows.slice(0, SHOWN_LABELS);
  const body = shown.map((row) => {
    const line = element("tr", { class: [row.name === chosenLabel ? "chosen" : "", DATA.judged && !row.support ? "unsupported" : ""].join(" ").trim() || null },
      element("td", { class: "name" }, element("button", { type: "button", onclick: () => chooseLabel(row.name) }, element("bdi", { text: row.name }))));
    for (const [key, , kind] of COLUMNS) {
      const value = row[key];
      const text = DATA.judged && ["f1", "precision", "recall", "ap"].includes(key) ? percent(row.support ? value : null) : count(value ?? 0);
      if (kind === "bars") line.append(element("td", { class: "bars" }, meter(row, key, most, text)));
      else line.append(element("td", { class: `number ${kind ?? ""}`, text }));
    }
    return line;
  });
  $("label-table").replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
  $("more-labels").hidden = sorting.all || rows.length <= SHOWN_LABELS;
  $("more-labels").textContent = `Show all ${count(rows.length)} labels`;
}

function meter(row, key, most, text) {
  const bar = element("span", { class: "meter", title: text });
  const first = element("i");
  first.style.width = `${100 * (key === "f1" ? (row.support ? row.f1 : 0) : row.yes / most)}%`;
  bar.append(first);
  if (key === "f1" && row.interval) {
    const whisker = element("i", { class: "whisker" });
    whisker.style.left = `${100 * row.interval[0]}%`;
    whisker.style.width = `${100 * (row.interval[1] - row.interval[0])}%`;
    bar.append(whisker);
    bar.title = `95% between ${row.interval.map(percent).join(" and ")}`;
  }
  if (key === "yes" && row.unknown) {
    const second = element("i", { class: "second", title: `${count(row.unknown)} undecided` });
    second.style.left = first.style.width;
    second.style.width = `${(100 * row.unknown) / most}%`;
    bar.append(second);
  }
  const line = element("span", { class: "measured" }, element("span", { class: "code", text }), bar);
  return line;
}

function sortBy(key) {
  sorting.up = sorting.by === key ? !sorting.up : key === "name" || (DATA.judged && key !== "support" && key !== "yes" && key !== "unknown");
  sorting.by = key;
  drawLabels();
}

function chooseLabel(name) {
  chosenLabel = chosenLabel === name ? null : name;
  $("by-label").value = chosenLabel === null ? "" : String(DATA.labels.indexOf(chosenLabel));
  drawLabels();
  drawPlots();
  applyFilters();
}

// --- plots -----------------------------------------------------------------------------------------------------------

/** Return a color of the stylesheet as the canvas needs it. */
function color(name) {
  const probe = element("i", { hidden: true });
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function axes(x, y) {
  const line = { stroke: color("line"), width: 1 };
  const base = { stroke: color("muted"), grid: line, ticks: { ...line, size: 4 }, font: "11px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", labelSize: 18, labelGap: 2 };
  return [{ ...base, label: x, size: 28 }, { ...base, label: y, size: 46 }];
}

const UNIT = { time: false, range: [0, 1] };
const shown = (_, value) => (value === null || value === undefined ? "" : value.toFixed(3));
let plots = [];

/** Add the frame of a plot; return what draws it, once all frames have their widths. */
function plot(title, note, options, series, data) {
  const frame = element("div", { class: "frame" });
  $("plots").append(element("div", { class: "panel plot" }, element("h3", { text: title }), frame, element("p", { class: "note", text: note })));
  return () => {
    const width = Math.max(220, frame.clientWidth);
    plots.push(new uPlot({ width, height: 250, cursor: { drag: { x: false, y: false } }, padding: [8, 12, 0, 0], ...options, series }, data, frame));
  };
}

function curveSeries(label, curve, more) {
  return { label, stroke: color(more.color), width: more.width ?? 2, dash: more.dash, points: { show: more.points ?? false, size: 5 }, value: shown, spanGaps: true, scale: "y" };
}

/** Return several curves over the union of their x values, as uPlot wants them. */
function joined(curves) {
  return uPlot.join(curves.map(({ x, y }) => {
    const order = x.map((_, place) => place).sort((a, b) => x[a] - x[b] || y[b] - y[a]);
    const kept = order.filter((place, at) => at === 0 || x[place] !== x[order[at - 1]]);
    return [kept.map((place) => x[place]), kept.map((place) => y[place])];
  }));
}

function drawPlots() {
  for (const each of plots) each.destroy();
  plots = [];
  $("plots").replaceChildren();
  const draw = [];
  if (DATA.curves) draw.push(precisionRecall());
  if (DATA.reliability) draw.push(reliability());
  if (Object.keys(DATA.histogram).length) draw.push(histogram());
  const priced = (DATA.frontier?.tables ?? []).filter((each) => each.per_1000_images[DATA.frontier.unit] !== null);
  if (priced.length) draw.push(frontier(priced, DATA.frontier.unit));
  $("curves").hidden = draw.length === 0;
  for (const each of draw) each();
}

function precisionRecall() {
  const all = { x: DATA.curves.all.recall, y: DATA.curves.all.precision };
  const curves = [all];
  const series = [{ label: "recall", value: shown }, curveSeries("all labels", all, { color: "accent", points: all.x.length < 4 })];
  const own = chosenLabel === null ? null : DATA.curves.labels[chosenLabel];
  if (own) {
    curves.push({ x: own.recall, y: own.precision });
    series.push(curveSeries(chosenLabel, own, { color: "bad", dash: [6, 4], points: true }));
  }
  const note = chosenLabel === null
    ? "A label chosen in the table above has its own curve here. Curves end where no listed label is left."
    : own ? "Dashed with points: the chosen label." : `${chosenLabel} has no curve: it is not in the truth, or not in the table.`;
  return plot("Precision and recall", note, { scales: { x: UNIT, y: { range: [0, 1.02] } }, axes: axes("recall", "precision") }, series, joined(curves));
}

function reliability() {
  const found = DATA.reliability;
  const diagonal = { x: [0, 1], y: [0, 1] };
  const series = [
    { label: "probability", value: shown },
    curveSeries("as it should be", diagonal, { color: "muted", dash: [4, 4], width: 1 }),
    curveSeries("95% from", found, { color: "accent", dash: [1, 3], width: 1 }),
    curveSeries("to", found, { color: "accent", dash: [1, 3], width: 1 }),
    { ...curveSeries("share that is right", found, { color: "accent", points: true }), paths: () => null },
  ];
  const bands = ["low", "high", "y"].map((key) => ({ x: found.x, y: found[key] }));
  const note = `Points: what was found, dotted: its 95% intervals; dashed: as it should be. ${[found.said[""].slice(2), found.said[chosenLabel]].filter(Boolean).join("; ")}.`;
  return plot("Reliability of the probabilities", note, { scales: { x: UNIT, y: { range: [0, 1] } }, axes: axes("probability", "share right") }, series, joined([diagonal, ...bands]));
}

function thresholds() {
  const [low, high] = [Math.min(...DATA.thresholds), Math.max(...DATA.thresholds)];
  return low === high ? `${low}` : `${low.toFixed(2)} to ${high.toFixed(2)}, by label`;
}

function histogram() {
  const styles = { all: ["accent"], present: ["good"], absent: ["bad", [6, 3]], "not judged": ["muted", [2, 3]] };
  const width = 1 / DATA.bins;
  const x = Array.from({ length: DATA.bins + 1 }, (_, bin) => bin * width);
  const series = [{ label: "probability from", value: (_, value) => (value === null ? "" : value.toFixed(2)) }];
  const columns = [x];
  const names = { all: "labels", present: "truth says yes", absent: "truth says no", "not judged": "not judged" };
  for (const [kind, counts] of Object.entries(DATA.histogram)) {
    const [stroke, dash] = styles[kind];
    series.push({ label: names[kind], stroke: color(stroke), width: 2, dash, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }), value: (_, value) => (value === null || value === undefined ? "" : count(value)) });
    columns.push([...counts, counts[counts.length - 1]]);
  }
  return plot("Probabilities of yes", `How sure the model was about the labels it was asked about; doubts are near the threshold (${thresholds()}).${DATA.judged ? " Dashed: the truth says no." : ""}`,
    { scales: { x: UNIT, y: { range: (_, low, high) => [0, high * 1.05 || 1] } }, axes: axes("probability", "") }, series, columns);
}

/** Quality against cost; what no other table beats in both is joined, and each point has its table's name. */
function frontier(tables, unit) {
  const points = tables.map((each) => ({ x: each.per_1000_images[unit], y: each.figures.of1, best: each.frontier.includes("of1"), name: each.table.split(/[\\/]/).pop() }))
    .sort((a, b) => a.x - b.x || b.y - a.y);
  const label = unit === "price" ? "price of 1,000 images" : "GPU seconds for 1,000 images";
  const series = [
    { label, value: (_, value) => (value === null || value === undefined ? "" : value.toPrecision(3)) },
    { ...curveSeries("OF1", null, { color: "accent", points: true }), paths: () => null },
    curveSeries("on the frontier", null, { color: "accent", dash: [4, 4], width: 1 }),
  ];
  const names = (u) => {
    u.ctx.fillStyle = color("text");
    u.ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    u.ctx.textBaseline = "bottom";
    for (const { x, y, name } of points) {
      const [left, top] = [u.valToPos(x, "x", true), u.valToPos(y, "y", true) - 5 * devicePixelRatio];
      u.ctx.textAlign = left > u.bbox.left + u.bbox.width / 2 ? "right" : "left";
      u.ctx.fillText(name.slice(0, 30), left, top);
    }
  };
  const columns = [points.map((each) => each.x), points.map((each) => each.y), points.map((each) => (each.best ? each.y : null))];
  return plot("Quality and cost", "OF1 of the tables on the images that all have; the dashed line joins those that no other table beats in both.",
    { scales: { x: { time: false, range: (_, __, high) => [0, high * 1.1 || 1] }, y: { range: [0, 1.05] } }, axes: axes(label, "OF1"), hooks: { draw: [names] } }, series, columns);
}

// --- gallery ---------------------------------------------------------------------------------------------------------

const KINDS = [
  ["", "any", () => true],
  ...(DATA.judged ? [
    ["error", "any error", (each) => each.kind === "wrong" || each.kind === "missed"],
    ["wrong", "✕ wrong", (each) => each.kind === "wrong"],
    ["missed", "○ missed", (each) => each.kind === "missed"],
    ["right", "✓ right", (each) => each.kind === "right"],
    ["people", "people probably wrong", (each) => each.verdict === 0],
    ["both", "both defensible", (each) => each.verdict === 1],
  ] : [["given", "• given", (each) => each.state === YES]]),
  ["unknown", "? undecided", (each) => each.state === UNKNOWN],
  ["denied", "– denied", (each) => each.state === NO],
  ...(DATA.tables.length ? [["differs", "≠ tables differ", (each) => each.differs]] : []),
  ["human", "decided by a person", (each) => each.human === 1],
];
const WHYS = { error: "by errors", suspect: "people wrong?", disagreement: "by disagreement", doubt: "by doubt", random: "at random", rest: "all the rest", failed: "failed" };
const ORDERS = { table: "as in the table", doubt: "doubtful first", errors: "most errors first" };
let found = [];
let drawn = 0;
let current = -1;
let opened = -1;

function distance(each) {
  return each.probability === null ? 1 : Math.abs(each.probability - DATA.thresholds[each.label]);
}

function doubt(image) {
  return Math.min(1, ...image.entries.map((each) => (each.state === UNKNOWN ? 0 : distance(each))));
}

function matching(image, filter) {
  return image.entries.filter((each) =>
    (filter.label === null || each.label === filter.label) && filter.kind(each) &&
    (filter.whole || (each.probability !== null && each.probability >= filter.from && each.probability <= filter.to)));
}

function currentFilter() {
  const [from, to] = [Number($("from").value), Number($("to").value)];
  const kind = KINDS.find(([key]) => key === $("by-kind").value);
  return {
    label: $("by-label").value === "" ? null : Number($("by-label").value),
    kind: kind[2], any: kind[0] === "", why: $("by-why").value, text: $("search").value.toLowerCase(),
    from, to, whole: from <= 0 && to >= 1,
  };
}

function applyFilters() {
  const filter = currentFilter();
  const free = filter.label === null && filter.any && filter.whole;
  found = [];
  for (const image of DATA.images) {
    image.matched = free ? [] : matching(image, filter);
    if ((free || image.matched.length) && (!filter.why || image.why === filter.why) && image.name.toLowerCase().includes(filter.text)) found.push(image);
  }
  const order = $("order").value;
  if (order === "doubt") found.sort((a, b) => doubt(a) - doubt(b));
  if (order === "errors") found.sort((a, b) => errors(b) - errors(a));
  $("found").textContent = `${count(found.length)} of ${count(DATA.images.length)} images`;
  drawn = 0;
  current = -1;
  $("cards").replaceChildren();
  if (!found.length) $("cards").append(element("p", { class: "empty", text: "No image matches. Clear the filters to see all." }));
  drawMore();
}

function errors(image) {
  return image.entries.filter((each) => each.kind === "wrong" || each.kind === "missed").length;
}

function drawMore() {
  const until = Math.min(found.length, drawn + PAGE);
  const made = found.slice(drawn, until).map((image, place) => card(image, drawn + place));
  drawn = until;
  $("cards").append(...made);
}

function picture(image) {
  const alt = image.entries.filter((each) => each.state === YES).map((each) => each.name).join(", ");
  const inside = image.picture ? element("img", { src: image.picture, alt: alt || "no labels", loading: "lazy", decoding: "async", width: image.shown[0], height: image.shown[1] })
    : element("p", { text: `no picture: ${image.reason}` });
  return element("div", { class: "picture" }, inside);
}

function chip(each, matched) {
  const [mark, meaning] = MARKS[each.kind];
  const doubtful = distance(each) < 0.15;
  const title = `${meaning}${each.differs ? "; another table differs" : ""}${each.human ? "; decided by a person" : ""}`;
  return element("span", { class: `chip ${each.kind}${doubtful ? " doubtful" : ""}${matched.includes(each) ? " matches" : ""}`, title },
    element("b", { text: mark + (each.differs ? "≠" : "") }), element("bdi", { text: each.name }),
    each.probability === null ? null : element("small", { text: each.probability.toFixed(2) }));
}

function card(image, place) {
  const listed = image.entries.filter((each) => each.kind !== "denied" || each.differs || image.matched.includes(each));
  return element("article", { class: "card", tabindex: "0", "data-place": place, onclick: () => open(place), onfocus: () => mark(place) },
    picture(image),
    element("div", { class: "text" },
      element("div", { class: "head" }, element("bdi", { text: image.name, title: image.name }), element("span", { text: WHYS[image.why] })),
      element("div", { class: "chips" }, ...listed.map((each) => chip(each, image.matched)),
        listed.length ? null : element("span", { class: "nothing", text: nothing(image) }))));
}

function nothing(image) {
  if (image.status !== "failed" && image.status !== "pending") return "no labels";
  return image.error ? `${image.status}: ${image.error}` : image.status;
}

function mark(place) {
  document.querySelector(".card.current")?.classList.remove("current");
  current = place;
  $("cards").children[place]?.classList.add("current");
}

function go(step) {
  const next = Math.max(0, Math.min(found.length - 1, current + step));
  if (!found.length) return;
  while (next >= drawn) drawMore();
  mark(next);
  if ($("details").open) open(next);
  else {
    $("cards").children[next].focus({ preventScroll: true });
    $("cards").children[next].scrollIntoView({ block: "center" });
  }
}

function facts(image) {
  const lines = [["status", image.status], ["chosen", WHYS[image.why]]];
  if (image.size[0]) lines.push(["size", `${count(image.size[0])} × ${count(image.size[1])} pixels`]);
  if (image.error) lines.push(["error", image.error]);
  if (image.unmatched.length) lines.push(["outside the vocabulary", image.unmatched.join(", ")]);
  if (DATA.judged && !image.judged) lines.push(["truth", "does not have this image"]);
  return element("dl", { class: "facts" }, ...lines.flatMap(([name, text]) => [element("dt", { text: name }), element("dd", { text })]));
}

function named(bits, names) {
  return names.filter((_, bit) => Math.floor(bits / 2 ** bit) % 2).join(", ");
}

function detailRow(each) {
  const [sign, meaning] = MARKS[each.kind];
  const concept = DATA.concepts[each.name];
  const said = { [NO]: "no", [YES]: "yes", [UNKNOWN]: "undecided", [NOT_LISTED]: "not proposed" }[each.state];
  const wording = concept ? [concept.description, concept.similar.length ? `not ${concept.similar.join(", ")}` : ""].filter(Boolean).join("; ") : "";
  const line = element("tr", { class: wording ? "explained" : null },
    element("td", {}, element("span", { class: `chip ${each.kind}`, title: meaning }, element("b", { text: sign }), element("bdi", { text: each.name }))),
    element("td", { text: said + (each.human ? " (a person)" : "") }),
    element("td", { class: "number", text: each.probability === null ? "–" : each.probability.toFixed(3) }),
    DATA.judged ? element("td", { text: each.truth === 1 ? "yes" : each.truth === 0 ? "no" : "–" }) : null,
    DATA.judged ? element("td", { text: VERDICTS[each.verdict] ?? "" }) : null,
    DATA.arms.length ? element("td", { text: named(each.arms, DATA.arms) || "–" }) : null,
    DATA.tables.length ? element("td", { text: named(each.others, DATA.tables) || "–" }) : null);
  return wording ? [line, element("tr", {}, element("td", { colspan: line.children.length, class: "concept", text: wording }))] : [line];
}

function open(place) {
  const image = found[place];
  opened = place;
  mark(place);
  const columns = ["label", "here", "probability", DATA.judged && "truth", DATA.judged && "who is wrong", DATA.arms.length && "proposed by", DATA.tables.length && "also in"].filter(Boolean);
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...columns.map((text) => element("th", { text, class: text === "probability" ? "number" : null })))),
    element("tbody", {}, ...image.entries.flatMap(detailRow)));
  $("details").replaceChildren(
    element("div", { class: "top" }, element("bdi", { text: image.name }),
      element("button", { type: "button", text: "‹", title: "Previous (k)", onclick: () => go(-1) }),
      element("button", { type: "button", text: "›", title: "Next (j)", onclick: () => go(1) }),
      element("button", { type: "button", text: "Close", onclick: () => $("details").close() })),
    element("div", { class: "body" }, element("div", {}, picture(image), facts(image)), element("div", { class: "scroll" }, image.entries.length ? table : element("p", { class: "muted", text: "no labels" }))));
  if (!$("details").open) $("details").showModal();
  $("details").focus();
}

document.addEventListener("keydown", (event) => {
  if (isTyping(event)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const keys = {
    j: () => go(1), ArrowRight: () => go(1), k: () => go(-1), ArrowLeft: () => go(-1),
    Enter: () => current >= 0 && !$("details").open && document.activeElement.matches(".card, body") && open(current),
    e: () => { $("by-kind").selectedIndex = ($("by-kind").selectedIndex + 1) % KINDS.length; applyFilters(); },
    "/": () => { event.preventDefault(); $("search").focus(); },
  };
  if (keys[event.key]) keys[event.key]();
});

// --- start -----------------------------------------------------------------------------------------------------------

$("labels-note").textContent = DATA.judged
  ? "The lowest F1 first, with its 95% interval. A label shows its curve and its images when it is chosen; columns sort."
  : "How often each label was given; hatched: undecided. A label shows its images when it is chosen; columns sort.";
$("more-labels").addEventListener("click", () => { sorting.all = true; drawLabels(); });
$("details").addEventListener("click", (event) => { if (event.target === $("details")) $("details").close(); });
// A browser gives the focus back to the card that was opened first.
$("details").addEventListener("close", () => $("cards").children[opened]?.focus());
fill($("by-label"), [["", "any"], ...DATA.labels.map((name, place) => [String(place), name]).sort((a, b) => a[1].localeCompare(b[1]))]);
fill($("by-kind"), KINDS.map(([key, text]) => [key, text]));
fill($("by-why"), [["", "any"], ...Object.entries(WHYS).filter(([why]) => DATA.images.some((image) => image.why === why))]);
fill($("order"), Object.entries(ORDERS));
for (const id of ["by-kind", "by-why", "from", "to", "order", "search"]) $(id).addEventListener("input", applyFilters);
$("by-label").addEventListener("input", () => {
  const place = $("by-label").value;
  chosenLabel = place === "" ? null : DATA.labels[Number(place)];
  drawLabels();
  drawPlots();
  applyFilters();
});
$("clear").addEventListener("click", () => {
  for (const id of ["by-label", "by-kind", "by-why", "search"]) $(id).value = "";
  [$("from").value, $("to").value, $("order").value] = ["0", "1", "table"];
  chosenLabel = null;
  drawLabels();
  drawPlots();
  applyFilters();
});
if ($("concept-list")) {
  $("concept-list").append(...Object.entries(DATA.concepts).flatMap(([name, concept]) => [
    element("dt", {}, element("bdi", { text: name })),
    element("dd", { text: concept.description + (concept.similar.length ? ` (not ${concept.similar.join(", ")})` : "") })]));
}
new IntersectionObserver((seen) => { if (seen.some((each) => each.isIntersecting)) drawMore(); }, { rootMargin: "800px" }).observe($("end"));
document.addEventListener("themechange", drawPlots);
let resized = null;
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(() => { widenTables(); drawPlots(); }, 150); });
widenTables();
drawLabels();
drawPlots();
applyFilters();
