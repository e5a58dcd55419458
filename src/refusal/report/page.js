"use strict";
// The page is whole without this: it adds tips over marks, filters over answers, and links that save figures.
(() => {
  const all = (where, what) => [...where.querySelectorAll(what)];

  // --- tips: what a mark tells, at once, by pointer, finger or arrow keys ---
  const tip = document.getElementById("tip");
  const marks = (svg) => all(svg, "[data-told]");
  const hide = () => { tip.textContent = ""; all(document, ".here").forEach((mark) => mark.classList.remove("here")); };
  const show = (mark) => {
    hide();
    mark.classList.add("here");
    tip.textContent = mark.dataset.told;
    const at = mark.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const figure = mark.closest("svg").getBoundingClientRect();
    const left = Math.min(Math.max(at.x + at.width / 2 - own.width / 2, 4), innerWidth - own.width - 4);
    tip.style.left = `${left}px`;
    // Under the figure, where it hides no other mark; where the screen ends above that, at its end or over the mark.
    const under = Math.min(figure.bottom + 2, innerHeight - own.height - 4);
    tip.style.top = `${under > at.bottom + 4 ? under : Math.max(4, at.y - own.height - 6)}px`;
  };
  for (const svg of all(document, "figure > svg")) {
    for (const title of all(svg, "title")) {
      title.parentNode.dataset.told = title.textContent;
      title.remove();
    }
    if (!marks(svg).length) continue;
    let at = -1;
    svg.tabIndex = 0;
    svg.addEventListener("pointerover", (event) => {
      const mark = event.target.closest("[data-told]");
      if (mark) show(mark); else hide();
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      const listed = marks(svg);
      at = (at < 0 && step < 0 ? listed.length - 1 : at + step + listed.length) % listed.length;
      show(listed[at]);
    });
  }
  addEventListener("scroll", hide, { passive: true });

  // --- filters ---
  for (const form of all(document, "form.filters")) {
    const sample = form.closest(".sample"), rest = sample.querySelector(".rest"), said = form.querySelector("output");
    const cards = all(sample, ".card").map((card) => ({
      card,
      answers: all(card, ".answer"),
      text: all(card, "pre").map((one) => one.textContent).join("\n").toLowerCase(),
    }));
    const filter = () => {
      const text = form.elements.text.value.toLowerCase(), kind = form.elements.kind.value, tag = form.elements.tag.value;
      let shown = 0;
      for (const one of cards) {
        const fits = (answer) => (!kind || answer.dataset.kinds.split(" ").includes(kind)) && (!tag || answer.dataset.tags.split("|").includes(tag));
        const fitting = one.answers.filter(fits);
        one.card.hidden = !fitting.length || !one.text.includes(text);
        shown += one.card.hidden ? 0 : 1;
        for (const answer of one.answers) answer.hidden = Boolean(kind) && !answer.dataset.kinds.split(" ").some((own) => own === kind || own === "none");
        const others = one.card.querySelector(".others");
        if (others) others.open = Boolean(kind || tag) && fitting.some((answer) => others.contains(answer));
      }
      const active = Boolean(text || kind || tag);
      if (rest) rest.open = active;
      said.textContent = active ? `${shown} of ${cards.length} prompts` : "";
    };
    form.hidden = false;
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  // --- figures as files ---
  const style = document.getElementById("figure-style").textContent;
  const colours = Object.fromEntries([...style.split("@media")[0].matchAll(/--([\w-]+): (#\w+)/g)].map((one) => [one[1], one[2]]));
  const save = (name, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const alone = (figure) => {
    const svg = figure.querySelector("svg"), box = svg.viewBox.baseVal, key = figure.closest(".gallery").querySelector(".key");
    const entries = (key ? all(key, "li") : []).map((item) => [item, item.lastChild.textContent.trim()]);
    const wider = (label) => 26 + 6.3 * label.length, width = Math.max(box.width, ...entries.map(([, label]) => Math.ceil(10 + wider(label))));
    let inner = svg.innerHTML, x = 10, y = box.height + 12;
    for (const [item, label] of entries) {
      const wide = wider(label), text = document.createElement("b");
      if (x > 10 && x + wide > width) [x, y] = [10, y + 18];
      text.textContent = label;
      inner += `<g transform="translate(${x + 9} ${y})">${item.querySelector("svg").innerHTML}</g>`;
      inner += `<text x="${x + 22}" y="${y + 4}">${text.innerHTML}</text>`;
      x += wide + 8;
    }
    const height = key ? y + 14 : box.height, rules = `svg.figure {${style.split("svg.figure {").slice(1).join("svg.figure {")}`;
    const whole = `<svg xmlns="http://www.w3.org/2000/svg" class="figure" viewBox="0 0 ${width} ${height}" width="${width}" ` +
      `height="${height}"><style>${rules}</style><rect width="${width}" height="${height}" fill="var(--paper)"/>${inner}</svg>`;
    return whole.replaceAll("&nbsp;", "\u00a0").replace(/var\(--([\w-]+)\)/g, (_, name) => colours[name]);
  };
  const cell = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const csv = (figure) => all(figure.querySelector(".numbers table"), "tr")
    .map((row) => all(row, "th, td").map((one) => cell(one.textContent.replaceAll("−", "-").replaceAll("\u00a0", " "))).join(","))
    .join("\n") + "\n";
  for (const span of all(document, ".save")) {
    span.hidden = false;
    span.addEventListener("click", (event) => {
      const kind = event.target.closest("[data-save]")?.dataset.save, figure = span.closest("figure");
      if (kind === "svg") save(`${figure.dataset.name}.svg`, "image/svg+xml", alone(figure));
      if (kind === "csv") save(`${figure.dataset.name}.csv`, "text/csv", csv(figure));
    });
  }

  // --- contents: beside the page where there is room, and the section that is being read ---
  const nav = document.querySelector(".contents details"), room = matchMedia("(min-width: 75rem)");
  const fit = () => { nav.open = room.matches; };
  room.addEventListener("change", fit);
  fit();
  nav.addEventListener("click", (event) => { if (event.target.closest("a") && !room.matches) nav.open = false; });
  const links = new Map(all(nav, "a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "0px 0px -75% 0px" });
  all(document, "main > section").forEach((section) => seen.observe(section));
})();
