"use strict";
// The page: its state is its address; everything that it shows follows from that.

const FACETS = ["kind", "concept", "status", "dataset", "split", "shard", "tag"];
const KINDS = ["object", "attribute", "relation"];
const NAMES = { kind: "Kind", concept: "Concepts", status: "Status", dataset: "Dataset", split: "Split", shard: "Shard", tag: "Tags" };
const KEYS = [
  ["j, k", "next, previous image"], ["Enter", "open it"], ["Esc", "close"], ["n, p", "next, previous page"],
  ["[, ]", "lower, raise the score"], ["b", "hide or show boxes"], ["/", "look for a concept"], ["r", "another random order"],
  ["t", "tag an image"], ["c", "copy as --where"], ["?", "these keys"],
];
const $ = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en");
const embedded = $("data") && JSON.parse($("data").textContent);
const ask = embedded ? offline(embedded) : async (name, query) => {
  const answer = await fetch(`api/${name}?${query || ""}`);
  const body = await answer.json().catch(() => ({ error: `the server says ${answer.status}` }));
  if (!answer.ok) throw new Error(body.error);
  return body;
};

let store, state, counts = null, like = "", turn = 0, shown = [], where = "";

function parse(search) {
  const query = new URLSearchParams(search);
  const found = { t: store.threshold, only: query.has("only"), where: query.get("where") || "",
    sort: query.get("sort") || "store", seed: 0, at: 0, image: query.get("image") };
  for (const facet of FACETS) found[facet] = query.getAll(facet);
  // The server says what is wrong with these; the next change drops them.
  found.unknown = [...query].filter(([name]) => !Object.hasOwn(found, name) || (embedded && name === "where"));
  found.wrong = embedded && found.unknown.length ? `this page knows no ${found.unknown[0][0]}: macco-prep serve may` : "";
  const numeric = (name, fits, meant) => {
    if (!query.has(name)) return;
    const value = Number(query.get(name) || NaN);
    if (fits(value)) found[name] = value;
    else found.wrong = `${name} is “${query.get(name)}”: it is ${meant}`;
  };
  numeric("t", (value) => value >= 0 && value <= 1, "a score between 0 and 1");
  for (const name of ["at", "seed"]) numeric(name, (value) => Number.isSafeInteger(value) && value >= 0, "a whole number from 0 on");
  return found;
}

/** The state as an address's query: what the server is asked with, or (`whole`) what the page is opened again with. */
function query(whole) {
  const made = new URLSearchParams();
  for (const facet of FACETS) for (const value of state[facet]) made.append(facet, value);
  for (const name of ["where", "sort", "seed"]) if (state[name] && state[name] !== "store") made.set(name, state[name]);
  if (whole) {
    if (state.t !== store.threshold) made.set("t", state.t);
    if (state.only) made.set("only", "1");
    if (state.at) made.set("at", state.at);
    if (state.image) made.set("image", state.image);
  } else {
    if (state.only) made.set("score", state.t);
    for (const [name, value] of state.unknown) made.append(name, value);
  }
  return made;
}

/** Change the state; `fresh` unless only what is drawn changes. */
async function go(change, { fresh = true, replace = false } = {}) {
  if (fresh && !("at" in change)) state.at = 0;
  Object.assign(state, { unknown: [], wrong: "" }, change);
  const address = `?${query(true)}`;
  if (address !== location.search) history[replace ? "replaceState" : "pushState"](null, "", address === "?" ? location.pathname : address);
  await (fresh ? refresh() : redraw());
}

async function refresh() {
  const mine = ++turn, asked = query(false);
  document.body.classList.add("busy");
  try {
    if (state.wrong) throw new Error(state.wrong);
    const page = new URLSearchParams(asked);
    page.set("at", state.at);
    page.set("limit", store.page);
    const [figures, facets, scores] = await Promise.all([ask("figures", page), ask("facets", `${asked}&like=${encodeURIComponent(like)}`), ask("scores", asked)]);
    if (mine !== turn) return;
    if (!figures.figures.length && figures.total) // the address is of a page that is no more
      return void go({ at: store.page * Math.floor((figures.total - 1) / store.page) }, { replace: true });
    problem("");
    shown = figures.figures.map(read);
    counts = scores;
    where = facets.where || "";
    drawGrid(facets);
    drawFacets(facets);
    drawChips();
    drawPager(figures.total);
    await redraw();
    if (facets.share < 1) setTimeout(() => mine === turn && grow(mine), 700);
  } catch (error) {
    if (mine === turn) problem(error.message);
  } finally {
    if (mine === turn) document.body.classList.remove("busy");
  }
}

/** Counts again, while the server still reads the store. */
async function grow(mine) {
  const asked = query(false);
  try {
    const [facets, scores] = await Promise.all([ask("facets", `${asked}&like=${encodeURIComponent(like)}`), ask("scores", asked)]);
    if (mine !== turn) return;
    counts = scores;
    drawFacets(facets);
    drawPager(facets.total);
    drawSlider();
    if (!shown.length && (facets.total || facets.share === 1)) return void refresh();
    if (facets.share < 1) setTimeout(() => mine === turn && grow(mine), 700);
  } catch (error) {
    if (mine === turn) problem(error.message);
  }
}

/** What follows from the threshold and the open image. */
async function redraw() {
  drawSlider();
  for (const root of document.querySelectorAll(".figure, #detail")) cut(root, state.t);
  if (state.image && $("detail").dataset.id !== state.image) await openDetail(state.image);
  if (!state.image && $("detail").open) $("detail").close();
}

function problem(text, place = "problem") {
  $(place).hidden = !text;
  $(place).textContent = text || "";
}

const address = (figure, side) => (embedded ? figure.src : `image?id=${encodeURIComponent(figure.id)}&side=${side}`);

function drawGrid(facets) {
  $("grid").replaceChildren(...shown.map((found) => {
    const { figure } = found;
    const open = (event) => { event.preventDefault(); go({ image: figure.id }, { fresh: false }); };
    const made = new URLSearchParams({ image: figure.id });
    const bad = figure.captions.find((caption) => caption.status !== "ok");
    const picture = drawPicture(found, address(figure, 480), false);
    picture.addEventListener("click", open);
    return link(el("article", { class: "figure", "data-id": figure.id }, picture,
      el("div", { class: "captions" }, figure.captions.map((_, at) => drawCaption(found, at))),
      bad && el("p", { class: "status" }, el("b", {}, bad.status), bad.error ? ` ${bad.error}` : ""),
      el("footer", {}, el("a", { href: `?${made}`, class: "open", onclick: open }, figure.key),
        figure.tags.map((tag) => el("span", { class: "tag" }, tag)), el("span", { class: "where" }, `${figure.dataset} · ${figure.shard}`))));
  }));
  if (!shown.length) $("grid").append(el("p", { class: "empty" }, facets.of ? "No image meets this. Loosen a filter, or lower the score."
    : facets.share < 1 ? "The store is being read." : "There is no image here."));
}

function toggle(facet, value) {
  const values = state[facet];
  go({ [facet]: values.includes(value) ? values.filter((one) => one !== value) : [...values, value] });
}

function choice(facet, value, text, count, mark) {
  const box = el("input", { type: "checkbox", checked: state[facet].includes(value), value, onchange: () => toggle(facet, value) });
  return el("label", { class: "choice" }, box, el("span", { class: "text" }, text, mark && el("i", {}, mark)), el("span", { class: "number" }, number(count)));
}

function drawFacets(facets) {
  for (const facet of FACETS) {
    const holder = $(`facet-${facet}`);
    let rows = facet === "concept" ? facets.concept.map((one) => choice(facet, one.name, one.lemma, one.count, one.kind))
      : Object.entries(facets[facet] || {}).filter(([value, count]) => count || state[facet].includes(value) || facet === "kind");
    if (facet === "kind") rows.sort((a, b) => KINDS.indexOf(a[0]) - KINDS.indexOf(b[0]));
    const several = rows.length, [, alike] = facet !== "concept" && rows[0] || [];
    if (facet === "shard") rows = rows.filter(([value], at) => at < 8 || state.shard.includes(value));
    if (facet !== "concept") rows = rows.map(([value, count]) => choice(facet, value, value, count));
    if (facet === "shard" && several > rows.length) rows.push(el("p", { class: "more" }, `and ${number(several - rows.length)} more: type a name`));
    const focused = document.activeElement?.value, inside = holder.contains(document.activeElement);
    holder.replaceChildren(...rows);
    if (inside) [...holder.querySelectorAll("input")].find((one) => one.value === focused)?.focus();
    // One value that all have says nothing.
    const plain = several < 2 && alike === facets.total && ["status", "dataset", "shard", "split"].includes(facet) && !state[facet].length;
    $(`section-${facet}`).hidden = !several || plain;
  }
  const reading = facets.share < 1 ? ` · reading the store, ${Math.floor(100 * facets.share)} %` : "";
  problem(facets.failed && `Not all of the store is shown: ${facets.failed}`, "failed");
  $("count").textContent = `${number(facets.total)} of ${number(facets.of)} images${reading}`;
}

function drawChips() {
  const chips = FACETS.flatMap((facet) => state[facet].map((value) => [facet, value]));
  const chip = (text, remove) => el("button", { class: "chip", onclick: remove, "aria-label": `Remove ${text}` }, text, el("span", { "aria-hidden": "true" }, " ×"));
  $("chips").replaceChildren(...chips.map(([facet, value]) => chip(value.replace(":", " "), () => toggle(facet, value))),
    ...(state.only ? [chip(`score ≥ ${shareOf(state.t)}`, () => go({ only: false }))] : []),
    ...(state.where ? [chip(state.where, () => go({ where: "" }))] : []));
  $("where").value = state.where;
  $("sort").value = state.sort;
  $("shuffle").hidden = state.sort !== "random";
  $("only").checked = state.only;
}

function drawPager(total) {
  const from = state.at + 1, to = state.at + shown.length;
  const turnTo = (at, name) => el("button", { disabled: at === state.at || at >= total, onclick: () => { go({ at }); scrollTo(0, 0); } }, name);
  $("pager").replaceChildren(turnTo(Math.max(0, state.at - store.page), "Previous"), el("span", {}, shown.length ? `${number(from)}–${number(to)} of ${number(total)}` : ""), turnTo(state.at + store.page, "Next"));
}

function drawSlider() {
  const at = Math.round(100 * state.t);
  $("score").value = at;
  $("score").setAttribute("aria-valuetext", shareOf(state.t));
  $("threshold").textContent = shareOf(state.t);
  if (!counts) return;
  const boxes = counts.boxes ? `, ${number(counts.boxes[at])} boxes` : "";
  $("counted").textContent = `${number(counts.images[at])} images${boxes}`;
  const falls = counts.images.map((count, i) => count - (counts.images[i + 1] ?? 0)), most = Math.max(1, ...falls);
  $("spark").replaceChildren(...falls.map((fall, i) => svg("rect", { x: i, y: 24 - 24 * fall / most, width: 0.8, height: 24 * fall / most, class: i < at ? "below" : "" })));
}

function section(facet, ...more) {
  return el("fieldset", { id: `section-${facet}` }, el("legend", {}, NAMES[facet]), ...more, el("div", { id: `facet-${facet}`, class: "choices" }));
}

function drawFilters() {
  let waiting;
  const later = (act) => { clearTimeout(waiting); waiting = setTimeout(act, 200); };
  const search = el("input", { id: "like", type: "search", placeholder: "Look for a concept", "aria-label": "Look for a concept", oninput: () => { like = search.value.trim().toLowerCase(); later(refresh); } });
  const slide = (event) => { state.t = Number(event.target.value) / 100; redraw(); };
  const slid = () => go({ t: state.t }, { fresh: state.only, replace: true });
  const shard = el("input", { type: "search", placeholder: "A shard's name", "aria-label": "A shard's name", onchange: () => { if (shard.value.trim()) toggle("shard", shard.value.trim()); shard.value = ""; } });
  const sql = el("textarea", { id: "where", rows: 3, spellcheck: "false", placeholder: "lemma = 'dog' AND score > 0.5", "aria-label": "SQL condition",
    onkeydown: (event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); go({ where: sql.value.trim() }); } } });
  $("filters").replaceChildren(
    el("fieldset", { class: "score" }, el("legend", {}, "Box score"),
      el("p", { class: "reading" }, "≥ ", el("output", { id: "threshold", for: "score" }), el("span", { id: "counted", role: "status" })),
      svg("svg", { id: "spark", viewBox: "0 0 101 24", preserveAspectRatio: "none", "aria-hidden": "true" }),
      el("input", { id: "score", type: "range", min: 0, max: 100, "aria-label": "Least score of boxes", oninput: slide, onchange: slid }),
      el("label", { class: "choice" }, el("input", { id: "only", type: "checkbox", onchange: (event) => go({ only: event.target.checked }) }), el("span", { class: "text" }, "only images with such a box"))),
    section("kind"), section("concept", search), section("status"), section("tag"), section("split"), section("dataset"), section("shard", shard),
    el("fieldset", { hidden: !!embedded }, el("legend", {}, "SQL"), sql,
      el("div", { class: "buttons" }, el("button", { onclick: () => go({ where: sql.value.trim() }) }, "Apply"), el("button", { id: "copy", onclick: copyWhere }, "Copy as --where")),
      el("p", { class: "hint" }, "Columns of samples, concepts and boxes: an image is shown if one of its captions has such a concept or box.")));
}

async function copyWhere() {
  // In double quotes a shell still reads these.
  const text = `--where "${(where || "true").replace(/[\\"$`!]/g, (letter) => (letter === "!" ? `"'!'"` : `\\${letter}`))}"`;
  try {
    await navigator.clipboard.writeText(text);
    note("copied");
  } catch {
    prompt("Copy this:", text);
  }
  $("copy").dataset.copied = text;
}

function note(text) {
  const one = el("p", { class: "note", role: "status" }, text);
  document.body.append(one);
  setTimeout(() => one.remove(), 1600);
}

async function openDetail(id) {
  const dialog = $("detail");
  let found = shown.find(({ figure }) => figure.id === id);
  try {
    found ??= read(await ask("figure", new URLSearchParams({ id })));
    if (!found.figure?.captions) throw new Error("no such image");
  } catch (error) {
    state.image = null;
    problem(error.message);
    return;
  }
  if (state.image !== id) return;
  const { figure } = found;
  dialog.dataset.id = id;
  const near = shown.findIndex((one) => one.figure.id === id);
  const step = (by) => el("button", { disabled: !shown[near + by] || near < 0, onclick: () => go({ image: shown[near + by].figure.id }, { fresh: false, replace: true }), "aria-label": by < 0 ? "Previous image" : "Next image" }, by < 0 ? "‹" : "›");
  const size = figure.width ? `${figure.width} × ${figure.height}` : "";
  const lies = [figure.source, figure.member].filter(Boolean).join(" › ");
  dialog.replaceChildren(
    el("div", { class: "bar" }, el("h2", {}, figure.key), el("span", { class: "where" }, [figure.dataset, figure.shard, size].filter(Boolean).join(" · ")),
      step(-1), step(1), el("button", { onclick: () => go({ image: null }, { fresh: false }), "aria-label": "Close" }, "×")),
    el("div", { class: "sides" },
      el("div", { class: "left" }, drawPicture(found, address(figure, 1280), true), !embedded && drawTags(figure),
        el("p", { class: "lies" }, lies),
        store.training && el("p", { class: "lies" }, "As training sees it: ", el("code", {}, store.training))),
      el("div", { class: "right" }, figure.captions.map((caption, at) => el("section", {},
        drawCaption(found, at), caption.status !== "ok" && el("p", { class: "status" }, el("b", {}, caption.status), ` ${caption.error || ""}`),
        drawGraph(found, at), drawConcepts(found, at),
        caption.negatives.length > 0 && el("details", {}, el("summary", {}, "Hard negatives"), el("ul", {}, caption.negatives.map((one) => el("li", {}, el("i", {}, one.kind.replace("_", " ")), " ", one.caption)))),
        store.seen && drawSeen(caption))))));
  cut(dialog, state.t);
  if (!dialog.open) dialog.showModal();
}

function drawConcepts(found, at) {
  const rows = found.figure.captions[at].concepts.map((one) => {
    const concept = found.concepts.get(token(at, one.number));
    const best = found.boxes.find((box) => concept.grounds.some((name) => box.tokens.includes(name)));
    const tokens = { "data-c": token(at, one.number), "data-lights": [token(at, one.number), ...concept.grounds].join(" ") };
    return el("tr", { ...tokens, ...tint(concept.colour) }, el("td", {}, el("button", { class: "concept" }, words(found.figure.captions[at], one.spans))),
      el("td", {}, one.kind + (one.denied ? ", denied" : "")), el("td", {}, one.lemma), el("td", { class: "number" }, best ? shareOf(best.score) : "–"));
  });
  if (!rows.length) return null;
  const heads = ["words", "kind", "lemma", "score"].map((text) => el("th", { scope: "col" }, text));
  return el("details", {}, el("summary", {}, `${rows.length} concepts`), el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows)));
}

function drawTags(figure) {
  const holder = el("div", { class: "tags" });
  const set = async (tag, on) => {
    try {
      const answer = await fetch("api/tags", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ id: figure.id, tag, on }) });
      const body = await answer.json();
      if (!answer.ok) throw new Error(body.error);
      figure.tags = body.tags;
      draw();
      refresh();
    } catch (error) {
      note(error.message);
    }
  };
  const draw = () => {
    const word = el("input", { id: "new-tag", placeholder: "Add a tag", "aria-label": "Add a tag", maxlength: 100, onkeydown: (event) => { if (event.key === "Enter" && word.value.trim()) set(word.value.trim(), true); } });
    holder.replaceChildren(...figure.tags.map((tag) => el("button", { class: "chip", onclick: () => set(tag, false), "aria-label": `Remove tag ${tag}` }, tag, el("span", { "aria-hidden": "true" }, " ×"))), word);
  };
  draw();
  return holder;
}

/** What training makes of a caption and its image: asked for when it is opened. */
function drawSeen(caption) {
  const holder = el("div", { class: "seen" });
  let seed = 0;
  const of = (masks, what) => `${masks.filter(Boolean).length} of ${masks.length} ${what}`;
  const list = (what, items) => items.length > 0 && el("div", {}, el("p", { class: "hint" }, what), el("ul", {}, items.map((one) => el("li", {}, one))));
  const draw = async () => {
    try {
      const seen = await ask("seen", new URLSearchParams({ sample: caption.sample_id, seed }));
      const cells = seen.patches.map((masked, i) => masked && svg("rect", { x: i % seen.grid, y: Math.floor(i / seen.grid), width: 1, height: 1 }));
      holder.replaceChildren();
      put(holder, {}, [
        el("div", { class: "crop" }, el("img", { src: seen.image, alt: "The crop that training sees, its masked patches dark" }), svg("svg", { viewBox: `0 0 ${seen.grid} ${seen.grid}`, "aria-hidden": "true" }, cells)),
        el("p", { class: "tokens" }, seen.tokens.map(({ text, masked }) => el("span", { class: masked ? "masked" : "" }, text))),
        el("p", { class: "hint" }, `Masked: ${of(seen.tokens.map((one) => one.masked), "tokens")}, ${of(seen.patches, "patches")}. Under ${store.seen}.`),
        list("Hard negatives", seen.negatives.map((one) => [el("i", {}, one.kind.replace("_", " ")), " ", one.caption])),
        list("Other captions of the image", seen.siblings), list("Paraphrases", seen.paraphrases),
        seen.lacks.map((text) => el("p", { class: "status" }, text)),
        el("button", { onclick: () => { seed += 1; draw(); } }, "Another draw"),
      ]);
    } catch (error) {
      holder.replaceChildren(el("p", { class: "status" }, error.message));
    }
  };
  return el("details", { ontoggle: (event) => event.target.open && !holder.childElementCount && draw() }, el("summary", {}, "As training sees it"), holder);
}

function keyboard(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches?.("input:not([type=checkbox], [type=range]), textarea, select");
  if (event.key === "Escape" && typing) return void event.target.blur();
  if (typing) return;
  const detail = $("detail").open, cards = [...document.querySelectorAll(".figure .open")];
  const here = cards.indexOf(document.activeElement?.closest?.(".figure")?.querySelector(".open"));
  const near = shown.findIndex(({ figure }) => figure.id === state.image);
  const move = (by) => {
    if (detail && shown[near + by]) return go({ image: shown[near + by].figure.id }, { fresh: false, replace: true });
    const card = cards[Math.min(Math.max(here + by, 0), cards.length - 1)];
    card?.focus();
    card?.closest(".figure").scrollIntoView({ block: "nearest" });
  };
  const page = (by) => [...$("pager").querySelectorAll("button")].at(by > 0 ? -1 : 0)?.click();
  const score = (by) => go({ t: Math.min(100, Math.max(0, Math.round(100 * state.t) + by)) / 100 }, { fresh: state.only, replace: true });
  const tag = async () => {
    if (!detail && here < 0) return note("j and k choose an image");
    if (!detail) await go({ image: shown[here].figure.id }, { fresh: false });
    $("new-tag")?.focus();
  };
  const acts = {
    j: () => move(1), k: () => move(-1), n: () => !detail && page(1), p: () => !detail && page(-1), "[": () => score(-1), "]": () => score(1),
    b: () => document.body.classList.toggle("bare"), "/": () => !detail && $("like").focus(), c: !embedded && copyWhere,
    r: () => go({ sort: "random", seed: state.seed + 1, image: null }), t: !embedded && tag, "?": () => $("help").showModal(),
  };
  if (!acts[event.key]) return;
  event.preventDefault();
  acts[event.key]();
}

async function start() {
  store = await ask("store");
  document.title = `${store.name} – macco`;
  $("name").textContent = store.name;
  $("name").title = store.store;
  state = parse(location.search);
  drawFilters();
  $("help").append(el("div", { class: "bar" }, el("h2", {}, "Keys"), el("button", { onclick: () => $("help").close(), "aria-label": "Close" }, "×")),
    el("dl", {}, KEYS.filter(([key]) => !embedded || !["t", "c"].includes(key)).map(([key, what]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)])));
  $("open-help").addEventListener("click", () => $("help").showModal());
  $("sort").addEventListener("change", (event) => go({ sort: event.target.value }));
  $("shuffle").addEventListener("click", () => go({ sort: "random", seed: state.seed + 1 }));
  $("open-filters").addEventListener("click", () => {
    const open = document.body.classList.toggle("filtering");
    $("open-filters").setAttribute("aria-expanded", open);
  });
  link($("detail"));
  $("detail").addEventListener("close", () => { delete $("detail").dataset.id; if (state.image) go({ image: null }, { fresh: false }); });
  for (const dialog of [$("detail"), $("help")]) dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  addEventListener("popstate", () => { state = parse(location.search); refresh(); });
  addEventListener("keydown", keyboard);
  if (store.runs) document.querySelector(".tools").prepend(el("a", { href: "runs" }, "Runs"));
  await refresh();
  document.body.classList.add("ready");
}

start().catch((error) => problem(error.message));
