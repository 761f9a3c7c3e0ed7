"use strict";

/** Return a cell that no spreadsheet takes for a formula, in quotes. */
function cell(text) {
  const safe = /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}

/** Offer a file with this text to be saved. */
function saveFile(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** Call the function of a key that is pressed: letters in any case, and names such as `ArrowLeft`. */
function listenForKeys(keys) {
  document.addEventListener("keydown", (event) => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (isTyping(event) || event.repeat || !keys[key]) return;
    event.preventDefault();
    keys[key]();
  });
}
