"use strict";

// Draws a figure once, when it is first shown. Its colours are CSS variables, so that it follows the scheme of the page.
const specs = JSON.parse(document.getElementById("figures").textContent);
const options = {
  renderer: "svg",
  actions: { export: true, source: false, compiled: false, editor: false },
  downloadFileName: "figure",
};

async function draw(figure) {
  const chart = figure.querySelector(".chart");
  if (figure.dataset.drawn || !chart.checkVisibility()) return;
  figure.dataset.drawn = "yes";
  await vegaEmbed(chart, specs[figure.dataset.name], { ...options, downloadFileName: figure.dataset.name });
  const menu = chart.querySelector("details > summary");
  if (menu) menu.setAttribute("aria-label", "save this figure");
}

async function drawShown() {
  for (const figure of document.querySelectorAll("figure[data-name]")) await draw(figure);
}

// One figure of a kind at a time, where there are many.
for (const select of document.querySelectorAll("select[data-kind]")) {
  select.addEventListener("change", () => {
    for (const figure of document.querySelectorAll(`#${select.dataset.kind} figure`)) {
      figure.hidden = figure.dataset.name !== select.value;
    }
    drawShown();
  });
}
for (const folded of document.querySelectorAll("details.kind")) folded.addEventListener("toggle", drawShown);

// Tables: a click on a head sorts, a second one the other way round; the filter keeps rows with every word.
function valueOf(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  const number = Number(text);
  return text === "" ? null : Number.isNaN(number) ? text : number;
}

function compare(left, right) {
  if (left === null || right === null) return (left === null) - (right === null);
  if (typeof left === "number" && typeof right === "number") return left - right;
  return String(left).localeCompare(String(right), undefined, { numeric: true });
}

function sort(table, head) {
  const descending = head.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const column = head.cellIndex;
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: valueOf(row, column) }));
  const known = rows.filter(({ value }) => value !== null);
  known.sort((left, right) => compare(left.value, right.value) * (descending ? -1 : 1));
  table.tBodies[0].append(...known.map(({ row }) => row), ...rows.filter(({ value }) => value === null).map(({ row }) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const button of table.querySelectorAll("th button")) {
    button.addEventListener("click", () => sort(table, button.closest("th")));
  }
}
for (const input of document.querySelectorAll("input[data-table]")) {
  const table = document.getElementById(input.dataset.table);
  const counter = document.getElementById(`${input.dataset.table}-count`);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    counter.textContent = `${shown} of ${table.tBodies[0].rows.length}`;
  });
}

drawShown().then(() => (document.documentElement.dataset.drawn = "yes"));
