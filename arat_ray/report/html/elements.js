"use strict";
// Everything foreign comes from the packed view and is set as text or as an attribute's value; nothing is parsed as markup.

const SVG = "http://www.w3.org/2000/svg";
const KINDS = ["front", "dominated", "early-stopped", "unfinished", "infeasible", "failed"];
const WORDS = { front: "on the front", dominated: "dominated", "early-stopped": "stopped early", unfinished: "unfinished",
  infeasible: "breaks a constraint", failed: "failed", later: "not begun yet" };
const SHAPES = {
  front: "M5 0A5 5 0 1 1-5 0A5 5 0 1 1 5 0Z", dominated: "M3.5 0A3.5 3.5 0 1 1-3.5 0A3.5 3.5 0 1 1 3.5 0Z",
  "early-stopped": "M0-4.5L4.5 4H-4.5Z", unfinished: "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0Z",
  infeasible: "M-4-4L4 4M-4 4L4-4", failed: "M-4 0H4M0-4V4",
};
const DIAMOND = "M0-6L6 0L0 6L-6 0Z";
const DOT = "M2.5 0A2.5 2.5 0 1 1-2.5 0A2.5 2.5 0 1 1 2.5 0Z";
const STAR = "M0-6L1.5-1.9L5.7-1.9L2.3.8L3.5 4.9L0 2.4L-3.5 4.9L-2.3.8L-5.7-1.9L-1.5-1.9Z";
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 4", "1 4"];
const COLOURS = 6;
const ROWS = 200;

const byId = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) { if (value) element.addEventListener(name.slice(2), value); }
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

async function unpack(id) {
  const letters = atob(byId(id).textContent);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

// Numbers

const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const isAccuracy = (goal) => goal.endsWith("accuracy");
const scaleOf = (goal) => (isAccuracy(goal) ? 100 : 1);
const words = (name) => name.replace(/^validation_/, "").replaceAll("_", " ");
const titled = (goal) => words(goal) + (isAccuracy(goal) ? " (%)" : "");
function text(value, scale = 1, digits = 4) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value * scale) ? String(value * scale) : String(Number((value * scale).toPrecision(digits)));
}

function ticks(low, high, { count = 5, whole = false } = {}) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const nice = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw);
  const step = whole ? Math.max(1, nice) : nice;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function extent(values, margin = 0.05) {
  let low = Infinity, high = -Infinity;
  for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
  if (low > high) return [0, 1];
  const pad = (high - low || Math.abs(high) || 1) * margin;
  return [low - pad, high + pad];
}


function table(caption, heads, rows) {
  const cell = (value) => (value instanceof Node ? value : html("td", { class: typeof value === "number" ? "number" : "text" },
    typeof value === "number" ? text(value, 1, 5) : (value ?? "")));
  return html("table", {}, html("caption", {}, caption),
    html("thead", {}, html("tr", {}, ...heads.map((head) => html("th", { scope: "col" }, head)))),
    html("tbody", {}, ...rows.map((row) => html("tr", {}, ...row.map(cell)))));
}
