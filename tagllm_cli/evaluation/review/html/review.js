"use strict";

(function review() {
  const data = pageData();
  const byId = (id) => document.getElementById(id);
  const kept = `tagllm-review-${data.id}`;
  const words = ["yes", "no", "unknown"];
  const marks = { yes: "yes", no: "no", unknown: "?" };
  const [ID, IMAGE, LABEL, OWN, SECOND, PEOPLE] = [0, 1, 2, 3, 4, 5];
  const pairs = data.pairs;
  const ofImage = grouped(IMAGE);
  const ofLabel = grouped(LABEL);
  let state = read();
  let who = (recalled("tagllm-who") || "").trim();
  let isHidden = recalled(`${kept}-hidden`) === null ? data.blind : recalled(`${kept}-hidden`) === "yes";
  let isTogether = recalled("tagllm-review-together") === "yes";
  let at = Math.max(0, nextOpen(-1));
  const undone = [];
  let isLost = false; // when the page is closed: nothing keeps what was decided since it was saved

  function grouped(field) {
    const found = new Map();
    pairs.forEach((pair, place) => {
      if (!found.has(pair[field])) found.set(pair[field], []);
      found.get(pair[field]).push(place);
    });
    return found;
  }

  /** Return what the browser keeps: decisions by pair as [word, when, who], and the pairs that are in a saved file. */
  function read() {
    const known = new Set(pairs.map((pair) => pair[ID]));
    const isAnswer = ([id, value]) =>
      known.has(id) && Array.isArray(value) && [...words, "withdrawn"].includes(value[0]) && !Number.isNaN(Date.parse(value[1]));
    try {
      const found = JSON.parse(recalled(kept) || "{}");
      const answers = Object.fromEntries(Object.entries(found.answers || {}).filter(isAnswer));
      return { answers, saved: Object.fromEntries(Object.entries(found.saved || {}).filter(([id]) => known.has(id))) };
    } catch {
      return { answers: {}, saved: {} };
    }
  }

  function keep() {
    const text = JSON.stringify(state);
    remember(kept, text);
    isLost = recalled(kept) !== text;
    if (isLost) say("This browser keeps nothing: save the decisions before you close the page.");
  }

  function say(text) {
    byId("said").textContent = text;
  }

  /** Return now, or later than what was said of a pair before: a clock may have been set back. */
  function now(place) {
    const before = state.answers[pairs[place][ID]];
    return new Date(Math.max(Date.now(), before ? Date.parse(before[1]) + 1 : 0)).toISOString();
  }

  function decided(place) {
    const found = state.answers[pairs[place][ID]];
    return found && found[0] !== "withdrawn" ? found[0] : "";
  }

  function nextOpen(from) {
    for (let step = 1; step <= pairs.length; step += 1) {
      const place = (from + step + pairs.length) % pairs.length;
      if (!decided(place)) return place;
    }
    return -1;
  }

  /** Return where to go from a pair that was just decided: with `isTogether`, first to the other labels of its image. */
  function following(place) {
    const own = isTogether ? ofImage.get(pairs[place][IMAGE]).filter((each) => !decided(each)) : [];
    if (!own.length) return nextOpen(place);
    return own.find((each) => each > place) ?? own[0];
  }

  function nextImage() {
    const other = (place) => pairs[place][IMAGE] !== pairs[at][IMAGE];
    const later = [...pairs.keys()].map((step) => (at + 1 + step) % pairs.length).filter(other);
    return later.find((place) => !decided(place)) ?? later[0] ?? at;
  }

  function show() {
    const [, imageAt, labelAt] = pairs[at];
    const label = data.labels[labelAt];
    showPicture(data.images[imageAt], imageAt);
    byId("label").textContent = label.name;
    byId("card").hidden = !label.card;
    byId("card").textContent = label.card ? `Here it means ${label.card}.` : "";
    byId("similar").hidden = !label.similar.length;
    byId("similar").textContent = label.similar.length ? `Not to be confused with: ${label.similar.join(", ")}` : "";
    byId("place").textContent = `Pair ${at + 1} of ${pairs.length}`;
    for (const button of document.querySelectorAll(".answers [data-answer]")) {
      button.setAttribute("aria-pressed", String(decided(at) === button.dataset.answer));
    }
    showOpinions();
    showLabels();
    showProgress();
    byId("undo").disabled = !undone.length;
    byId("back").disabled = at === 0;
    byId("forward").disabled = at === pairs.length - 1;
    byId("image-next").disabled = ofImage.size < 2;
    byId("ask").hidden = Boolean(who);
    byId("personName").textContent = who || "name";
  }

  function showPicture(image, imageAt) {
    const picture = byId("image");
    byId("frame").hidden = !image.src;
    byId("missing").hidden = Boolean(image.src);
    byId("missing").textContent = image.src ? "" : `No picture: ${image.reason}`;
    byId("name").textContent = image.name;
    if (picture.dataset.at === String(imageAt)) return;
    picture.dataset.at = String(imageAt);
    magnify(false);
    picture.alt = `Image ${image.name}`;
    if (!image.src) return;
    picture.width = image.width;
    picture.height = image.height;
    picture.src = image.src;
  }

  function magnify(on, x = 0.5, y = 0.5) {
    const figure = byId("frame").parentElement;
    figure.classList.toggle("zoomed", on);
    if (!on) return;
    const frame = byId("frame");
    frame.scrollLeft = x * frame.scrollWidth - frame.clientWidth / 2;
    frame.scrollTop = y * frame.scrollHeight - frame.clientHeight / 2;
  }

  function isMagnified() {
    return byId("frame").parentElement.classList.contains("zoomed");
  }

  /** Return in words what a table says of a pair. */
  function spoken([said, probability, arms, human], threshold) {
    const plain = ["no", "yes", "undecided", "not listed: no", "knows nothing of it"][said];
    if (human) return `${plain}, decided by a person`;
    const proposed = data.candidates && said === 1 ? "proposed" : plain;
    const sure = probability === null ? "" : `, probability ${probability.toFixed(2)}`;
    const limit = probability === null || threshold === null ? "" : ` (yes above ${threshold.toFixed(2)})`;
    const by = arms.length ? `, proposed by ${arms.map((arm) => data.arms[arm]).join(" and ")}` : "";
    return `${proposed}${sure}${limit}${by}`;
  }

  function showOpinions() {
    const pair = pairs[at];
    const lines = [["This table", spoken(pair[OWN], data.labels[pair[LABEL]].threshold)]];
    if (pair[SECOND]) lines.push([data.second, spoken(pair[SECOND], null)]);
    if (pair[PEOPLE]) lines.push(["People (the truth)", pair[PEOPLE]]);
    const list = byId("answers-given");
    list.hidden = isHidden;
    list.replaceChildren(
      ...(isHidden ? [] : lines.flatMap(([from, text]) => [element("dt", { text: from }), element("dd", { text })])),
    );
    byId("hide").setAttribute("aria-expanded", String(!isHidden));
    byId("hide-word").textContent = isHidden ? "show" : "hide";
  }

  function showLabels() {
    const places = ofImage.get(pairs[at][IMAGE]);
    byId("of-image").hidden = places.length < 2 && !isTogether;
    byId("together").setAttribute("aria-pressed", String(isTogether));
    byId("labels").classList.toggle("together", isTogether);
    // The same button keeps the focus.
    const focused = [...byId("labels").querySelectorAll("button")].indexOf(document.activeElement);
    byId("labels").replaceChildren(...places.map(labelRow));
    if (focused >= 0) byId("labels").querySelectorAll("button")[focused]?.focus();
  }

  function labelRow(place) {
    const [, , labelAt] = pairs[place];
    const name = data.labels[labelAt].name;
    const word = decided(place);
    const go = element("button", { type: "button", "aria-current": place === at ? "true" : null, onclick: () => move(place) });
    go.append(`${name} `, element("span", { text: marks[word] || "·", "aria-hidden": "true" }));
    go.append(element("span", { class: "hidden", text: word || "open" }));
    const buttons = words.map((each) =>
      element("button", {
        type: "button",
        text: marks[each],
        "aria-label": `${name}: ${each}`,
        "aria-pressed": String(word === each),
        onclick: () => answer(each, place),
      }),
    );
    const row = element("li", { class: word }, go, ...(isTogether ? buttons : []));
    row.classList.toggle("at", place === at);
    return row;
  }

  function showProgress() {
    const done = pairs.filter((_, place) => decided(place)).length;
    byId("done").textContent = String(done);
    byId("track").style.setProperty("width", `${(100 * done) / pairs.length}%`);
    byId("open").disabled = done === pairs.length;
    for (const row of byId("by-label").rows) {
      const places = ofLabel.get(Number(row.dataset.label));
      row.cells[1].textContent = String(places.filter(decided).length);
    }
  }

  function listProgress() {
    const rows = [...ofLabel].map(([labelAt, places]) => {
      const go = () => move(places.find((place) => !decided(place)) ?? places[0]);
      const button = element("button", { type: "button", text: data.labels[labelAt].name, onclick: go });
      const cells = ["0", String(places.length)].map((text) => element("td", { class: "number", text }));
      return element("tr", { "data-label": String(labelAt) }, element("td", {}, button), ...cells);
    });
    byId("by-label").replaceChildren(...rows);
  }

  function set(place, value) {
    const id = pairs[place][ID];
    if (value) state.answers[id] = value;
    else delete state.answers[id];
  }

  function answer(word, place = at) {
    if (!who) {
      say("Enter your name first.");
      byId("who").focus();
      return;
    }
    undone.push([place, state.answers[pairs[place][ID]]]);
    set(place, [word, now(place), who]);
    say("");
    keep();
    const open = following(place);
    if (open < 0) say("All pairs are decided: save the decisions, then: tagllm import.");
    else at = open;
    show();
  }

  /** Take a decision back; one that is in a saved file is withdrawn by the next one. */
  function takeBack() {
    if (!decided(at)) return;
    const id = pairs[at][ID];
    undone.push([at, state.answers[id]]);
    set(at, state.saved[id] ? ["withdrawn", now(at), who] : null);
    keep();
    show();
  }

  function undo() {
    if (!undone.length) return;
    const [place, before] = undone.pop();
    const isSaved = state.saved[pairs[place][ID]];
    // What an import took over counts until something later is said.
    if (before) set(place, isSaved ? [before[0], now(place), before[2]] : before);
    else set(place, isSaved ? ["withdrawn", now(place), who] : null);
    at = place;
    say("");
    keep();
    show();
  }

  function move(to) {
    if (to < 0 || to >= pairs.length) return;
    at = to;
    show();
  }

  function moveInImage(step) {
    const places = ofImage.get(pairs[at][IMAGE]);
    move(places[places.indexOf(at) + step] ?? at);
  }

  function save() {
    const given = pairs.filter((pair) => state.answers[pair[ID]]);
    if (!given.length) {
      say("Nothing is decided yet.");
      return;
    }
    const about = { tagllm_review: data.version, page: data.id, table: data.table, tool: data.tool };
    const lines = [{ ...about, pairs: pairs.length, decisions: given.length, saved: new Date().toISOString() }];
    for (const [id, imageAt, labelAt] of given) {
      const [decision, when, by] = state.answers[id];
      const image = data.images[imageAt];
      const label = data.labels[labelAt].name;
      lines.push({ pair: id, image: image.name, label, decision, who: by, when, fingerprint: image.fingerprint });
      state.saved[id] = 1;
    }
    saveFile("decisions.jsonl", `${lines.map((line) => JSON.stringify(line)).join("\n")}\n`, "application/x-ndjson");
    keep();
    isLost = false;
    say(`Saved ${given.length} decisions: tagllm import takes the file.`);
  }

  function toggleHidden() {
    isHidden = !isHidden;
    remember(`${kept}-hidden`, isHidden ? "yes" : "no");
    show();
  }

  function toggleTogether() {
    isTogether = !isTogether;
    remember("tagllm-review-together", isTogether ? "yes" : "no");
    show();
  }

  const keys = {
    y: () => answer("yes"),
    n: () => answer("no"),
    u: () => answer("unknown"),
    z: undo,
    x: takeBack,
    s: () => move(at + 1),
    j: () => move(nextOpen(at)),
    g: () => move(nextImage()),
    h: toggleHidden,
    a: toggleTogether,
    m: () => magnify(!isMagnified()),
    d: save,
    ArrowLeft: () => move(at - 1),
    ArrowRight: () => move(at + 1),
    ArrowUp: () => moveInImage(-1),
    ArrowDown: () => moveInImage(1),
  };
  listenForKeys(keys);
  for (const button of document.querySelectorAll(".answers [data-answer]")) {
    button.addEventListener("click", () => answer(button.dataset.answer));
  }
  const clicked = { back: "ArrowLeft", forward: "ArrowRight", undo: "z", open: "j", "image-next": "g", hide: "h", together: "a", download: "d" };
  for (const [id, key] of Object.entries(clicked)) byId(id).addEventListener("click", keys[key]);
  byId("image").addEventListener("click", (event) => {
    const box = event.target.getBoundingClientRect();
    magnify(!isMagnified(), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  });
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    who = byId("who").value.trim();
    remember("tagllm-who", who);
    byId("who").blur();
    say("");
    show();
  });
  byId("person").addEventListener("click", () => {
    byId("who").value = who;
    byId("ask").hidden = false;
    byId("who").focus();
  });
  addEventListener("beforeunload", (event) => {
    if (isLost) event.preventDefault();
  });
  // The same page in another window.
  addEventListener("storage", (event) => {
    if (event.key === kept) {
      state = read();
      show();
    }
  });
  listProgress();
  show();
})();
