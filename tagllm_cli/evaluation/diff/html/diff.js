"use strict";

const DATA = pageData();
const SHOWN_LABELS = 40;
const KINDS = ["added", "removed", "undecided", "decided"];
const WORDS = { added: "added", removed: "removed", undecided: "now unknown", decided: "no longer unknown" };
const SIGNS = { added: "+", removed: "−", undecided: "?", decided: "!" };

/** An image's flip as an object: see `page.py` for the list that it is in the data. */
function flip([label, kind, states, probabilities, cause]) {
  return { label, kind: KINDS[kind], states, probabilities, cause };
}

for (const image of DATA.images) image.flips = image.flips.map(flip);

// --- labels ----------------------------------------------------------------------------------------------------------

const COLUMNS = [["changed", "changed"], ["share", "share"], ["added", "added", "wide"], ["removed", "removed", "wide"], ["undecided", "now unknown", "wide"], ["decided", "no longer unknown", "wide"], ["mean_move", "mean move", "wide"]];
const sorting = { by: "changed", up: false, all: false };

function cell(row, key) {
  const value = row[key];
  if (value === null) return "–";
  return key === "share" || key === "mean_move" ? value.toFixed(3) : count(value);
}

function why(row) {
  const causes = Object.entries(row.causes).sort((a, b) => b[1] - a[1]);
  if (row.in_added_images) causes.push(["image added", row.in_added_images]);
  if (row.in_removed_images) causes.push(["image removed", row.in_removed_images]);
  return causes.map(([cause, found]) => `${cause} ${count(found)}`).join(", ");
}

function drawLabels() {
  const key = (row) => (sorting.by === "name" ? row.name : row[sorting.by] ?? -1);
  const rows = [...DATA.rows].sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (sorting.up ? 1 : -1));
  const sorted = (name) => (sorting.by === name ? (sorting.up ? "ascending" : "descending") : null);
  const title = ([name, text, kind]) => element("th", { class: name === "name" ? null : `number ${kind ?? ""}`, "aria-sort": sorted(name) },
    element("button", { type: "button", text, onclick: () => sortBy(name) }));
  const head = element("tr", {}, ...[["name", "label"], ...COLUMNS].map(title), element("th", { text: "causes" }));
  const chosen = $("by-label").value;
  const body = rows.slice(0, sorting.all ? rows.length : SHOWN_LABELS).map((row) => element("tr", { class: String(row.label) === chosen ? "chosen" : null },
    element("td", { class: "name" }, element("button", { type: "button", onclick: () => chooseLabel(row.label) }, element("bdi", { text: row.name }))),
    ...COLUMNS.map(([name, , kind]) => element("td", { class: `number ${kind ?? ""}`, text: cell(row, name) })),
    element("td", { class: "why", text: why(row) })));
  $("label-table").replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
  $("more-labels").hidden = sorting.all || rows.length <= SHOWN_LABELS;
  $("more-labels").textContent = `Show all ${count(rows.length)} labels`;
}

function sortBy(key) {
  sorting.up = sorting.by === key ? !sorting.up : key === "name";
  sorting.by = key;
  drawLabels();
}

function chooseLabel(label) {
  $("by-label").value = $("by-label").value === String(label) ? "" : String(label);
  applyFilters();
}

// --- cards -----------------------------------------------------------------------------------------------------------

let found = [];
let drawn = 0;
let matches = () => true;

function applyFilters() {
  const [label, kind, cause] = ["by-label", "by-kind", "by-cause"].map((id) => $(id).value);
  const text = $("search").value.toLowerCase();
  matches = (each) => (label === "" || String(each.label) === label) && (kind === "" || each.kind === kind) && (cause === "" || String(each.cause) === cause);
  found = DATA.images.filter((image) => image.flips.some(matches) && `${image.name}\n${image.earlier}`.toLowerCase().includes(text));
  $("found").textContent = `${count(found.length)} of ${count(DATA.images.length)} images`;
  drawn = 0;
  $("cards").replaceChildren();
  if (!found.length) {
    const said = DATA.images.length ? "No image matches. Clear the filters to see all." : "No label differs.";
    $("cards").append(element("p", { class: "empty", text: said }));
  }
  drawMore();
  drawLabels();
}

function drawMore() {
  const until = Math.min(found.length, drawn + PAGE);
  $("cards").append(...found.slice(drawn, until).map(card));
  drawn = until;
}

function picture(image) {
  const alt = image.flips.map((each) => `${DATA.labels[each.label]} ${WORDS[each.kind]}`).join(", ");
  const inside = image.picture ? element("img", { src: image.picture, alt, loading: "lazy", decoding: "async", width: image.shown[0], height: image.shown[1] })
    : element("p", { text: `no picture: ${image.reason}` });
  return element("div", { class: "picture" }, inside);
}

function said(each, side) {
  const probability = each.probabilities[side];
  return DATA.states[each.states[side]] + (probability === null ? "" : ` ${probability.toFixed(2)}`);
}

function line(each) {
  const cause = DATA.causes[each.cause];
  return element("li", { class: `flip ${each.kind}${matches(each) ? "" : " apart"}` },
    element("b", {}, `${SIGNS[each.kind]} `, element("bdi", { text: DATA.labels[each.label] })), " ",
    element("span", { text: `${said(each, 0)} → ${said(each, 1)}` }),
    element("small", { text: cause[0], title: cause[1] }));
}

function card(image) {
  const notes = [];
  if (image.earlier) notes.push(element("div", { class: "kept" }, "was ", element("bdi", { text: image.earlier })));
  for (const [name, error] of [["A", image.errors[0]], ["B", image.errors[1]]]) {
    if (error) notes.push(element("div", { class: "kept", text: `${name}: ${error}` }));
  }
  if (image.kept.length) notes.push(element("div", { class: "kept", text: `both say ${image.kept.map((label) => DATA.labels[label]).join(", ")}` }));
  return element("article", { class: "card", tabindex: "0" }, picture(image),
    element("div", { class: "text" },
      element("div", { class: "head" }, element("bdi", { text: image.name, title: image.name })),
      element("ul", { class: "flips" }, ...image.flips.map(line)), ...notes));
}

// --- start -----------------------------------------------------------------------------------------------------------

const present = (key) => [...new Set(DATA.images.flatMap((image) => image.flips.map((each) => each[key])))];
fill($("by-label"), [["", "any"], ...present("label").map((label) => [String(label), DATA.labels[label]]).sort((a, b) => a[1].localeCompare(b[1]))]);
fill($("by-kind"), [["", "any"], ...KINDS.filter((kind) => present("kind").includes(kind)).map((kind) => [kind, WORDS[kind]])]);
fill($("by-cause"), [["", "any"], ...present("cause").sort((a, b) => a - b).map((cause) => [String(cause), DATA.causes[cause][0]])]);
for (const id of ["by-label", "by-kind", "by-cause", "search"]) $(id).addEventListener("input", applyFilters);
$("clear").addEventListener("click", () => {
  for (const id of ["by-label", "by-kind", "by-cause", "search"]) $(id).value = "";
  applyFilters();
});
$("more-labels").addEventListener("click", () => { sorting.all = true; drawLabels(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !isTyping(event)) {
    event.preventDefault();
    $("search").focus();
  } else if (event.key === "Escape" && isTyping(event)) event.target.blur();
});
new IntersectionObserver((seen) => { if (seen.some((each) => each.isIntersecting)) drawMore(); }, { rootMargin: "800px" }).observe($("end"));
addEventListener("resize", widenTables);
widenTables();
applyFilters();
