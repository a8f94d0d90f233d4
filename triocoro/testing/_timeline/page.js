"use strict";
// Draws the history in #data, which picture.py has laid out. Positions (x) are steps of the axis; all text goes into the
// page as text, never as HTML.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);

const events = data.events.map(([entry, x, time, lane, kind, text, detail], id) => (
  { id, entry, x, time, lane, kind, text, detail, from: null, to: [], missed: [], bar: null }));
for (const [from, to] of data.arrows) {
  const { text, detail } = events[from];
  Object.assign(events[to], { from: events[from], text, detail: detail || events[to].detail });
  events[from].to.push(events[to]);
}
for (const [id, lane] of data.missed) events[id].missed.push(lane);
for (const [id, end, ended, status, row] of data.bars) events[id].bar = { end, ended, status, row };
const ofLane = data.lanes.map(() => []);
for (const event of events) ofLane[event.lane].push(event);
const bars = events.filter((event) => event.bar); // in the order in which they begin
const ofRow = {};
for (const event of bars) {
  const last = ofRow[`${event.lane} ${event.bar.row}`];
  ofRow[`${event.lane} ${event.bar.row}`] = event;
  if (last) Object.assign(event.bar, { before: last.bar.end });
  if (last) Object.assign(last.bar, { after: event.x });
}
const sends = events.filter((event) => event.kind === "send");
const marks = events.filter((event) => ["fault", "repair", "note"].includes(event.kind));
const failure = data.failure;
// When it was, at the positions where something begins or ends.
const clock = [...events, ...bars.map(({ bar }) => ({ x: bar.end, time: bar.ended }))].sort((one, other) => one.x - other.x);

// -- words ------------------------------------------------------------------------------------------------------------

const WORDS = {
  send: "sends", receive: "receives", call: "calls", failed: "calls", members: "is told:", ring: "is told:", quorum: "is told:",
  lost: "is told:", other: "is told:", loss: "", fault: "", repair: "", note: "", operation: "",
};
const ENDS = { returned: "", refused: "refused", unknown: "unknown whether it took effect", open: "has not ended" };

function seconds(time, digits = 3) {
  return `${time.toFixed(digits)} s`;
}

function place(lane) {
  const { kind, label, node } = data.lanes[lane];
  if (kind === "node" || kind === "test" || node === null) return label;
  return label.includes(`node ${node}`) ? label : `node ${node}, ${label}`;
}

function sentence(event) {
  const whose = event.kind === "receive" && event.from ? ` from ${place(event.from.lane)}` : "";
  const text = ["send", "receive"].includes(event.kind) ? `“${event.text}”` : event.text;
  return `${WORDS[event.kind]} ${text}${whose}`.trim();
}

function nodes(lanes) {
  return lanes.map((lane) => place(lane)).join("; ");
}

// The lines that say all about an event.
function lines(event) {
  const found = [["head", `${place(event.lane)}: ${sentence(event)}`]];
  if (event.detail) found.push(["mono", event.detail]);
  if (event.bar) {
    const ending = ENDS[event.bar.status];
    if (ending) found.push(["sub", ending]);
    if (event.bar.status !== "open") found.push(["sub", `took ${seconds(event.bar.ended - event.time)}`]);
  }
  if (event.kind === "send" && event.to.length) {
    const to = event.to.map((one) => `${place(one.lane)} (+${seconds(one.time - event.time)})`);
    found.push(["sub", `received by ${to.join(", ")}`]);
  } else if (event.kind === "send") {
    found.push(["sub", "no recorded client received it"]);
  }
  if (event.missed.length) found.push(["bad", `never received by ${nodes(event.missed)}, which went on without it`]);
  if (event.from) found.push(["sub", `sent ${seconds(event.time - event.from.time)} before`]);
  found.push(["sub", `at ${seconds(event.time, 6)}, entry ${event.entry} of the history`]);
  return found;
}

function element(tag, className, text, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

// -- where things are -------------------------------------------------------------------------------------------------

const FAILURE = failure ? 20 : 0; // where the labels of marks begin
const NETWORK = FAILURE + (marks.length ? 34 : 0); // where the state of the network is
const HEIGHTS = { test: NETWORK + (data.network.length ? 18 : 0) + 4, node: 26, group: 30, other: 17, client: 8 };
const ROW = 20;
const total = Math.max(data.end, 1);
const view = { from: 0, scale: 1, width: 1 };
let top_ = [];
let height = 0;
let chosen = null;
let hovered = null;
let matches = null; // the events that the search finds, in order; null without a search

function layOut() {
  top_ = [];
  height = 0;
  for (const [index, lane] of data.lanes.entries()) {
    if (index && ["node"].includes(lane.kind)) height += 6;
    top_.push(height);
    height += HEIGHTS[lane.kind] + (lane.kind === "client" ? lane.rows * ROW : 0);
  }
  height += 6;
}

const heightOf = (lane) => HEIGHTS[data.lanes[lane].kind] + (data.lanes[lane].kind === "client" ? data.lanes[lane].rows * ROW : 0);
const middle = (lane) => top_[lane] + heightOf(lane) / 2;
const X = (x) => (x - view.from) * view.scale;
const leastScale = () => Math.min(view.width / (total + 1), 26);

function look(from, scale) {
  view.scale = Math.min(Math.max(scale, leastScale()), 90);
  const span = view.width / view.scale;
  view.from = Math.min(Math.max(from, -0.5), Math.max(total + 0.5 - span, -0.5));
  draw();
}

function zoom(factor, at = view.width / 2) {
  const x = view.from + at / view.scale;
  const scale = Math.min(Math.max(view.scale * factor, leastScale()), 90);
  look(x - at / scale, scale);
}

function show(x, least = 14) {
  const scale = Math.max(view.scale, least);
  look(x - view.width / scale / 2, scale);
}

// The index of the first of these events at or after x.
function first(sorted, x) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const between = (low + high) >> 1;
    if (sorted[between].x < x) low = between + 1;
    else high = between;
  }
  return low;
}

function visible(sorted, margin = 0) {
  return sorted.slice(first(sorted, view.from - margin), first(sorted, view.from + view.width / view.scale + margin));
}

// -- drawing ----------------------------------------------------------------------------------------------------------

let colours = {};
let hatch = {};

function readColours() {
  const style = getComputedStyle(document.documentElement);
  colours = {};
  for (const name of ["bg", "panel", "fg", "muted", "line", "grid", "accent", "bad", "warn", "good", "message", "fault", "note",
    "mark", "ring-saturation", "ring-lightness", "operation", "unknown", "refused", "down", "down-text", "frozen", "hatch",
    "sans"]) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const pen = tile.getContext("2d");
  pen.strokeStyle = colours.hatch;
  pen.lineWidth = 1.6;
  for (const shift of [-8, 0, 8]) {
    pen.beginPath();
    pen.moveTo(shift - 1, 9);
    pen.lineTo(shift + 9, -1);
    pen.stroke();
  }
  hatch = pen.createPattern(tile, "repeat");
}

// The nodes of a ring decide on its hue: nodes that are together have one colour, and all nodes always the same.
const HUES = [212, 32, 285, 100, 340, 55, 250, 12, 140];

function ringColour(hue, lightness = colours["ring-lightness"]) {
  return `hsl(${HUES[hue % HUES.length]} ${colours["ring-saturation"]} ${lightness})`;
}

function sized(canvas, width, height_) {
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height_ * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height_ * ratio);
    canvas.style.height = `${height_}px`;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height_);
  pen.textBaseline = "middle";
  return pen;
}

// The first of these texts that is no wider, or "".
function fitting(pen, width, ...texts) {
  return texts.find((text) => pen.measureText(text).width <= width) ?? "";
}

let asked = false;

function draw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    drawAxis();
    drawOverview();
    drawLanes();
  });
}

// A wide pause gets the time of its end; the same time is written once.
function ticks() {
  const found = [];
  let last = null;
  for (let x = 0; x < view.width; x += 92) {
    const moment = clock[first(clock, view.from + x / view.scale)];
    if (!moment) break;
    if (found.length && X(moment.x) < found.at(-1).x + 70) continue;
    const label = seconds(moment.time, data.duration < 10 ? 3 : 2);
    if (label !== last) found.push({ x: X(moment.x), label });
    last = label;
  }
  return found;
}

function drawAxis() {
  const pen = sized($("axis"), view.width, 20);
  pen.font = `11px ${colours.sans}`;
  pen.fillStyle = colours.muted;
  for (const { x, label } of ticks()) {
    pen.fillRect(Math.round(x), 14, 1, 6);
    pen.fillText(label, x + 3, 9);
  }
}

function drawOverview() {
  const size = 46;
  const pen = sized($("overview"), view.width, size);
  const scale = leastScale();
  const to = (x) => (x + 0.5) * scale;
  const rows = data.lanes.map((lane, index) => index).filter((index) => data.lanes[index].kind === "node");
  const each = (size - 8) / Math.max(rows.length, 1);
  for (const band of data.bands) {
    const y = 4 + rows.indexOf(band.lane) * each;
    const width = Math.max(to(band.to) - to(band.from), 0.5);
    pen.fillStyle = band.condition === "down" ? colours.down : band.condition === "frozen" ? colours.frozen :
      band.hue === null ? colours.grid : ringColour(band.hue);
    pen.fillRect(to(band.from), y, width, each - 1);
    if (band.condition === "up" && band.quorate === false) {
      pen.fillStyle = hatch;
      pen.fillRect(to(band.from), y, width, each - 1);
    }
  }
  pen.fillStyle = colours.fault;
  for (const mark of marks) if (mark.kind === "fault") pen.fillRect(to(mark.x), 0, 1.5, 4);
  for (const event of events) if (event.kind === "lost" || event.kind === "loss" || event.missed.length) pen.fillRect(to(event.x), size - 4, 1.5, 4);
  if (matches) {
    pen.fillStyle = colours.accent;
    for (const event of matches) pen.fillRect(to(event.x), size - 5, 1.5, 5);
  }
  if (failure) {
    pen.fillStyle = colours.bad;
    pen.fillRect(to(failure.x) - 1, 0, 2.5, size);
  }
  const left = to(view.from);
  const width = Math.min(view.width / view.scale * scale, view.width - left);
  pen.fillStyle = colours.fg;
  pen.globalAlpha = 0.1;
  pen.fillRect(0, 0, left, size);
  pen.fillRect(left + width, 0, view.width, size);
  pen.globalAlpha = 1;
  pen.strokeStyle = colours.accent;
  pen.lineWidth = 1.5;
  pen.strokeRect(Math.max(left, 0) + 1, 1, Math.max(width - 2, 4), size - 2);
}

function drawLanes() {
  const pen = sized($("lanes"), view.width, height);
  pen.lineJoin = "round";
  pen.fillStyle = colours.grid;
  for (const { x } of ticks()) pen.fillRect(Math.round(x), 0, 1, height);
  data.lanes.forEach((lane, index) => {
    pen.fillStyle = colours.line;
    if (lane.kind === "node") pen.fillRect(0, top_[index] - 4, view.width, 1);
    else pen.fillRect(0, Math.round(middle(index)), view.width, lane.kind === "group" || lane.kind === "other" ? 1 : 0);
  });
  drawBands(pen);
  drawSpans(pen);
  drawBars(pen);
  drawMessages(pen);
  drawEvents(pen);
  drawMarks(pen);
}

function drawBands(pen) {
  for (const band of data.bands) {
    const left = Math.max(X(band.from), -2);
    const right = Math.min(X(band.to), view.width + 2);
    if (right < 0 || left > view.width) continue;
    const y = top_[band.lane];
    const width = Math.max(right - left, 1);
    const { condition } = band;
    const up = condition === "up";
    pen.fillStyle = condition === "down" ? colours.down : condition === "frozen" ? colours.frozen :
      band.hue === null ? colours.grid : ringColour(band.hue);
    pen.fillRect(left, y, width, 24);
    if (up && band.quorate === false) {
      pen.fillStyle = hatch;
      pen.fillRect(left, y, width, 24);
    }
    if (!up) { // nothing happens on the node: its clients are greyed too
      pen.globalAlpha = condition === "down" ? 0.13 : 0.3;
      pen.fillRect(left, y + 24, width, nodeEnd(band.lane) - y - 24);
      pen.globalAlpha = 1;
    }
    if (width < 8) continue; // neither a border nor a text
    pen.fillStyle = colours.bg;
    if (X(band.from) > 0) pen.fillRect(left, y, 1.5, 24);
    const texts = [];
    if (!up) texts.push(`${condition === "down" ? "no daemon" : "frozen"}`);
    else if (band.ring) {
      const with_ = `${band.ring}: ${band.nodes}`;
      if (band.quorate === false) texts.push(`NO QUORUM, ${with_}`, `no quorum: ${band.nodes}`, "no quorum", "✗");
      else texts.push(`${with_}${band.quorate === null ? " (quorum not recorded)" : ""}`, with_, band.nodes, band.nodes.replace(/nodes? /, ""));
    }
    else if (width > 90) texts.push("not recorded");
    pen.font = `${up && band.quorate !== false ? "" : "bold "}12px ${colours.sans}`;
    const text = fitting(pen, width - 8, ...texts);
    if (!text) continue;
    if (up && band.quorate === false) {
      pen.fillStyle = colours.bg;
      pen.globalAlpha = 0.85;
      pen.fillRect(left + 3, y + 4, pen.measureText(text).width + 6, 16);
      pen.globalAlpha = 1;
    }
    pen.fillStyle = !band.ring && up ? colours.muted : condition === "down" ? colours["down-text"] : up && band.quorate === false ? colours.bad : colours.fg;
    pen.fillText(text, left + 6, y + 12.5);
  }
}

function nodeEnd(lane) {
  let last = lane;
  while (data.lanes[last + 1]?.node === data.lanes[lane].node) last += 1;
  return top_[last] + heightOf(last);
}

// From join to leave, a client has a thicker line.
function drawSpans(pen) {
  pen.fillStyle = colours.muted;
  pen.globalAlpha = 0.5;
  for (const [lane, from, to] of data.spans) {
    const left = Math.max(X(from), 0);
    pen.fillRect(left, middle(lane) - 1.5, Math.min(X(to), view.width) - left, 3);
  }
  pen.globalAlpha = 1;
  pen.font = `11px ${colours.sans}`;
  for (const [from, to, text] of data.network) {
    const left = Math.max(X(from), 0);
    const width = Math.min(X(to), view.width) - left;
    if (width <= 0) continue;
    pen.fillStyle = colours["bad"];
    pen.globalAlpha = 0.22;
    pen.fillRect(left, NETWORK, width, 16);
    pen.globalAlpha = 1;
    pen.fillStyle = colours.fg;
    const short = text.replace("the network is ", "").replace(" is cut off from all others", " cut off");
    pen.fillText(fitting(pen, width - 8, text, short, "cut"), left + 5, NETWORK + 8.5);
  }
}

function drawBars(pen) {
  pen.font = `11px ${colours.sans}`;
  const seen = bars.filter(({ x, bar }) => X(bar.end) >= 0 && X(x) <= view.width);
  for (const event of seen) {
    const { end, status, row } = event.bar;
    const left = Math.max(X(event.x), -2);
    const right = Math.min(X(end), view.width + 2);
    const lane = data.lanes[event.lane];
    const width = Math.max(right - left, 3);
    if (lane.kind !== "client") { // a call
      pen.fillStyle = event.kind === "failed" ? colours.bad : status === "open" ? colours.warn : colours.muted;
      pen.globalAlpha = 0.55;
      pen.fillRect(left, middle(event.lane) - 2.5, width, 5);
      pen.globalAlpha = 1;
      continue;
    }
    const y = top_[event.lane] + 4 + row * ROW;
    pen.fillStyle = status === "returned" ? colours.operation : status === "refused" ? colours.refused : colours.unknown;
    pen.fillRect(left, y, width, ROW - 3);
    const isBad = data.bad.includes(event.id);
    pen.strokeStyle = isBad ? colours.bad : status === "returned" ? colours.good : status === "refused" ? colours.muted : colours.warn;
    pen.lineWidth = isBad ? 2.5 : 1;
    pen.setLineDash(status === "returned" ? [] : [4, 3]);
    pen.strokeRect(left + 0.5, y + 0.5, width - 1, ROW - 4);
    pen.setLineDash([]);
    pen.fillStyle = colours.fg;
    const [text, x] = barLabel(pen, event, left, width);
    pen.fillText(text, x, y + (ROW - 3) / 2 + 0.5);
  }
}

// The text of an operation and where it goes: into the bar, else beside it, up to the next bars of the row.
function barLabel(pen, { text, bar }, left, width) {
  const from = bar.before === undefined ? 0 : Math.max(X(bar.before), 0);
  const to = bar.after === undefined ? view.width : Math.min(X(bar.after), view.width);
  if (to - from < 30) return ["", 0];
  const whole = pen.measureText(text).width + 8;
  if (whole <= width) return [text, left + 4];
  if (left + width + whole <= to) return [text, left + width + 4];
  if (left - whole >= from) return [text, left - whole + 4];
  return [fitting(pen, width - 8, text.split(" → ")[0], text.split("(")[0]), left + 4];
}

const MOST_ARROWS = 1200;
const MOST_LABELS = 60;
const STEP = 4; // pixels of a column, when there are too many messages for arrows

function drawMessages(pen) {
  const seen = visible(sends, 60);
  const arrows = seen.reduce((sum, event) => sum + event.to.length, 0);
  if (arrows > MOST_ARROWS) drawDensity(pen);
  else {
    pen.strokeStyle = pen.fillStyle = colours.message;
    pen.globalAlpha = arrows > 300 ? 0.45 : 0.75;
    pen.lineWidth = 1;
    for (const event of seen) for (const one of event.to) drawArrow(pen, event, one, arrows < 500);
    pen.globalAlpha = 1;
    if (seen.length < MOST_LABELS) drawPayloads(pen, seen);
  }
  pen.lineWidth = 1.5;
  for (const event of seen) if (event.missed.length && (arrows <= MOST_ARROWS || event === chosen)) drawMissed(pen, event);
  for (const event of [hovered, chosen]) {
    const source = event?.from ?? event;
    if (!source?.to?.length) continue;
    pen.strokeStyle = pen.fillStyle = colours.accent;
    pen.lineWidth = 2;
    for (const one of source.to) drawArrow(pen, source, one, true);
  }
}

function drawArrow(pen, from, to, head) {
  const x0 = X(from.x);
  const y0 = middle(from.lane);
  const x1 = X(to.x);
  const y1 = middle(to.lane);
  pen.beginPath();
  pen.moveTo(x0, y0);
  if (from.lane === to.lane) {
    const dip = Math.min(9, (x1 - x0) / 3);
    pen.quadraticCurveTo((x0 + x1) / 2, y0 - dip * 2, x1, y1 - 2);
  } else pen.lineTo(x1, y1);
  pen.stroke();
  if (!head || from.lane === to.lane) return;
  const angle = Math.atan2(y1 - y0, x1 - x0);
  pen.beginPath();
  pen.moveTo(x1, y1);
  for (const turn of [2.75, -2.75]) pen.lineTo(x1 + 8 * Math.cos(angle + turn), y1 + 8 * Math.sin(angle + turn));
  pen.fill();
}

// Under its dot, a payload, or the end of it, as far as the next dot of the lane leaves room.
function drawPayloads(pen, seen) {
  pen.font = `10px ${colours.sans}`;
  pen.fillStyle = colours.muted;
  for (const [index, event] of seen.entries()) {
    const next = seen.slice(index + 1).find((other) => other.lane === event.lane);
    const room = Math.min((next ? X(next.x) : view.width) - X(event.x) - 8, 220);
    if (room < 90 && pen.measureText(event.text.slice(0, 80)).width > room) continue;
    let text = event.text.slice(-80);
    if (text !== event.text) text = `…${text}`;
    while (text.length > 4 && pen.measureText(text).width > room) text = `…${text.slice(text.length > 40 ? 6 : 3)}`;
    pen.fillText(text, X(event.x) + 3, middle(event.lane) + 10);
  }
}

// A message that never came to a member: a dashed line that ends in a cross.
function drawMissed(pen, event) {
  pen.strokeStyle = colours.bad;
  for (const lane of event.missed) {
    const x1 = X(event.x) + 16;
    const y1 = middle(lane);
    pen.setLineDash([4, 3]);
    pen.beginPath();
    pen.moveTo(X(event.x), middle(event.lane));
    pen.lineTo(x1, y1);
    pen.stroke();
    pen.setLineDash([]);
    cross(pen, x1, y1, 5);
  }
}

function cross(pen, x, y, size) {
  pen.beginPath();
  pen.moveTo(x - size, y - size);
  pen.lineTo(x + size, y + size);
  pen.moveTo(x + size, y - size);
  pen.lineTo(x - size, y + size);
  pen.stroke();
}

// How many messages a lane sends (upwards) and receives (downwards) in each column of pixels.
function drawDensity(pen) {
  const columns = Math.ceil(view.width / STEP) + 1;
  data.lanes.forEach((lane, index) => {
    if (lane.kind !== "group") return;
    const sent = new Uint32Array(columns);
    const received = new Uint32Array(columns);
    for (const event of visible(ofLane[index])) {
      const column = Math.floor(X(event.x) / STEP);
      if (event.kind === "send") sent[column] += 1;
      else if (event.kind === "receive") received[column] += 1;
    }
    const most = Math.max(4, ...sent, ...received);
    const half = heightOf(index) / 2 - 1;
    const y = middle(index);
    pen.fillStyle = colours.message;
    for (const [counts, up, alpha] of [[sent, true, 1], [received, false, 0.55]]) {
      pen.globalAlpha = alpha;
      pen.beginPath();
      counts.forEach((count, column) => {
        const tall = half * count / most;
        if (count) pen.rect(column * STEP, up ? y - tall : y, STEP - 1, tall);
      });
      pen.fill();
    }
    pen.globalAlpha = 1;
  });
}

const ALWAYS = new Set(["failed", "lost", "loss"]);

function drawEvents(pen) {
  const seen = visible(events, 2);
  const crowded = seen.length > 2500;
  const shown = crowded ? seen.filter((event) => ALWAYS.has(event.kind) || event.missed.length) : seen;
  for (const event of shown) {
    if (crowded && shown.length > 400) {
      pen.fillStyle = colours.bad;
      pen.fillRect(X(event.x), middle(event.lane) - 2, 1, 4);
    } else drawEvent(pen, event, X(event.x), middle(event.lane));
  }
  const found = matches ? visible(matches) : [];
  pen.strokeStyle = colours.accent;
  pen.lineWidth = 2;
  for (const event of found.length > 800 ? [] : found) ring(pen, event, 7);
  for (const id of data.bad) ring(pen, events[id], 9, colours.bad);
  if (hovered) ring(pen, hovered, 7);
  if (chosen) {
    ring(pen, chosen, 9);
    pen.globalAlpha = 0.5;
    pen.fillRect(X(chosen.x), 0, 1, height);
    pen.globalAlpha = 1;
  }
}

function ring(pen, event, radius, colour = colours.accent) {
  if (data.lanes[event.lane].kind === "client") return;
  pen.strokeStyle = pen.fillStyle = colour;
  pen.lineWidth = 2;
  pen.beginPath();
  pen.arc(X(event.x), event.lane === 0 ? FAILURE + 8 : middle(event.lane), radius, 0, 7);
  pen.stroke();
}

function drawEvent(pen, event, x, y) {
  switch (event.kind) {
    case "send":
      pen.fillStyle = event.missed.length ? colours.bad : colours.message;
      pen.beginPath();
      pen.arc(x, y, event.missed.length ? 4.5 : 3.5, 0, 7);
      pen.fill();
      break;
    case "receive":
      pen.fillStyle = colours.message;
      pen.fillRect(x - 1, y - 4, 2, 8);
      break;
    case "members":
    case "ring":
    case "quorum": {
      const size = data.lanes[event.lane].kind === "other" ? 4 : 5.5;
      pen.fillStyle = event.kind === "members" ? colours.good : event.kind === "ring" ? colours.accent : colours.warn;
      pen.beginPath();
      pen.moveTo(x, y - size);
      pen.lineTo(x + size, y);
      pen.lineTo(x, y + size);
      pen.lineTo(x - size, y);
      pen.fill();
      break;
    }
    case "failed":
    case "lost":
    case "loss":
      pen.strokeStyle = colours.bad;
      pen.lineWidth = 2;
      cross(pen, x, y, 4.5);
      break;
    case "other":
      pen.fillStyle = colours.muted;
      pen.fillRect(x - 1.5, y - 3, 3, 6);
      break;
  }
}

const MOST_MARKS = 120; // with lines through all lanes
const MARKS = { fault: "fault", repair: "good", note: "note" };

// Faults and notes, with as many labels as there is room for, and where the test failed.
function drawMarks(pen) {
  const seen = visible(marks, 60);
  const many = seen.length > MOST_MARKS;
  for (const mark of seen) {
    const x = X(mark.x);
    pen.fillStyle = pen.strokeStyle = colours[MARKS[mark.kind]];
    pen.globalAlpha = 0.5;
    pen.lineWidth = 1.2;
    pen.setLineDash(mark.kind === "note" ? [2, 3] : []);
    pen.beginPath();
    pen.moveTo(x, FAILURE + 2);
    pen.lineTo(x, many ? FAILURE + 34 : height);
    pen.stroke();
    pen.setLineDash([]);
    pen.globalAlpha = 1;
    if (many) continue;
    if (data.lanes[mark.lane].kind === "node") drawFlag(pen, x, top_[mark.lane]);
    drawFlag(pen, x, FAILURE + 4);
  }
  pen.font = `bold 12px ${colours.sans}`;
  const ends = [-Infinity, -Infinity];
  for (const mark of seen) {
    const { kind, label } = data.lanes[mark.lane];
    const whole = kind === "node" ? `${label} ${mark.text}` : mark.text;
    const text = whole.length > 70 ? `${whole.slice(0, 70)}…` : whole;
    const width = pen.measureText(text).width;
    const x = Math.min(X(mark.x) + 8, view.width - width - 4);
    const row = ends.findIndex((end) => x > end);
    if (row < 0) continue;
    const y = FAILURE + 9 + row * 16;
    pen.fillStyle = colours.bg;
    pen.globalAlpha = 0.88;
    pen.fillRect(x - 1, y - 8, width + 3, 16);
    pen.globalAlpha = 1;
    pen.fillStyle = colours[MARKS[mark.kind]];
    pen.fillText(text, x, y);
    ends[row] = x + width + 8;
  }
  if (failure) drawFailure(pen);
}

function drawFlag(pen, x, y) {
  pen.beginPath();
  pen.moveTo(x, y);
  pen.lineTo(x + 6, y + 4);
  pen.lineTo(x, y + 8);
  pen.fill();
}

function drawFailure(pen) {
  const x = X(failure.x);
  pen.fillStyle = colours.bad;
  pen.fillRect(x - 1.5, 0, 3, height);
  const text = fitting(pen, view.width * 0.8, `✗ ${failure.short}`, `✗ ${failure.short.slice(0, 40)}…`, "✗ failed");
  const width = pen.measureText(text).width + 12;
  const left = Math.max(x + width > view.width ? x - width : x, 0);
  pen.fillRect(left, 1, width, 18);
  pen.fillStyle = colours.bg;
  pen.fillText(text, left + 6, 10.5);
}

// -- what is under the pointer ----------------------------------------------------------------------------------------

function laneAt(y) {
  let lane = data.lanes.length - 1;
  while (lane > 0 && top_[lane] > y) lane -= 1;
  return lane;
}

function eventAt(px, y) {
  const lane = laneAt(y);
  const { kind } = data.lanes[lane];
  if (kind === "client") {
    return ofLane[lane].findLast((event) => {
      const top = top_[lane] + 4 + event.bar.row * ROW;
      return X(event.x) <= px + 2 && px <= Math.max(X(event.bar.end), X(event.x) + 3) + 2 && top <= y && y <= top + ROW;
    }) ?? null;
  }
  const near = kind === "test" ? marks : ofLane[lane];
  let best = null;
  let least = 9;
  for (let index = first(near, view.from + (px - 9) / view.scale); index < near.length; index += 1) {
    const distance = Math.abs(X(near[index].x) - px);
    if (X(near[index].x) > px + 9) break;
    if (distance < least) [best, least] = [near[index], distance];
  }
  return best ?? ofLane[lane].find((event) => event.bar && X(event.x) <= px && px <= X(event.bar.end)) ?? null;
}

function bandAt(px, y) {
  const lane = laneAt(y);
  return data.bands.find((band) => band.lane === lane && X(band.from) <= px && px < X(band.to)) ?? null;
}

function aboutBand(band) {
  const found = [["head", place(band.lane)]];
  if (band.condition !== "up") found.push(["bad", band.condition === "down" ? "no daemon runs" : "the daemon is frozen"]);
  if (band.ring) found.push(["", `${band.ring} of ${band.nodes}`]);
  else found.push(["", "no client was told of a ring"]);
  found.push(band.quorate === false ? ["bad", "no quorum"] : ["sub", band.quorate ? "quorate" : "no client was told of quorum"]);
  return found;
}

function tell(found, px, py) {
  const tip = $("tip");
  tip.replaceChildren(...found.map(([className, text]) => element("div", className, text)));
  tip.hidden = false;
  const { width, height: tall } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(px + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${py + 18 + tall > innerHeight ? Math.max(4, py - tall - 12) : py + 18}px`;
}

function choose(event, { move = false, note = true } = {}) {
  chosen = event;
  const panel = $("chosen");
  panel.hidden = !event;
  if (event) {
    const children = lines(event).map(([className, text]) => element("div", className, text));
    for (const other of [event.from, ...event.to.slice(0, 12)].filter(Boolean)) {
      const go = element("button", "link", other.kind === "send" ? "its sending" : place(other.lane));
      go.type = "button";
      go.onclick = () => choose(other, { move: true });
      children.push(element("span", "sub", " → ", go));
    }
    panel.replaceChildren(...children);
    if (note) history.replaceState(null, "", `#entry-${event.entry}`);
    if (move || X(event.x) < 0 || X(event.x) > view.width) show(event.x);
    fillTable(Math.max(listed().indexOf(event), 0));
  } else {
    history.replaceState(null, "", "#");
  }
  for (const item of $("story").children) item.classList.toggle("here", event !== null && Number(item.dataset.id) === event.id);
  draw();
}

// -- the table --------------------------------------------------------------------------------------------------------

const PAGE = 200;
let start = 0;
const listed = () => matches ?? events;

function fillTable(around = start) {
  const list = listed();
  start = Math.max(0, Math.min(Math.floor(around / PAGE) * PAGE, list.length - 1));
  const rows = list.slice(start, start + PAGE).map((event) => {
    const go = element("button", "link", String(event.entry));
    go.type = "button";
    go.onclick = () => {
      choose(event, { move: true });
      $("frame").scrollIntoView({ block: "nearest" });
    };
    const kind = event.kind === "failed" ? "bad" : event.missed.length ? "lost" : event.kind;
    const row = element("tr", event === chosen ? `here ${kind}` : kind, "", element("td", "", "", go),
      element("td", "", seconds(event.time, 6)), element("td", "", place(event.lane)));
    const detail = event.detail && !event.text.includes(event.detail) ? ` ${event.detail}` : "";
    row.append(element("td", "", sentence(event), element("span", "sub", detail)));
    return row;
  });
  $("rows").replaceChildren(...rows);
  const end = Math.min(start + PAGE, list.length);
  $("shown").textContent = list.length ? `${start + 1} to ${end} of ${list.length}${matches ? " found" : ""}` : "none";
  $("earlier").disabled = start === 0;
  $("later").disabled = end >= list.length;
  const here = $("rows").querySelector(".here");
  if (here) $("scroll").scrollTop = here.offsetTop - 60;
}

// -- search -----------------------------------------------------------------------------------------------------------

function search(words) {
  const sought = words.toLowerCase().split(/\s+/).filter(Boolean);
  matches = sought.length === 0 ? null : events.filter((event) => {
    const text = `${place(event.lane)} ${sentence(event)} ${event.detail}`.toLowerCase();
    return sought.every((word) => text.includes(word));
  });
  $("found").textContent = matches ? `${matches.length} found` : "";
  start = 0;
  fillTable(0);
  draw();
}

// The next event that the search finds, or that the story tells, or any.
function step(by) {
  const told = data.story.map(([id]) => events[id]);
  const list = matches ?? (told.length ? told : events);
  if (!list.length) return;
  const from = chosen ? chosen.id : by > 0 ? -1 : events.length;
  const next = by > 0 ? list.find((event) => event.id > from) : list.findLast((event) => event.id < from);
  choose(next ?? (by > 0 ? list[0] : list.at(-1)), { move: true });
}

// -- the page ---------------------------------------------------------------------------------------------------------

const MOST_LINES = 1000; // of the story

function head() {
  const badge = data.outcome ? [element("span", /^x?passed$/.test(data.outcome) ? "badge" : "badge failed", data.outcome.toUpperCase())] : [];
  $("title").append(...badge, data.title);
  $("facts").textContent = data.facts.join(" · ");
  const wrong = $("wrong");
  wrong.hidden = !failure && !data.violations.length;
  if (failure) {
    const [why, ...more] = failure.text.split("\n");
    wrong.append(element("p", "why", why));
    if (more.length) wrong.append(element("details", "", "", element("summary", "", "traceback"), element("pre", "", more.join("\n").trim())));
  }
  for (const [rule, text, ids, picture] of data.violations) {
    const line = element("p", "", "", element("strong", "", `${rule}: `), `${text} `);
    for (const id of ids) {
      const go = element("button", "link", events[id].kind === "operation" ? events[id].text : `entry ${events[id].entry}`);
      go.type = "button";
      go.onclick = () => choose(events[id], { move: true });
      line.append(" [", go, "]");
    }
    wrong.append(line);
    if (picture) wrong.append(element("pre", "", picture));
  }
  const earlier = data.story.length - MOST_LINES;
  if (earlier > 0) $("story").append(element("li", "", "", element("span", "text", `… ${earlier} earlier lines are left out`)));
  $("story").append(...data.story.slice(-MOST_LINES).map(([id, time, who, text, kind]) => {
    const go = element("button", "link when", seconds(time));
    go.type = "button";
    go.onclick = () => choose(events[id], { move: true });
    const item = element("li", kind, "", go, element("span", "who", who), element("span", "text", text));
    item.dataset.id = id;
    return item;
  }));
  $("what").hidden = !data.story.length;
  $("to-failure").hidden = !failure;
}

function labels() {
  $("labels").style.height = `${height}px`;
  $("labels").replaceChildren(...data.lanes.map((lane, index) => {
    const made = element("div", lane.kind, "", element("span", "", heightOf(index) > 14 ? lane.label : ""));
    made.title = lane.label;
    Object.assign(made.style, { top: `${top_[index]}px`, height: `${heightOf(index)}px` });
    return made;
  }));
}

function legend() {
  const picture = (paint, width = 30) => {
    const canvas = document.createElement("canvas");
    canvas.style.width = `${width}px`;
    const pen = sized(canvas, width, 16);
    paint(pen);
    return canvas;
  };
  const here = (kind, extra = {}) => picture((pen) => drawEvent(pen, { kind, lane: 0, missed: [], ...extra }, 8, 8), 16);
  const box = (fill, stroke, dash = []) => picture((pen) => {
    pen.fillStyle = fill;
    pen.fillRect(0, 1, 30, 14);
    if (!stroke) return;
    pen.strokeStyle = stroke;
    pen.setLineDash(dash);
    pen.strokeRect(0.5, 1.5, 29, 13);
  });
  const items = [
    [box(ringColour(0)), "ring: nodes that are together have one colour"],
    [picture((pen) => { for (const fill of [ringColour(1), hatch]) { pen.fillStyle = fill; pen.fillRect(0, 1, 30, 14); } }), "no quorum"],
    [box(colours.down), "no daemon"],
    [box(colours.frozen), "frozen"],
    [here("send"), "message sent"],
    [here("receive"), "received"],
    [picture((pen) => { pen.strokeStyle = colours.bad; pen.lineWidth = 1.5; pen.setLineDash([4, 3]); pen.beginPath(); pen.moveTo(0, 8);
      pen.lineTo(20, 8); pen.stroke(); pen.setLineDash([]); cross(pen, 23, 8, 4); }), "never received by a member"],
    [here("members"), "members of the group change"],
    [here("ring"), "ring changes"],
    [here("quorum"), "quorum"],
    [here("failed"), "failed call, loss"],
    [picture((pen) => { pen.fillStyle = colours.fault; drawFlag(pen, 4, 4); }, 16), "fault"],
    [picture((pen) => { pen.fillStyle = colours.good; drawFlag(pen, 4, 4); }, 16), "repair"],
  ];
  if (data.lanes.some((lane) => lane.kind === "client")) {
    items.push([box(colours.operation, colours.good), "operation"], [box(colours.unknown, colours.warn, [4, 3]), "may have taken effect"],
      [box(colours.refused, colours.muted, [4, 3]), "refused"]);
  }
  $("legend").replaceChildren(...items.map(([canvas, text]) => element("span", "", "", canvas, text)));
}

function resize() {
  const before = view.width;
  const whole = view.scale <= leastScale() * 1.001;
  view.width = Math.max($("lanes").clientWidth, 50);
  layOut();
  labels();
  if (whole || before === 1) look(0, 0);
  else look(view.from, view.scale);
}

function listen() {
  const lanes = $("lanes");
  let drag = null;
  lanes.addEventListener("pointerdown", (pointer) => {
    drag = { x: pointer.offsetX, from: view.from, moved: false };
    lanes.setPointerCapture(pointer.pointerId);
  });
  lanes.addEventListener("pointermove", (pointer) => {
    if (drag) {
      drag.moved ||= Math.abs(pointer.offsetX - drag.x) > 3;
      if (!drag.moved) return;
      lanes.classList.add("dragging");
      look(drag.from - (pointer.offsetX - drag.x) / view.scale, view.scale);
      return;
    }
    const event = eventAt(pointer.offsetX, pointer.offsetY);
    if (event !== hovered) draw();
    hovered = event;
    const band = event ? null : bandAt(pointer.offsetX, pointer.offsetY);
    if (event) tell(lines(event), pointer.clientX, pointer.clientY);
    else if (band) tell(aboutBand(band), pointer.clientX, pointer.clientY);
    else $("tip").hidden = true;
  });
  lanes.addEventListener("pointerup", (pointer) => {
    if (drag && !drag.moved) choose(eventAt(pointer.offsetX, pointer.offsetY));
    drag = null;
    lanes.classList.remove("dragging");
  });
  lanes.addEventListener("pointerleave", () => {
    hovered = null;
    $("tip").hidden = true;
    draw();
  });
  lanes.addEventListener("dblclick", (pointer) => zoom(pointer.shiftKey ? 1 / 2.5 : 2.5, pointer.offsetX));
  lanes.addEventListener("wheel", (wheel) => {
    if (wheel.ctrlKey || wheel.metaKey) zoom(Math.exp(-wheel.deltaY / 240), wheel.offsetX);
    else if (wheel.shiftKey || Math.abs(wheel.deltaX) > Math.abs(wheel.deltaY)) look(view.from + (wheel.deltaX || wheel.deltaY) / view.scale, view.scale);
    else return;
    wheel.preventDefault();
  }, { passive: false });

  const overview = $("overview");
  let began = null;
  const at = (pointer) => pointer.offsetX / leastScale() - 0.5;
  overview.addEventListener("pointerdown", (pointer) => {
    began = at(pointer);
    overview.setPointerCapture(pointer.pointerId);
  });
  overview.addEventListener("pointerup", (pointer) => {
    if (began === null) return;
    const [left, right] = [Math.min(began, at(pointer)), Math.max(began, at(pointer))];
    began = null;
    if ((right - left) * leastScale() < 4) look(left - view.width / view.scale / 2, view.scale);
    else look(left, view.width / (right - left));
  });

  $("in").onclick = () => zoom(1.6);
  $("out").onclick = () => zoom(1 / 1.6);
  $("all").onclick = () => look(0, 0);
  $("to-failure").onclick = () => show(failure.x);
  $("next").onclick = () => step(1);
  $("previous").onclick = () => step(-1);
  $("earlier").onclick = () => fillTable(start - PAGE);
  $("later").onclick = () => fillTable(start + PAGE);
  $("search").addEventListener("input", () => search($("search").value));
  $("search").addEventListener("keydown", (key) => {
    if (key.key === "Enter") step(key.shiftKey ? -1 : 1);
    if (key.key === "Escape") {
      $("search").value = "";
      search("");
      $("frame").focus();
    }
    key.stopPropagation();
  });
  document.addEventListener("keydown", (key) => {
    if (key.ctrlKey || key.metaKey || key.altKey) return;
    const some = view.width / view.scale / 5;
    const actions = {
      ArrowLeft: () => look(view.from - some, view.scale),
      ArrowRight: () => look(view.from + some, view.scale),
      Home: () => look(0, view.scale),
      End: () => look(total, view.scale),
      "+": () => zoom(1.6),
      "=": () => zoom(1.6),
      "-": () => zoom(1 / 1.6),
      0: () => look(0, 0),
      n: () => step(1),
      p: () => step(-1),
      f: () => failure && show(failure.x),
      "/": () => $("search").focus(),
      Escape: () => choose(null),
    };
    const scrolls = ["ArrowLeft", "ArrowRight", "Home", "End"].includes(key.key);
    if (!(key.key in actions) || (scrolls && document.activeElement !== $("frame"))) return;
    actions[key.key]();
    key.preventDefault();
  });
  const followAddress = () => {
    const entry = /^#entry-(\d+)$/.exec(location.hash)?.[1];
    const event = entry && events.find((one) => one.entry === Number(entry));
    if (event) choose(event, { move: true, note: false });
  };
  addEventListener("hashchange", followAddress);
  new ResizeObserver(resize).observe($("frame"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    legend();
    draw();
  });
  followAddress();
}

readColours();
layOut();
head();
resize();
legend();
fillTable(0);
listen();
