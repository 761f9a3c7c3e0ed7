"use strict";

// What pages with cards of images share.

const PAGE = 60; // cards that are added when the end comes into view
const $ = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en-US");

/** Put options, as [value, text], into a select. */
function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => element("option", { value, text })));
}

/** Give the page's whole width to tables whose lines would break in half of it; fonts differ, so they are measured. */
function widenTables() {
  const panels = [...document.querySelectorAll(".tables > .panel")];
  for (const panel of panels) panel.classList.remove("whole");
  const wide = panels.filter((panel) => {
    const frame = panel.querySelector(".scroll"), table = frame.firstElementChild;
    table.style.width = "max-content";
    const isWide = table.offsetWidth > frame.clientWidth;
    table.style.width = "";
    return isWide;
  });
  for (const panel of wide) panel.classList.add("whole");
}
