"use strict";
// Draws one image: its boxes, its captions with their spans, its relations. All text of a store enters as text nodes.

const WIDE = 1000; // units of a picture's drawing from left to right
const HUES = 7; // of style.css; more concepts than that take dashes
const SVG = "http://www.w3.org/2000/svg";

function put(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}
const el = (tag, attributes, ...children) => put(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => put(document.createElementNS(SVG, tag), attributes, children);

const token = (caption, number) => `${caption}:${number}`;
const shareOf = (score) => score.toFixed(2);

/** What is drawn of a figure, found once: its concepts by token, each object with its colour. */
function read(figure) {
  const concepts = new Map();
  figure.captions.forEach((caption, at) => {
    for (const concept of caption.concepts) concepts.set(token(at, concept.number), { ...concept, at });
  });
  for (const concept of concepts.values()) {
    const { subject, object, owner, number } = concept;
    const grounds = { object: [number], attribute: [owner], relation: [subject, object] }[concept.kind];
    concept.grounds = grounds.filter((one) => one != null).map((one) => token(concept.at, one));
  }
  const boxes = figure.boxes.map((box) => ({ ...box, tokens: box.of.map(([caption, number]) => token(caption, number)) }));
  paint([...concepts.values()].filter((concept) => concept.kind === "object"), boxes);
  for (const concept of concepts.values())
    if (concept.kind === "attribute") concept.colour = concepts.get(concept.grounds[0])?.colour;
  return { figure, concepts, boxes };
}

/** Colours for objects: one for all that captions call by the same words, or that have the same best box. */
function paint(objects, boxes) {
  const groups = [];
  for (const object of objects) {
    object.box = boxes.find((box) => box.tokens.includes(object.grounds[0])); // the best comes first
    const fits = (group) => group.some((one) => one.phrase === object.phrase) ||
      // Two objects of one caption are two things, wherever their boxes lie.
      (group.every((one) => one.at !== object.at) && group.some((one) => one.box && object.box && overlap(one.box.corners, object.box.corners) > 0.8));
    let at = groups.findIndex(fits);
    if (at < 0) at = groups.push([]) - 1;
    groups[at].push(object);
    object.colour = at;
  }
}

function overlap([ax0, ay0, ax1, ay1], [bx0, by0, bx1, by1]) {
  const common = Math.max(0, Math.min(ax1, bx1) - Math.max(ax0, bx0)) * Math.max(0, Math.min(ay1, by1) - Math.max(ay0, by0));
  return common / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - common);
}

const tint = (colour) =>
  colour == null ? {} : { "data-hue": colour % HUES, "data-dash": Math.floor(colour / HUES) % 3 || null };

/** The words of a caption that a concept is. */
function words(caption, spans) {
  const letters = Array.from(caption.caption || ""); // offsets are code points
  return spans.map(([start, end]) => letters.slice(start, end).join("")).join(" … ");
}

function altText(read) {
  const { figure } = read;
  const seen = read.boxes.map((box) => read.concepts.get(box.tokens[0])?.phrase).filter(Boolean);
  const caption = figure.captions.find((one) => one.caption)?.caption || "No caption";
  return caption + (seen.length ? ` Boxes: ${[...new Set(seen)].join(", ")}.` : " No boxes.");
}

/** The picture with its boxes and arrows. `source`: the address of the image. */
function drawPicture(read, source, large) {
  const { figure } = read;
  const ratio = figure.width && figure.height ? figure.width / figure.height : 4 / 3;
  const high = WIDE / ratio;
  const image = el("img", { alt: altText(read), loading: large ? null : "lazy", src: source, draggable: "false" });
  const picture = el("div", { class: "picture", "--ratio": ratio }, image);
  const lost = (why) => picture.replaceChildren(el("p", { class: "lost" }, why || "The image cannot be shown."));
  if (!source) lost(figure.lost);
  image.addEventListener("error", () => lost(figure.lost));
  const marker = `arrow-${(drawPicture.made = (drawPicture.made || 0) + 1)}`;
  const drawing = svg("svg", { viewBox: `0 0 ${WIDE} ${high}`, "aria-hidden": "true" },
    svg("defs", {}, svg("marker",
      { id: marker, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 5, markerHeight: 5, orient: "auto-start-reverse" },
      svg("path", { d: "M0 0L8 4L0 8z", class: "head" }))));
  const labels = [], rects = [], named = new Set();
  const centres = new Map();
  for (const box of read.boxes) { // best first
    const [x0, y0, x1, y1] = box.corners;
    const concept = read.concepts.get(box.tokens[0]);
    const first = !named.has(concept?.colour);
    named.add(concept?.colour);
    const shared = { "data-c": box.tokens.join(" "), "data-score": box.score, ...tint(concept?.colour) };
    // Boxes that lie on each other are one to the pointer.
    const same = read.boxes.filter((other) => overlap(box.corners, other.corners) > 0.8).flatMap((other) => other.tokens);
    const drawn = { ...shared, "data-lights": [...new Set(same)].join(" ") };
    rects.push(svg("rect", { ...drawn, x: x0 * WIDE, y: y0 * high, width: (x1 - x0) * WIDE, height: (y1 - y0) * high, rx: 3 }));
    const right = x0 + x1 > 1; // a label reaches into the picture, not out of it
    const corner = { "--x": `${100 * (right ? x1 : x0)}%`, "--y": `${100 * y0}%`, "--dx": right ? "-100%" : "0", "--dy": y0 < 0.08 ? "0" : "-100%" };
    labels.push(el("span", { ...shared, ...corner, class: first ? "label best" : "label" },
      concept?.phrase || "", el("b", {}, shareOf(box.score))));
    for (const one of box.tokens)
      if (!centres.has(one)) centres.set(one, { x: (x0 + x1) / 2 * WIDE, y: (y0 + y1) / 2 * high, w: (x1 - x0) / 2 * WIDE, h: (y1 - y0) / 2 * high, score: box.score });
  }
  const area = (rect) => rect.getAttribute("width") * rect.getAttribute("height");
  drawing.append(...rects.sort((a, b) => area(b) - area(a))); // a small one is never under a large one
  for (const [name, concept] of read.concepts) {
    const [from, to] = concept.kind === "relation" && concept.grounds.length === 2 ? concept.grounds.map((one) => centres.get(one)) : [];
    if (!from || !to || (from.x === to.x && from.y === to.y)) continue;
    const bend = 0.12 * Math.hypot(to.x - from.x, to.y - from.y), length = Math.hypot(to.x - from.x, to.y - from.y);
    const x = (from.x + to.x) / 2 + bend * (to.y - from.y) / length, y = (from.y + to.y) / 2 - bend * (to.x - from.x) / length;
    const shared = { "data-c": name, "data-score": Math.min(from.score, to.score) };
    let a = edge(from, { x, y }), b = edge(to, { x, y });
    // Boxes that lie over each other have no way between their edges.
    if ((b.x - a.x) * (to.x - from.x) + (b.y - a.y) * (to.y - from.y) <= 0) [a, b] = [from, to];
    const path = `M${a.x} ${a.y}Q${x} ${y} ${b.x} ${b.y}`;
    drawing.append(svg("path", { ...shared, class: "halo", d: path }),
      svg("path", { ...shared, class: "arrow", d: path, "marker-end": `url(#${marker})` }));
    const share = { "--x": `${(from.x + 2 * x + to.x) / 4 / WIDE * 100}%`, "--y": `${(from.y + 2 * y + to.y) / 4 / high * 100}%` };
    labels.push(el("span", { ...shared, ...share, class: "label relation" }, words(figure.captions[concept.at], concept.spans)));
  }
  if (source) picture.append(drawing, ...labels);
  return el("div", { class: "frame" }, picture);
}

/** Where the way from a box's centre to a place leaves the box. */
function edge(box, place) {
  const dx = place.x - box.x, dy = place.y - box.y;
  const share = Math.min(1, box.w / Math.abs(dx || 1e-9), box.h / Math.abs(dy || 1e-9));
  return { x: box.x + dx * share, y: box.y + dy * share };
}

/** A caption as a paragraph, its concepts marked where they stand. */
function drawCaption(read, at) {
  const caption = read.figure.captions[at];
  const letters = Array.from(caption.caption || "");
  const spans = caption.concepts.flatMap((concept) =>
    concept.spans.map(([start, end]) => ({ start, end, concept: read.concepts.get(token(at, concept.number)) })));
  const edges = [...new Set([0, letters.length, ...spans.flatMap(({ start, end }) => [start, end])])].sort((a, b) => a - b);
  const parts = edges.slice(0, -1).map((start, i) => {
    const text = letters.slice(start, edges[i + 1]).join("");
    const over = spans.filter((span) => span.start <= start && span.end >= edges[i + 1]);
    if (!over.length) return text;
    over.sort((a, b) => a.end - a.start - (b.end - b.start));
    const { concept } = over[0];
    const inside = over.find((span) => span.concept.kind === "object")?.concept;
    const own = over.map((span) => token(at, span.concept.number));
    return el("span", { class: `span ${concept.kind}${concept.denied ? " denied" : ""}`, "data-c": own.join(" "),
      "data-lights": [own[0], ...concept.grounds].join(" "), title: said(read, concept), ...tint((inside || concept).colour) }, text);
  });
  return el("p", { class: "caption" }, parts.length ? parts : el("em", {}, "no caption"));
}

function said(read, concept) {
  const best = read.boxes.filter((box) => concept.grounds.some((one) => box.tokens.includes(one)))[0];
  return `${concept.denied ? "denied " : ""}${concept.kind} “${concept.lemma}”` + (best ? `, best box ${shareOf(best.score)}` : ", no box");
}

/** The caption's objects in a row, its relations as arcs over them, attributes below. */
function drawGraph(read, at) {
  const caption = read.figure.captions[at];
  const concepts = caption.concepts.map((concept) => read.concepts.get(token(at, concept.number)));
  const objects = concepts.filter((concept) => concept.kind === "object");
  if (!objects.length) return null;
  const pen = document.createElement("canvas").getContext("2d");
  const width = (text, font) => ((pen.font = font), pen.measureText(text).width);
  objects.sort((a, b) => a.head[0] - b.head[0]);
  const places = new Map();
  let x = 8;
  for (const object of objects) {
    const attributes = concepts.filter((one) => one.kind === "attribute" && one.owner === object.number).map((one) => one.lemma);
    const name = (object.denied ? "no " : "") + object.lemma, below = attributes.join(", ");
    const wide = Math.max(width(name, "14px system-ui") + 24, width(below, "12px system-ui") + 8);
    places.set(object.number, { object, name, below, x: x + wide / 2, wide: width(name, "14px system-ui") + 20 });
    x += wide + 36;
  }
  const arcs = concepts.filter((one) => one.kind === "relation" && places.has(one.subject) && places.has(one.object) && one.subject !== one.object);
  const far = (arc) => Math.abs(places.get(arc.subject).x - places.get(arc.object).x);
  const rise = (arc) => Math.min(26 + far(arc) * 0.22, 90);
  const top = Math.max(0, ...arcs.map(rise)) + 16, total = Math.max(x - 28, 40);
  const marker = `tip-${(drawGraph.made = (drawGraph.made || 0) + 1)}`;
  const drawing = svg("svg", { class: "graph", role: "img", "aria-label": triplets(concepts), viewBox: `0 0 ${total} ${top + 54}`, width: total, height: top + 54 },
    svg("defs", {}, svg("marker", { id: marker, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
      svg("path", { d: "M0 0L8 4L0 8z", class: "head" }))));
  for (const arc of arcs) {
    const a = places.get(arc.subject).x, b = places.get(arc.object).x, shift = a < b ? 6 : -6, up = rise(arc);
    const tokens = { "data-c": token(at, arc.number), "data-lights": [token(at, arc.number), ...arc.grounds].join(" ") };
    drawing.append(
      svg("path", { ...tokens, class: "arc", d: `M${a + shift} ${top}C${a + shift} ${top - up * 1.3} ${b - shift} ${top - up * 1.3} ${b - shift} ${top - 2}`, "marker-end": `url(#${marker})` }),
      svg("text", { ...tokens, x: (a + b) / 2, y: top - up - 3, class: "arc-name" }, arc.lemma));
  }
  for (const [number, { object, name, below, x: centre, wide }] of places) {
    const tokens = { "data-c": token(at, number), "data-lights": token(at, number) };
    drawing.append(svg("g", { ...tokens, class: `node${object.denied ? " denied" : ""}`, ...tint(object.colour) },
      svg("rect", { x: centre - wide / 2, y: top + 2, width: wide, height: 26, rx: 13 }),
      svg("text", { x: centre, y: top + 19.5 }, name)),
      svg("text", { x: centre, y: top + 46, class: "below" }, below));
  }
  return el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Scene graph" }, drawing);
}

function triplets(concepts) {
  const name = (number) => concepts.find((one) => one.number === number)?.lemma || "it";
  const facts = concepts.map((one) => ({
    object: () => (one.denied ? `no ${one.lemma}` : one.lemma),
    attribute: () => `${name(one.owner)} is ${one.lemma}`,
    relation: () => `${name(one.subject)} ${one.lemma} ${name(one.object)}`,
  })[one.kind]());
  return `Scene graph: ${facts.join("; ")}.`;
}

/** Hovering, or reaching by Tab, what has a concept lights all that is of it. */
function link(root) {
  const light = (event) => {
    const at = event.target.closest?.("[data-c]");
    const wanted = new Set((at?.dataset.lights || at?.dataset.c || "").split(" ").filter(Boolean));
    root.classList.toggle("lighting", wanted.size > 0);
    for (const one of root.querySelectorAll("[data-c]"))
      one.classList.toggle("lit", one.dataset.c.split(" ").some((name) => wanted.has(name)));
  };
  for (const kind of ["mouseover", "focusin"]) root.addEventListener(kind, light);
  for (const kind of ["mouseleave", "focusout"]) root.addEventListener(kind, () => light({ target: root }));
  return root;
}

/** Hide what has a lower score. */
function cut(root, threshold) {
  for (const one of root.querySelectorAll("[data-score]"))
    one.classList.toggle("low", Math.fround(Number(one.dataset.score)) < Math.fround(threshold));
}
