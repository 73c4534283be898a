// Draws curves with plotly, in the page's own colours, and again when there are new figures. All charts share one axis
// of steps. Smoothing and thinning are the server's.
"use strict";
(() => {
  const EVERY_MS = 4000;
  const place = document.getElementById("curves");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const options = document.getElementById("curve-options");
  const smoothing = document.getElementById("smoothing"), logarithmic = document.getElementById("logarithmic");
  let charts = [], drawnAt = 0, asking = false, again = false, zoomed = null, due = null;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function trace(line, number, lines) {
    const position = lines.slice(0, number).filter((other) => !other.faint).length;  // a smoothed line shares its colour
    return {
      name: line.name, x: line.x, y: line.y, type: "scatter", opacity: line.faint ? 0.3 : 1,
      mode: line.per_epoch && !line.faint ? "lines+markers" : "lines",
      line: { width: line.per_epoch ? 2 : 1.5, color: colour(`--series-${position % 6 + 1}`) },
      marker: { size: line.x.length > 60 ? 3 : 5 },
      hovertemplate: "step %{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
    };
  }

  function layout(chart) {
    const axis = { gridcolor: colour("--line"), zeroline: false, linecolor: colour("--line"), automargin: true };
    const kept = chart.kept_step === null ? [] : [{
      type: "line", x0: chart.kept_step, x1: chart.kept_step, yref: "paper", y0: 0, y1: 1,
      line: { color: colour("--muted"), width: 1, dash: "dot" }, label: { text: "kept", textposition: "end", textangle: 0,
        xanchor: "right", font: { size: 11, color: colour("--muted") } },
    }];
    return {
      autosize: true, height: 240, margin: { l: 48, r: 12, t: 18, b: 32 }, shapes: kept, hovermode: "x unified",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "inherit", size: 12, color: colour("--text") },
      hoverlabel: { bgcolor: colour("--surface"), bordercolor: colour("--line"), font: { color: colour("--text") } },
      showlegend: chart.lines.length > 1, legend: { orientation: "h", y: -0.18, x: 0 },
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
    figure.innerHTML = '<h3></h3><div class="plot" role="group"></div><figcaption class="muted"></figcaption>';
    place.append(figure);
    return figure;
  }

  function draw() {
    if (charts.length) place.querySelector(":scope > p")?.remove();
    if (options) options.hidden = !charts.length;
    charts.forEach(figureOf);  // all of them first: their number decides how wide each is
    for (const chart of charts) {
      const figure = figureOf(chart), plot = figure.querySelector(".plot");
      figure.querySelector("figcaption").textContent = chart.note;
      plot.setAttribute("aria-label", `${chart.title}. ${chart.note}`);
      const look = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "resetScale2d"]] };
      figure.querySelector("h3").textContent = chart.title;
      const isNew = !plot.data;
      Plotly.react(plot, chart.lines.map(trace), layout(chart), look);
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
      if (response.ok && !response.redirected) {
        charts = await response.json();
        draw();
      }
    } catch { /* the next round tries again */ }
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
  refresh();
})();
