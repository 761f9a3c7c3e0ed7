"use strict";

(function audit() {
  const data = pageData();
  const byId = (id) => document.getElementById(id);
  const kept = `tagllm-audit-${data.id}`;
  const words = ["yes", "no", "unsure"];
  let answers = read();
  let at = Math.max(0, nextOpen(-1));
  const undone = [];

  function read() {
    try {
      const found = JSON.parse(recalled(kept) || "{}");
      const known = new Set(data.pairs.map(([id]) => id));
      return Object.fromEntries(Object.entries(found).filter(([id, word]) => known.has(id) && words.includes(word)));
    } catch {
      return {};
    }
  }

  function keep() {
    const text = JSON.stringify(answers);
    remember(kept, text);
    if (recalled(kept) !== text) say("This browser keeps nothing: save answers.csv before you close the page.");
  }

  function say(text) {
    byId("said").textContent = text;
  }

  function nextOpen(from) {
    for (let step = 1; step <= data.pairs.length; step += 1) {
      const place = (from + step + data.pairs.length) % data.pairs.length;
      if (!answers[data.pairs[place][0]]) return place;
    }
    return -1;
  }

  function show() {
    const [id, imageAt, labelAt] = data.pairs[at];
    const image = data.images[imageAt];
    const label = data.labels[labelAt];
    const picture = byId("image");
    picture.hidden = !image.src;
    byId("missing").hidden = Boolean(image.src);
    byId("missing").textContent = image.src ? "" : `No picture: ${image.reason}`;
    if (image.src && picture.dataset.at !== String(imageAt)) {
      picture.dataset.at = String(imageAt);
      picture.width = image.width;
      picture.height = image.height;
      picture.src = image.src;
    }
    byId("name").textContent = image.name;
    byId("label").textContent = label.name;
    byId("card").hidden = !label.card;
    byId("card").textContent = label.card ? `Here it means ${label.card}.` : "";
    byId("similar").hidden = !label.similar.length;
    byId("similar").textContent = label.similar.length ? `Not to be confused with: ${label.similar.join(", ")}` : "";
    byId("place").textContent = `Pair ${at + 1} of ${data.pairs.length}`;
    for (const button of document.querySelectorAll("[data-answer]")) {
      button.setAttribute("aria-pressed", String(answers[id] === button.dataset.answer));
    }
    const done = Object.keys(answers).length;
    byId("done").textContent = String(done);
    byId("track").style.setProperty("width", `${(100 * done) / data.pairs.length}%`);
    byId("undo").disabled = !undone.length;
    byId("open").disabled = done === data.pairs.length;
    byId("back").disabled = at === 0;
    byId("forward").disabled = at === data.pairs.length - 1;
  }

  function answer(word) {
    const [id] = data.pairs[at];
    undone.push([at, answers[id]]);
    answers[id] = word;
    say("");
    keep();
    const open = nextOpen(at);
    if (open < 0) say("All pairs are answered: save answers.csv and put it beside audit.json.");
    else at = open;
    show();
  }

  function undo() {
    if (!undone.length) return;
    const [place, before] = undone.pop();
    const [id] = data.pairs[place];
    if (before) answers[id] = before;
    else delete answers[id];
    at = place;
    say("");
    keep();
    show();
  }

  function move(to) {
    if (to < 0 || to >= data.pairs.length) return;
    at = to;
    show();
  }

  function save() {
    const lines = [["pair", "image", "label", "answer"]];
    for (const [id, image, label] of data.pairs) {
      lines.push([id, data.images[image].name, data.labels[label].name, answers[id] || ""]);
    }
    const text = `\ufeff${lines.map((cells) => cells.map(cell).join(",")).join("\n")}\n`;
    saveFile("answers.csv", text, "text/csv");
    say("Saved: put answers.csv beside audit.json.");
  }

  const keys = {
    y: () => answer("yes"),
    n: () => answer("no"),
    u: () => answer("unsure"),
    z: undo,
    j: () => move(nextOpen(at)),
    ArrowLeft: () => move(at - 1),
    ArrowRight: () => move(at + 1),
  };

  listenForKeys(keys);
  for (const button of document.querySelectorAll("[data-answer]")) {
    button.addEventListener("click", () => answer(button.dataset.answer));
  }
  byId("back").addEventListener("click", keys.ArrowLeft);
  byId("forward").addEventListener("click", keys.ArrowRight);
  byId("undo").addEventListener("click", undo);
  byId("open").addEventListener("click", keys.j);
  byId("download").addEventListener("click", save);
  // The same audit in another window.
  addEventListener("storage", (event) => {
    if (event.key === kept) {
      answers = read();
      show();
    }
  });
  show();
})();
