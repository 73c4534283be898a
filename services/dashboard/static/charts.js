// Draws curves with plotly, in the page's own colours, and again when there are new figures. All charts share one axis
// of steps. Smoothing and thinning are the server's.
"use strict";
(() => {
  const EVERY_MS = 4000, AGAIN_MS = 10000;
  const place = document.getElementById("curves");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const options = document.getElementById("curve-options");
  const smoothing = document.getElementById("smoothing"), logarithmic = document.getElementById("logarithmic");
  const card = document.getElementById("curves-card");
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x"], DASHES = ["solid", "dash", "dot", "dashdot"];
  const hidden = new Set();  // lines that the reader has switched off
  let charts = [], drawnAt = 0, asking = false, again = false, zoomed = null, due = null;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Lines are told apart by colour, by the marks of their points and, from the seventh on, by dashes.
  const owner = (lines, number) => lines.slice(number).find((line) => !line.faint) ?? lines[number];
  const position = (lines, number) => lines.filter((line) => !line.faint).indexOf(owner(lines, number));
  const hue = (place) => `s${place % 6 + 1}`;

  function trace(chart, number) {
    const line = chart.lines[number], at = position(chart.lines, number);  // a smoothed line shares its look
    return {
      name: line.name, x: line.x, y: line.y, type: "scatter", opacity: line.faint ? 0.3 : 1,
      visible: !hidden.has(`${chart.id} ${owner(chart.lines, number).name}`),
      mode: line.per_epoch && !line.faint ? "lines+markers" : "lines",
      line: { width: line.per_epoch ? 2 : 1.5, color: colour(`--series-${at % 6 + 1}`), dash: DASHES[Math.floor(at / 6) % 4] },
      marker: { size: line.x.length > 60 ? 4 : 6, symbol: SYMBOLS[at % 6] },
      hovertemplate: "step %{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
    };
  }

  function layout(chart) {
    const axis = { gridcolor: colour("--line"), zeroline: false, linecolor: colour("--line"), automargin: true };
    const kept = chart.kept_step === null ? [] : [{
      type: "line", x0: chart.kept_step, x1: chart.kept_step, yref: "paper", y0: 0, y1: 1,
      line: { color: colour("--muted"), width: 1, dash: "dot" }, label: { text: "kept", textposition: "end", textangle: 0,
        xanchor: "right", yanchor: "top", font: { size: 11, color: colour("--muted") } },
    }];
    return {
      autosize: true, height: 240, margin: { l: 48, r: 12, t: 12, b: 28 }, shapes: kept, hovermode: "x unified",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: colour("--text") },
      hoverlabel: { bgcolor: colour("--surface"), bordercolor: colour("--line"), font: { color: colour("--text") } },
      showlegend: false,
      xaxis: { ...axis, tickformat: ",d", range: [...(zoomed ?? whole())], autorange: false },
      yaxis: { ...axis, exponentformat: "power", rangemode: chart.id === "accuracy" ? "normal" : "tozero",
        type: chart.may_be_log && logarithmic?.checked ? "log" : "linear" },
    };
  }

  // From the first step of any curve to the last one.
  function whole() {
    const ends = charts.flatMap((chart) => chart.lines.flatMap((line) => [line.x[0], line.x.at(-1)]));
    return [Math.min(0, ...ends), Math.max(1, ...ends)];
  }

  function follow(change) {
    const range = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    if (change["xaxis.autorange"]) zoomed = null;
    else if (range[0] !== undefined) zoomed = range;
    else return;
    draw();
  }

  function figureOf(chart) {
    const known = document.getElementById(`chart-${chart.id}`);
    if (known) return known;
    const figure = document.createElement("figure");
    figure.id = `chart-${chart.id}`;
    figure.innerHTML = '<h3></h3><ul class="keys"></ul><div class="plot" role="group"></div><figcaption class="muted"></figcaption>';
    place.append(figure);
    return figure;
  }

  // What each line is, as buttons that switch it off and on.
  function tellKeys(figure, chart) {
    const list = figure.querySelector(".keys"), lines = chart.lines.filter((line) => !line.faint);
    const told = lines.map((line) => line.name).join("\n");
    if (list.dataset.told === told) return;
    list.dataset.told = told;
    list.replaceChildren(...(lines.length < 2 ? [] : lines).map((line, at) => {
      const item = document.createElement("li"), button = document.createElement("button"), id = `${chart.id} ${line.name}`;
      button.type = "button";
      button.className = "key-button";
      button.setAttribute("aria-pressed", String(!hidden.has(id)));
      button.innerHTML = `<span class="stroke ${hue(at)}${at >= 6 ? " dashed" : ""}" aria-hidden="true"></span>`;
      button.append(line.name);
      button.addEventListener("click", () => {
        if (!hidden.delete(id)) hidden.add(id);
        button.setAttribute("aria-pressed", String(!hidden.has(id)));
        draw();
      });
      item.append(button);
      return item;
    }));
  }

  // Where there is nothing to draw, it is said why; the card of a job that has ended without any is left out.
  function tellNothing(words) {
    if (charts.length === 0) place.textContent = words;
    if (card && charts.length === 0 && document.querySelector("[data-live][data-active]") === null) card.hidden = true;
  }

  function draw() {
    for (const node of [...place.childNodes]) if (charts.length && node.nodeType === Node.TEXT_NODE) node.remove();
    if (charts.length && card) card.hidden = false;
    if (options) options.hidden = !charts.length;
    charts.forEach(figureOf);  // all of them first: their number decides how wide each is
    for (const chart of charts) {
      const figure = figureOf(chart), plot = figure.querySelector(".plot");
      figure.querySelector("figcaption").textContent = chart.note;
      plot.setAttribute("aria-label", `${chart.title}. ${chart.note}`);
      const look = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "resetScale2d"]] };
      figure.querySelector("h3").textContent = chart.title;
      tellKeys(figure, chart);
      const isNew = !plot.data;
      Plotly.react(plot, chart.lines.map((_, number) => trace(chart, number)), layout(chart), look);
      if (isNew) plot.on("plotly_relayout", follow);
    }
  }

  async function refresh() {
    again = asking;
    if (asking) return;
    asking = true;
    try {
      const address = new URL(place.dataset.url, location.href);
      if (smoothing) address.searchParams.set("smoothing", smoothing.value);
      const response = await fetch(address);
      if (!response.ok || response.redirected) throw new Error(`HTTP ${response.status}`);
      charts = await response.json();
      tellNothing(place.dataset.none ?? "No figures yet.");
      draw();
    } catch {
      tellNothing("The curves could not be fetched; trying again.");
      due ??= setTimeout(() => { due = null; refresh(); }, AGAIN_MS);
    }
    place.removeAttribute("aria-busy");
    drawnAt = Date.now();
    asking = false;
    if (again) refresh();
  }

  document.addEventListener("live", () => {
    const ended = document.querySelector("[data-live][data-active]") === null;
    const wait = ended ? 0 : drawnAt + EVERY_MS - Date.now();
    if (wait <= 0) {
      due = clearTimeout(due) ?? null;
      refresh();
    } else due ??= setTimeout(() => { due = null; refresh(); }, wait);  // no other news may come
  });
  dark.addEventListener("change", draw);
  smoothing?.addEventListener("change", refresh);
  logarithmic?.addEventListener("change", draw);
  place.setAttribute("aria-busy", "true");
  refresh();
})();
