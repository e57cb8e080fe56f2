"use strict";
// Runs side by side: one colour a run in every curve; what each rebuilds; two evaluations item by item.

const $ = (id) => document.getElementById(id);
const ask = async (name, query = "") => {
  const answer = await fetch(`api/${name}?${query}`), body = await answer.json().catch(() => ({ error: `the server says ${answer.status}` }));
  if (!answer.ok) throw new Error(body.error);
  return body;
};
const problem = (error) => { $("problem").hidden = false; $("problem").textContent = error.message; };
// As much of each name's end as tells it from the others.
const shortened = (names) => {
  const parts = names.map((name) => name.split("/").filter(Boolean)), longest = Math.max(1, ...parts.map((one) => one.length));
  for (let length = 1; length < longest; length++) {
    const ends = parts.map((one) => one.slice(-length).join("/"));
    if (new Set(ends).size === new Set(names).size) return ends;
  }
  return names;
};
const digits = (value) => Number(value.toPrecision(4)).toString();

function drawCurve(name, lines) {
  const points = lines.flatMap((line) => line.points), [w, h] = [320, 130];
  const [x0, x1, y0, y1] = [Math.min(...points.map((p) => p[0])), Math.max(...points.map((p) => p[0])), Math.min(...points.map((p) => p[1])), Math.max(...points.map((p) => p[1]))];
  const at = ([x, y]) => `${(x - x0) / (x1 - x0 || 1) * w},${h - (y - y0) / (y1 - y0 || 1) * h}`;
  const drawing = svg("svg", { viewBox: `-4 -6 ${w + 8} ${h + 12}`, role: "img", "aria-label": `${name}: ${lines.map((line) => `${line.run} ends at ${digits(line.points.at(-1)[1])}`).join(", ")}` },
    lines.map((line) => line.points.length > 1 ? svg("polyline", { points: line.points.map(at).join(" "), ...tint(line.number) }) : svg("circle", { cx: w / 2, cy: h / 2, r: 3, ...tint(line.number) })));
  return el("figure", { class: "curve" }, el("figcaption", {}, name, el("span", { class: "number" }, `${digits(y0)} – ${digits(y1)}`)), drawing,
    el("p", { class: "ends" }, lines.map((line) => el("span", tint(line.number), digits(line.points.at(-1)[1])))));
}

function drawExample(example) {
  return el("figure", { class: "example" }, el("div", {}, example.pictures.map((src, at) => el("img", { src, alt: ["the pair's image", "its masked patches", "what the model paints"][at] }))),
    el("figcaption", {}, example.words.flatMap(([word, guesses]) => [guesses.length ? el("span", {}, el("mark", {}, word), el("small", {}, ` ${guesses.join(", ")}`)) : word, " "])));
}

async function drawItems(evaluations) {
  if (evaluations.length < 2) {
    const [one] = evaluations;
    $("items").replaceChildren(el("h2", {}, "Evaluations"), el("p", {}, `There is one, ${one}: nothing to compare it with. Give a second one: macco-train serve ${one} OTHER`));
    return;
  }
  const state = { a: 0, b: 1, criterion: "", differ: true, at: 0 };
  const draw = async () => {
    const query = new URLSearchParams({ a: state.a, b: state.b, criterion: state.criterion, at: state.at });
    if (state.differ) query.set("differ", "1");
    const found = await ask("items", query);
    $("problem").hidden = true;
    const choose = (name, values, labels, current) => el("select", { "aria-label": name, onchange: (event) => { state[name] = event.target.value; state.at = 0; draw().catch(problem); } },
      values.map((value, i) => el("option", { value, selected: String(value) === String(current) }, labels[i])));
    const numbers = evaluations.map((_, i) => i), names = shortened(evaluations), { counts } = found;
    const verdict = (right) => el("td", { class: right ? "right-answer" : "wrong-answer" }, right ? "right" : "wrong");
    $("items").replaceChildren(el("h2", {}, "Evaluations"),
      el("p", { class: "buttons" }, choose("a", numbers, names, state.a), " against ", choose("b", numbers, names, state.b), choose("criterion", found.criteria, found.criteria, found.criterion),
        el("label", {}, el("input", { type: "checkbox", checked: state.differ, onchange: (event) => { state.differ = event.target.checked; state.at = 0; draw().catch(problem); } }), " where they differ")),
      el("p", {}, `both right ${counts.both}, only the first ${counts.first}, only the second ${counts.second}, neither ${counts.neither}`),
      el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Items" }, el("table", {}, el("thead", {}, el("tr", {}, ["item", "captions", "first", "second"].map((text) => el("th", { scope: "col" }, text)))),
        el("tbody", {}, found.rows.map((row) => el("tr", {}, el("td", {}, `${row.benchmark} ${row.subset} ${row.item}`),
          el("td", {}, (row.captions || []).map((caption, i) => el("div", {}, caption, el("small", {}, " ", row.scores.map((s) => (s?.[i] == null ? "–" : s[i].toFixed(3))).join(" / "))))),
          verdict(row.right[0]), verdict(row.right[1])))))),
      el("p", { class: "buttons" }, el("button", { disabled: state.at === 0, onclick: () => { state.at -= 50; draw().catch(problem); } }, "Previous"),
        el("button", { disabled: state.at + 50 >= found.total, onclick: () => { state.at += 50; draw().catch(problem); } }, "Next"), `${found.total} items`));
  };
  await draw();
}

async function start() {
  const { runs, evaluations } = await ask("runs"), short = shortened(runs.map((run) => run.name));
  ask("store").then(() => ($("to-store").hidden = false), () => {});
  $("legend").append(...runs.map((run, i) => el("li", { ...tint(i), title: run.name }, short[i])));
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))];
  $("curves").append(...names.map((name) => drawCurve(name, runs.flatMap((run, number) => (run.curves[name] ? [{ run: short[number], number, points: run.curves[name] }] : [])))));
  if (evaluations.length) await drawItems(evaluations);
  for (const [i, run] of runs.entries()) {
    const holder = el("div", { class: "examples" });
    const open = (event) => event.target.open && !holder.childElementCount && ask("examples", `run=${i}`).then((all) => holder.replaceChildren(...all.map(drawExample)), (error) => holder.replaceChildren(error.message));
    $("examples").append(el("details", { ontoggle: open }, el("summary", {}, `Reconstructions of ${short[i]}`), holder));
  }
  document.body.classList.add("ready");
}

start().catch(problem);
