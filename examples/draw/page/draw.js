// The page: drawing, searching while the pen moves, and what the server answers.
import SignaturePad from "./signature_pad.js";

const element = (id) => document.getElementById(id);
const paper = element("paper");
const canvas = element("canvas");
const found = document.querySelector(".found");

// A drawing is kept in units of its own, so that resizing and turning the screen lose nothing.
const UNITS = 1000;
const ERASER_REACH = 22;
const SEARCH_WHILE_DRAWING_MS = 250;
const SEARCH_AFTER_STROKE_MS = 60;
const RETRY_MS = 1500;
const MAX_UPLOAD_SIDE = 1024;
const MAX_UPLOAD_BYTES = 1 << 20;

// ---------------------------------------------------------------------------------------------------- The query and its history

// A query is one of
//   { strokes: [[{x, y, pressure, time}, ...], ...] }
//   { image: Blob, url }
//   { photo: id, name }
// and is never changed, only replaced.
const BLANK = { strokes: [] };
let query = BLANK;
let past = [];
let future = [];

const isBlank = (some) => some.strokes?.length === 0;

function change(next) {
  past.push(query);
  future = [];
  query = next;
  show();
  searchSoon(SEARCH_AFTER_STROKE_MS);
}

function step(from, to) {
  if (from.length === 0 || drawing) return;
  to.push(query);
  query = from.pop();
  show();
  searchSoon(0);
}

const undo = () => step(past, future);
const redo = () => step(future, past);
const clear = () => { if (!isBlank(query) && !drawing) change(BLANK); };

// ---------------------------------------------------------------------------------------------------- Canvas

const pad = new SignaturePad(canvas, { minDistance: 3, throttle: 8 });
let scale = 1;
let drawing = false;

function penStyle() {
  const width = canvas.clientWidth / 400;
  return {
    penColor: getComputedStyle(document.documentElement).getPropertyValue("--ink").trim(),
    minWidth: width, maxWidth: 2.6 * width, dotSize: 1.8 * width,
  };
}

const toPad = (stroke, style) => ({
  ...style, velocityFilterWeight: .7, compositeOperation: "source-over",
  points: stroke.map((point) => ({ ...point, x: point.x * scale, y: point.y * scale })),
});
const fromPad = (group) => group.points.map((point) => ({ ...point, x: point.x / scale, y: point.y / scale }));

function fitCanvas() {
  const side = canvas.clientWidth;
  // A stroke under the pen is finished in the size in which it began.
  if (side === 0 || drawing) return;
  const ratio = Math.max(devicePixelRatio, 1);
  canvas.width = canvas.height = Math.round(side * ratio);
  canvas.getContext("2d").scale(ratio, ratio);
  scale = side / UNITS;
  const style = penStyle();
  Object.assign(pad, style);
  pad.fromData((query.strokes ?? []).map((stroke) => toPad(stroke, style)));
}

new ResizeObserver(fitCanvas).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", fitCanvas);

pad.addEventListener("beginStroke", () => { drawing = true; element("invitation").hidden = true; });
pad.addEventListener("afterUpdateStroke", () => searchSoon(SEARCH_WHILE_DRAWING_MS, true));
pad.addEventListener("endStroke", () => {
  drawing = false;
  const group = pad.toData().at(-1);
  if (group?.points.length) change({ strokes: [...query.strokes, fromPad(group)] });
});

// The strokes on the canvas, with the one under the pen.
function strokesNow() {
  const strokes = query.strokes ?? [];
  return drawing ? [...strokes, fromPad(pad.toData().at(-1))] : strokes;
}

// ---------------------------------------------------------------------------------------------------- Eraser

let eraser = false;
let erasing = null; // the query from before the eraser touched the canvas

function setEraser(on) {
  eraser = on;
  paper.classList.toggle("erasing", on);
  element("erase-button").setAttribute("aria-pressed", on);
}

function touches(stroke, at) {
  return stroke.some((point, i) => {
    const { x, y } = stroke[Math.max(i - 1, 0)];
    const [dx, dy] = [point.x - x, point.y - y];
    const along = Math.min(Math.max(((at.x - x) * dx + (at.y - y) * dy) / (dx * dx + dy * dy || 1), 0), 1);
    return Math.hypot(x + along * dx - at.x, y + along * dy - at.y) < ERASER_REACH;
  });
}

function eraseAt(event) {
  const area = canvas.getBoundingClientRect();
  const at = { x: (event.clientX - area.left) / scale, y: (event.clientY - area.top) / scale };
  const strokes = query.strokes.filter((stroke) => !touches(stroke, at));
  if (strokes.length === query.strokes.length) return;
  query = { strokes };
  fitCanvas();
}

// Comes before the pad's own listener. Bit 5 is the eraser at the other end of a pen.
paper.addEventListener("pointerdown", (event) => {
  if (event.target !== canvas || drawing || !(eraser || event.buttons & 32)) return;
  event.stopPropagation();
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  erasing = query;
  eraseAt(event);
}, { capture: true });
paper.addEventListener("pointermove", (event) => { if (erasing) eraseAt(event); }, { capture: true });
for (const type of ["pointerup", "pointercancel"]) {
  paper.addEventListener(type, () => {
    if (!erasing) return;
    const [before, after] = [erasing, query];
    erasing = null;
    query = before;
    if (after !== before) change(after);
    if (isBlank(query)) setEraser(false);
  }, { capture: true });
}

// ---------------------------------------------------------------------------------------------------- What the page shows

function show() {
  fitCanvas();
  const isDrawing = Boolean(query.strokes);
  if (!isDrawing) setEraser(false);
  canvas.hidden = !isDrawing;
  element("picture").hidden = isDrawing;
  element("invitation").hidden = !isBlank(query);
  element("undo-button").disabled = past.length === 0;
  element("redo-button").disabled = future.length === 0;
  element("erase-button").disabled = !isDrawing || isBlank(query);
  element("clear-button").disabled = isBlank(query);
  element("link-button").disabled = isBlank(query) || Boolean(query.image);
  if (isDrawing) {
    const count = query.strokes.length;
    canvas.setAttribute("aria-label", `Drawing area, ${count === 0 ? "empty" : count === 1 ? "1 stroke" : `${count} strokes`}`);
    return;
  }
  const [image, caption] = [element("picture").children[0], element("picture").children[1]];
  const source = query.url ?? `/photo/${query.photo}?size=800`;
  if (image.getAttribute("src") !== source) image.src = source;
  image.alt = query.image ? "The image that you search with" : query.name;
  caption.textContent = query.image ? "Photos that look like this image" : `More like ${query.name}`;
}

const say = (text) => { element("status").textContent = text; };

function trouble(text) {
  const line = element("trouble");
  line.hidden = !text;
  if (line.textContent !== text) line.textContent = text;
}

// "vehicles/flight/jumbo_jet.jpg" is shown as "jumbo jet".
const title = (photo) => photo.name?.split("/").at(-1).replace(/\.\w+$/, "").replaceAll(/[_-]+/g, " ").trim() || `photo ${photo.id}`;

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function vector(shape, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", shape);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const tiles = new Map();

function tile(photo) {
  const name = title(photo);
  const view = make("span", { className: "view" });
  const image = make("img", { src: `/photo/${photo.id}?size=280`, alt: "", width: 280, height: 280, decoding: "async" });
  image.addEventListener("error", () => view.replaceChildren("cannot be shown"));
  view.append(image);
  const button = make("button", { type: "button", className: "photo", title: `More like ${name}` },
    view, make("span", { className: "name" }, name));
  button.setAttribute("aria-label", `${name}: find more like this`);
  button.addEventListener("click", () => { change({ photo: photo.id, name }); scrollTo({ top: 0, behavior: "smooth" }); });
  const link = make("a", { href: `/photo/${photo.id}`, target: "_blank", title: "Open the photo" });
  link.setAttribute("aria-label", `Open ${name} in a new tab`);
  const icon = vector("svg", { "aria-hidden": "true" });
  icon.append(vector("use", { href: "#open" }));
  link.append(icon);
  return make("li", {}, button, link);
}

function showPhotos(photos) {
  // Photos that stay keep their elements, so that they do not flicker, and the keyboard's focus stays where it is.
  const kept = new Map(photos.map((photo) => [photo.id, tiles.get(photo.id) ?? tile(photo)]));
  tiles.clear();
  for (const [id, item] of kept) tiles.set(id, item);
  const list = element("photos");
  const items = [...kept.values()];
  for (const item of [...list.children]) if (!items.includes(item)) item.remove();
  items.forEach((item, i) => { if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null); });
}

function showEmpty() {
  const empty = element("empty");
  empty.hidden = tiles.size > 0;
  if (galleryCount === 0) {
    empty.replaceChildren("The gallery has no photos yet. Start the page with photos of your own: ",
      make("code", {}, "make draw PHOTOS=folder"));
  } else {
    empty.textContent = "Photos appear here while you draw. Three lines are often enough. Click a photo to find more like it.";
  }
}

let galleryCount = null;

function showCount(count) {
  galleryCount = count;
  element("gallery").textContent = count === 1 ? "1 photo in PostgreSQL" : `${count.toLocaleString("en")} photos in PostgreSQL`;
}

// ---------------------------------------------------------------------------------------------------- Search

let timer = null;
let running = null;

// While the pen moves, one search follows the other; after the stroke, the last one counts.
function searchSoon(delay, whileDrawing = false) {
  if (whileDrawing && (timer || running)) return;
  clearTimeout(timer);
  timer = setTimeout(search, delay);
}

function request(signal) {
  const send = (path, body, type) =>
    fetch(path, { method: "POST", body, headers: type ? { "content-type": type } : {}, signal });
  if ("photo" in query) return send(`/search?like=${query.photo}`);
  if (query.image) return send("/search", query.image, query.image.type || "application/octet-stream");
  const round = (value) => Math.round(value * 10) / 10;
  const lists = strokesNow().map((stroke) => [stroke.map(({ x }) => round(x)), stroke.map(({ y }) => round(y))]);
  return send("/search", JSON.stringify(lists), "application/json");
}

async function search() {
  clearTimeout(timer);
  timer = null;
  // What an older search still answers is dropped.
  running?.abort();
  running = null;
  if (!drawing) writeAddress();
  if (isBlank(query) && !drawing) {
    showPhotos([]);
    element("figures").textContent = "";
    found.classList.remove("stale");
    trouble(waiting ? element("trouble").textContent : "");
    say("");
    showEmpty();
    return;
  }
  const mine = running = new AbortController();
  const started = performance.now();
  try {
    const response = await request(mine.signal);
    const answer = await response.json().catch(() => ({}));
    if (running !== mine) return;
    if (response.ok) answered(answer, performance.now() - started);
    else refused(response.status, answer.error ?? "The server could not answer. Try again in a moment.");
  } catch (error) {
    if (running === mine && error.name !== "AbortError") offline();
  } finally {
    if (running === mine) running = null;
  }
}

function answered({ photos, searched }, milliseconds) {
  recovered();
  trouble("");
  found.classList.remove("stale");
  showCount(searched);
  showPhotos(photos);
  showEmpty();
  element("figures").textContent = `${searched.toLocaleString("en")} photos searched in ${Math.round(milliseconds)} ms`;
  if (!drawing) say(photos.length ? `${photos.length} photos found. Nearest: ${title(photos[0])}.` : "No photos found.");
}

function refused(status, words) {
  found.classList.add("stale");
  trouble(words);
  if (status === 429 || status >= 500) waitForServer();
}

function offline() {
  found.classList.add("stale");
  trouble("The server does not answer. Start it again with \"make draw\"; your drawing stays here, and the search is repeated.");
  waitForServer();
}

// Asks until the server and its database answer, then repeats the search.
let waiting = null;

function waitForServer() {
  clearTimeout(waiting);
  waiting = setTimeout(async () => {
    const health = await fetch("/healthz").then((response) => response.ok ? response.json() : null, () => null);
    if (!waiting) return;
    if (!health) return waitForServer();
    recovered();
    trouble("");
    showCount(health.photos);
    searchSoon(0);
  }, RETRY_MS);
}

function recovered() {
  clearTimeout(waiting);
  waiting = null;
}

// ---------------------------------------------------------------------------------------------------- Images

async function useImage(blob) {
  try {
    const image = await prepare(blob);
    change({ image, url: URL.createObjectURL(image) });
  } catch {
    trouble("This file is not an image that can be read. Choose a PNG, JPEG, WebP or SVG file.");
  }
}

// Scales large images down, so that a phone's photo of a drawing travels fast.
async function prepare(blob) {
  if (blob.type === "image/svg+xml") return blob;
  const bitmap = await createImageBitmap(blob);
  const factor = MAX_UPLOAD_SIDE / Math.max(bitmap.width, bitmap.height);
  if (factor >= 1 && blob.size <= MAX_UPLOAD_BYTES && /^image\/(png|jpeg|webp)$/.test(blob.type)) return blob;
  const small = new OffscreenCanvas(Math.ceil(bitmap.width * Math.min(factor, 1)), Math.ceil(bitmap.height * Math.min(factor, 1)));
  small.getContext("2d").drawImage(bitmap, 0, 0, small.width, small.height);
  return small.convertToBlob({ type: "image/png" });
}

async function useText(text) {
  if (/^\s*(<\?xml|<svg)/.test(text)) return useImage(new Blob([text], { type: "image/svg+xml" }));
  try {
    change(fromLists(JSON.parse(text)));
  } catch {
    trouble("This text is not a drawing. Paste an image, SVG, or strokes as JSON.");
  }
}

const isText = (file) => file.type === "application/json" || file.name?.endsWith(".json");
const useFile = async (file) => isText(file) ? useText(await file.text()) : useImage(file);

element("file").addEventListener("change", ({ target }) => {
  if (target.files[0]) useFile(target.files[0]);
  target.value = "";
});
addEventListener("dragover", (event) => { event.preventDefault(); paper.classList.add("drop"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) paper.classList.remove("drop"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  paper.classList.remove("drop");
  if (event.dataTransfer.files[0]) useFile(event.dataTransfer.files[0]);
});
addEventListener("paste", ({ clipboardData }) => {
  const text = clipboardData.getData("text/plain");
  if (clipboardData.files[0]) useFile(clipboardData.files[0]);
  else if (text) useText(text);
});

// ---------------------------------------------------------------------------------------------------- Drawings as text

// Fits lists of coordinates, [[[x, ...], [y, ...]], ...], into the paper.
function fromLists(lists) {
  const xs = lists.flatMap(([x]) => x);
  const ys = lists.flatMap(([, y]) => y);
  if (xs.length === 0 || xs.length !== ys.length || ![...xs, ...ys].every(Number.isFinite)) throw new Error("no strokes");
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const [width, height] = [Math.max(...xs) - left, Math.max(...ys) - top];
  const factor = UNITS * .84 / Math.max(width, height, 1e-6);
  const [x0, y0] = [(UNITS - width * factor) / 2, (UNITS - height * factor) / 2];
  return { strokes: lists.map(([x, y]) => filled(x.map((_, i) => ({ x: x0 + (x[i] - left) * factor, y: y0 + (y[i] - top) * factor })))) };
}

// Puts points between points that are far apart, at a steady speed: the pad rounds corners and draws fast lines thin.
function filled(corners) {
  const STEP = 14;
  let time = 1;
  const points = [{ ...corners[0], pressure: .5, time }];
  for (const [i, to] of corners.slice(1).entries()) {
    const from = corners[i];
    const parts = Math.max(1, Math.round(Math.hypot(to.x - from.x, to.y - from.y) / STEP));
    for (let part = 1; part <= parts; part++) {
      points.push({
        x: from.x + (to.x - from.x) * part / parts, y: from.y + (to.y - from.y) * part / parts, pressure: .5, time: time += 30,
      });
    }
  }
  return points;
}

// Douglas and Peucker's polyline: leaves out points that are nearer than `tolerance` to the line without them.
function simplified(points, tolerance) {
  if (points.length < 3) return points;
  const [first, last] = [points[0], points.at(-1)];
  const [dx, dy] = [last.x - first.x, last.y - first.y];
  const length = Math.hypot(dx, dy);
  const away = ({ x, y }) => length < 1e-9
    ? Math.hypot(x - first.x, y - first.y)
    : Math.abs(dy * (x - first.x) - dx * (y - first.y)) / length;
  let farthest = 0;
  points.forEach((point, i) => { if (away(point) > away(points[farthest])) farthest = i; });
  if (away(points[farthest]) <= tolerance) return [first, last];
  return [...simplified(points.slice(0, farthest + 1), tolerance), ...simplified(points.slice(farthest), tolerance).slice(1)];
}

// The address has the drawing as bytes on a grid of 256: for each stroke its number of points, then x and y of each.
const GRID = 255;

function encode(strokes) {
  const onGrid = (value) => Math.min(Math.max(Math.round(value / UNITS * GRID), 0), GRID);
  const bytes = strokes.flatMap((stroke) => {
    const points = simplified(stroke, UNITS / GRID);
    const pieces = [];
    for (let start = 0; start === 0 || start < points.length - 1; start += 254) pieces.push(points.slice(start, start + 255));
    return pieces.flatMap((piece) => [piece.length, ...piece.flatMap(({ x, y }) => [onGrid(x), onGrid(y)])]);
  });
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

function decode(text) {
  const bytes = [...atob(text.replaceAll("-", "+").replaceAll("_", "/"))].map((letter) => letter.charCodeAt(0));
  const strokes = [];
  for (let at = 0; at < bytes.length; at += 1 + 2 * bytes[at]) {
    const [count, start] = [bytes[at], at + 1];
    if (count === 0 || start + 2 * count > bytes.length) throw new Error("cut short");
    strokes.push(filled(Array.from({ length: count }, (_, i) => ({
      x: bytes[start + 2 * i] / GRID * UNITS, y: bytes[start + 2 * i + 1] / GRID * UNITS,
    }))));
  }
  return { strokes };
}

function address() {
  if ("photo" in query) return `#photo=${query.photo}&name=${encodeURIComponent(query.name)}`;
  return query.image || isBlank(query) ? "" : `#drawing=${encode(query.strokes)}`;
}

function writeAddress() {
  const next = address();
  if (location.hash !== next) history.replaceState(null, "", location.pathname + next);
}

function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  try {
    if (/^-?\d+$/.test(parts.get("photo"))) change({ photo: Number(parts.get("photo")), name: parts.get("name") || "this photo" });
    else if (parts.get("drawing")) change(decode(parts.get("drawing")));
  } catch {
    trouble("The drawing in this address is damaged. Draw it again.");
  }
}

addEventListener("hashchange", readAddress);

async function copyLink() {
  writeAddress();
  try {
    await navigator.clipboard.writeText(location.href);
    note("Link copied");
  } catch {
    prompt("Copy this link:", location.href);
  }
}

// Shows a word on the button for a moment.
function note(text) {
  say(text);
  const label = element("link-button").querySelector("span");
  label.textContent = "Copied";
  setTimeout(() => { label.textContent = "Link"; }, 1500);
}

// ---------------------------------------------------------------------------------------------------- Buttons, keys, start

const buttons = {
  undo, redo, clear,
  erase: () => setEraser(!eraser),
  choose: () => element("file").click(),
  link: copyLink,
};
for (const [name, act] of Object.entries(buttons)) element(`${name}-button`).addEventListener("click", act);

addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  const command = event.ctrlKey || event.metaKey;
  const act = command && key === "z" ? (event.shiftKey ? redo : undo)
    : command && key === "y" ? redo
    : command || event.altKey ? null
    : key === "e" && !element("erase-button").disabled ? buttons.erase
    : key === "escape" && eraser ? buttons.erase
    : key === "delete" || key === "backspace" ? clear
    : null;
  if (!act) return;
  event.preventDefault();
  act();
});

async function loadExamples() {
  const examples = await fetch("/examples").then((response) => response.json());
  element("examples").replaceChildren(...examples.map(({ name, strokes }) => {
    const button = make("button", { type: "button", title: name });
    button.setAttribute("aria-label", `Search with the example drawing: ${name}`);
    const preview = vector("svg", { viewBox: "-12 -12 280 280", "aria-hidden": "true" });
    for (const [x, y] of strokes) preview.append(vector("polyline", { points: x.map((_, i) => `${x[i]},${y[i]}`).join(" ") }));
    button.append(preview);
    button.addEventListener("click", () => change(fromLists(strokes)));
    return make("li", {}, button);
  }));
}

async function start() {
  show();
  showEmpty();
  readAddress();
  await loadExamples();
  const response = await fetch("/healthz");
  const health = await response.json();
  if (!response.ok) return refused(response.status, health.error);
  showCount(health.photos);
  showEmpty();
}

start().catch(offline);
