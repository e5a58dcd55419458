// What the page does without asking Python: colouring tokens at a layer, moving through the heat map.
window.explorer = (() => {
  const layer = () => Number(document.querySelector("#layer-at")?.value ?? 0);
  const told = (value) => (value === undefined || value === "" ? "not read" : value.replace("-", "−"));

  function paint() {
    const at = layer(), now = document.querySelector("#layer-now");
    if (now) now.textContent = at;
    for (const strip of document.querySelectorAll(".strip")) {
      const scale = Number((strip.dataset.scales || "").split(" ")[at]) || Infinity;
      for (const token of strip.querySelectorAll(".token")) {
        const value = token.dataset.c.split(" ")[at];
        const share = Math.max(-1, Math.min(1, Number(value || 0) / scale));
        token.style.setProperty("--share", `${Math.round(100 * Math.abs(share))}%`);
        token.classList.toggle("below", share < 0);
        token.title = `${told(value)} at layer ${at}`;
      }
    }
  }

  function read(event) {
    const token = event.target.closest?.(".token"), readout = document.querySelector("#readout");
    if (token && readout) readout.textContent = `${token.textContent}: component ${token.title}`;
    const cell = event.target.closest?.("#heat .cell"), now = document.querySelector("#heat .cell-now");
    if (cell && now) now.textContent = cell.getAttribute("aria-label");
  }

  // The strength's box takes any number, and none: what is asked for is within its limits, and so is what stays there.
  let held = 0;
  function strength(value) {
    const box = document.querySelector("#strength input[type=number]");
    if (value !== null && value !== "" && Number.isFinite(Number(value)))
      held = Math.min(Number(box?.max || 2), Math.max(Number(box?.min || -2), Number(value)));
    return held;
  }
  function settle(box) {
    if (document.activeElement === box || Number(box.value || NaN) === held) return;
    box.value = String(held);
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function grid(element, trigger, watch) {
    let last = null, left = null;
    const cells = () => [...element.querySelectorAll(".cell")];
    const of = (cell) => ({ position: Number(cell.dataset.position), layer: Number(cell.dataset.layer) });
    const start = () => {  // what is drawn anew is scrolled to where it was, at first to the direction
      const box = element.querySelector(".scroll"), first = element.querySelector(".cell.first");
      if (box) box.scrollLeft = left ?? (first ? first.offsetLeft - box.clientWidth / 2 : 0);
      if (!element.querySelector('.cell[tabindex="0"]')) element.querySelector(".cell")?.setAttribute("tabindex", "0");
    };
    element.addEventListener("scroll", (event) => { left = event.target.scrollLeft; }, true);
    element.addEventListener("click", (event) => {
      const cell = event.target.closest(".cell");
      if (!cell || cell.getAttribute("aria-disabled")) return;
      last = of(cell);
      trigger("pick", last);
    });
    element.addEventListener("keydown", (event) => {
      const cell = event.target.closest(".cell"), row = cell?.closest("tr");
      if (!cell) return;
      const rows = [...row.parentElement.children], column = [...row.querySelectorAll(".cell")].indexOf(cell);
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
        Home: [0, -column], End: [0, row.querySelectorAll(".cell").length - 1 - column] }[event.key];
      if (!step) return;
      const next = rows[rows.indexOf(row) + step[0]]?.querySelectorAll(".cell")[column + step[1]];
      event.preventDefault();
      if (!next) return;
      cells().forEach((other) => other.setAttribute("tabindex", other === next ? "0" : "-1"));
      next.focus();
    });
    watch("value", () => {
      start();
      if (last && (document.activeElement === document.body || !document.activeElement)) {
        cells().find((cell) => of(cell).position === last.position && of(cell).layer === last.layer)?.focus();
      }
    });
    start();
  }

  document.addEventListener("input", (event) => { if (event.target.id === "layer-at") paint(); });
  document.addEventListener("pointerover", read);
  document.addEventListener("click", read);
  document.addEventListener("focusin", read);
  document.addEventListener("input", (event) => {
    if (event.target.matches?.("#strength input")) strength(event.target.value);
  }, true);
  document.addEventListener("focusout", (event) => {  // after gradio's own reading of the box, which takes nothing for 0
    if (event.target.matches?.("#strength input[type=number]"))
      for (const wait of [50, 300, 1000]) setTimeout(settle, wait, event.target);  // a busy page takes its time
  });
  return { paint, grid, strength };
})();
