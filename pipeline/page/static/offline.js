"use strict";
// The answers of the server, found in the figures that the page itself holds (macco-prep view).

function offline(data) {
  const best = (figure, test) => {
    const found = read(figure);
    let score = -1;
    for (const [, concept] of found.concepts) {
      if (!test(concept)) continue;
      score = Math.max(score, 0);
      for (const box of found.boxes)
        if (concept.grounds.some((one) => box.tokens.includes(one))) score = Math.max(score, 1 + box.score);
    }
    return score - 1; // below 0: no such concept, or none with a box
  };
  const many = (query, name) => query.getAll(name);
  const among = (query, name, value) => !query.has(name) || many(query, name).includes(value);
  const about = (query) => (concept) =>
    among(query, "kind", concept.kind) && among(query, "concept", `${concept.kind}:${concept.lemma}`);
  const enough = (score, least) => Math.fround(score) >= Math.fround(least);
  const splits = (figure) => data.store.splits.filter((split) => figure.key.startsWith(`${split}/`));
  const any = (query, name, values) => !query.has(name) || many(query, name).some((one) => values.includes(one));
  function meets(figure, query) {
    if (!any(query, "status", figure.captions.map((caption) => caption.status))) return false;
    if (!any(query, "split", splits(figure)) || !any(query, "tag", figure.tags)) return false;
    if (!among(query, "dataset", figure.dataset) || !among(query, "shard", figure.shard)) return false;
    const concepts = query.has("kind") || query.has("concept");
    if (!concepts && !query.has("score")) return true;
    if (query.has("score")) return enough(best(figure, about(query)), Number(query.get("score")));
    return figure.captions.some((caption) => caption.concepts.some(about(query)));
  }
  const without = (query, name) => {
    const rest = new URLSearchParams(query);
    rest.delete(name);
    return rest;
  };
  const count = (values) => {
    const counts = {};
    for (const value of values) counts[value] = (counts[value] || 0) + 1;
    return counts;
  };
  function chosen(query) {
    const shown = data.figures.filter((figure) => meets(figure, query));
    const sort = query.get("sort");
    if (sort === "captions") shown.sort((a, b) => b.captions.length - a.captions.length);
    if (sort === "score") shown.sort((a, b) => best(b, about(query)) - best(a, about(query)));
    if (sort === "random") {
      const key = (id) => [...`${query.get("seed")}${id}`].reduce((sum, letter) => Math.imul(sum ^ letter.codePointAt(0), 16777619) >>> 0, 2166136261);
      shown.sort((a, b) => key(a.id) - key(b.id));
    }
    return shown;
  }
  const answers = {
    store: () => data.store,
    figure: (query) => data.figures.find((figure) => figure.id === query.get("id")) || { error: "this image is not on the page" },
    figures: (query) => {
      const shown = chosen(query), at = Number(query.get("at") || 0);
      return { figures: shown.slice(at, at + data.store.page), at, total: shown.length, share: 1 };
    },
    facets: (query) => {
      const values = (name, of) => count(data.figures.filter((figure) => meets(figure, without(query, name))).flatMap((figure) => [...new Set(of(figure))]));
      const concepts = (figure) => figure.captions.flatMap((caption) => caption.concepts);
      const fits = (name) => (figure) => concepts(figure).filter(about(without(query, name)));
      const like = query.get("like") || "";
      const rows = Object.entries(values("concept", (figure) => fits("concept")(figure).map((one) => `${one.kind}:${one.lemma}`)))
        .map(([name, count]) => ({ name, kind: name.split(":")[0], lemma: name.slice(name.indexOf(":") + 1), count }))
        .sort((a, b) => b.count - a.count || (a.name < b.name ? -1 : 1));
      const kept = rows.filter((row) => many(query, "concept").includes(row.name) || row.lemma.includes(like)).slice(0, 12);
      return { total: chosen(query).length, of: data.figures.length, share: 1, concept: kept,
        split: values("split", splits), tag: values("tag", (figure) => figure.tags),
        kind: values("kind", (figure) => fits("kind")(figure).map((one) => one.kind)),
        status: values("status", (figure) => figure.captions.map((caption) => caption.status)),
        dataset: values("dataset", (figure) => [figure.dataset]), shard: values("shard", (figure) => [figure.shard]) };
    },
    scores: (query) => {
      const free = without(query, "score"), test = about(free);
      const scores = data.figures.filter((figure) => meets(figure, free)).map((figure) => best(figure, test));
      const boxes = data.figures.filter((figure) => meets(figure, free)).flatMap((figure) => {
        const { concepts, boxes } = read(figure);
        return boxes.flatMap((box) => box.tokens.filter((one) => test(concepts.get(one))).map(() => box.score));
      });
      const from = (values) => Array.from({ length: 101 }, (_, at) => values.filter((score) => enough(score, at / 100)).length);
      return { images: from(scores), boxes: many(free, "kind").some((kind) => kind !== "object") ? null : from(boxes) };
    },
  };
  return async (name, query) => answers[name](new URLSearchParams(query));
}
