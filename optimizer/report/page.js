"use strict";
// The interactive front: two objectives to pick, a third as the colour, a box or lasso that picks rows.
(() => {
  const { objectives, knee, points, metrics } = JSON.parse(document.getElementById("data").textContent);
  const plot = document.getElementById("plot");
  const rows = new Map();
  for (const row of document.querySelectorAll("#candidates tbody tr")) {
    const trial = parseInt(row.cells[0].textContent, 10);
    rows.set(trial, row);
    if (trial === knee) row.classList.add("knee");
  }

  const escaped = (text) => {
    const element = document.createElement("span");
    element.textContent = text;
    return element.innerHTML;
  };
  const number = (value) =>
    Math.abs(value) >= 999.5 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
  const interval = ([value, low, high]) =>
    low === value && high === value
      ? number(value)
      : `${number(value)} [${low === null ? "−∞" : number(low)}, ${high === null ? "∞" : number(high)}]`;

  const pickers = ["x", "y", "colour"].map((id) => document.getElementById(id));
  const names = [...objectives, ...Object.keys(metrics).filter((name) => !objectives.includes(name))];
  pickers.forEach((picker, at) => {
    for (const name of names) picker.add(new Option(metrics[name].label, name));
    picker.value = objectives[Math.min(at, objectives.length - 1)];
    picker.addEventListener("change", draw);
  });

  const looks = {
    member: { name: "front", symbol: "circle", size: 11 },
    tie: { name: "tied with it", symbol: "diamond", size: 8 },
    dominated: { name: "dominated", symbol: "circle", size: 5 },
    missed: { name: "misses a bound", symbol: "square-open", size: 6 },
  };

  function axis(name) {
    const { label, better, log } = metrics[name];
    return {
      title: { text: `${escaped(label)}, ${better} is better` },
      type: log ? "log" : "linear",
      gridcolor: "#dddddd",
      zeroline: false,
      exponentformat: "power",
    };
  }

  function bars(group, name) {
    const ends = group.map((point) => point.metrics[name]);
    return {
      type: "data",
      symmetric: false,
      array: ends.map(([value, , high]) => (high === null ? 0 : high - value)),
      arrayminus: ends.map(([value, low]) => (low === null ? 0 : value - low)),
      color: "#000000",
      thickness: 1,
      width: 2,
    };
  }

  function draw() {
    const [x, y, colour] = pickers.map((picker) => picker.value);
    const candidates = points.filter((point) => ["member", "tie"].includes(point.standing));
    const values = candidates.map((point) => point.metrics[colour][0]);
    const log = metrics[colour].log;
    const shade = (value) => (log ? Math.log10(value) : value);
    const range = { cmin: Math.min(...values.map(shade)), cmax: Math.max(...values.map(shade)) };
    const traces = Object.entries(looks).map(([standing, look]) => {
      const group = points.filter((point) => point.standing === standing);
      const open = standing === "member" || standing === "tie";
      return {
        type: "scatter",
        mode: "markers",
        name: `${look.name} (${group.length})`,
        x: group.map((point) => point.metrics[x][0]),
        y: group.map((point) => point.metrics[y][0]),
        customdata: group.map((point) => point.trial),
        text: group.map((point) =>
          [
            `trial ${point.trial}${point.trial === knee ? ", the knee" : ""}`,
            escaped(point.name),
            escaped(point.note),
            ...[...new Set([x, y, colour, ...objectives])].map(
              (name) => `${escaped(metrics[name].label)}: ${interval(point.metrics[name])}`,
            ),
          ].filter(Boolean).join("<br>"),
        ),
        hovertemplate: "%{text}<extra></extra>",
        marker: open
          ? {
              symbol: look.symbol,
              size: look.size,
              color: group.map((point) => shade(point.metrics[colour][0])),
              colorscale: "Cividis",
              ...range,
              line: { color: "#000000", width: 0.8 },
              showscale: standing === "member",
              colorbar: { title: { text: (log ? "log10 " : "") + escaped(metrics[colour].label), side: "right" } },
            }
          : { symbol: look.symbol, size: look.size, color: "#999999" },
        ...(standing === "member" ? { error_x: bars(group, x), error_y: bars(group, y) } : {}),
      };
    });
    const ring = points.filter((point) => point.trial === knee);
    traces.push({
      type: "scatter",
      mode: "markers",
      name: `knee: trial ${knee}`,
      visible: ring.length > 0,
      hoverinfo: "skip",
      x: ring.map((point) => point.metrics[x][0]),
      y: ring.map((point) => point.metrics[y][0]),
      marker: { symbol: "circle-open", size: 21, color: "#d55e00", line: { width: 3 } },
    });
    const layout = {
      margin: { l: 75, r: 10, t: 10, b: 55 },
      xaxis: axis(x),
      yaxis: axis(y),
      dragmode: "select",
      hoverlabel: { align: "left" },
      legend: { orientation: "h", y: -0.18 },
    };
    Plotly.react(plot, traces.filter((trace) => trace.x.length), layout, {
      responsive: true,
      displaylogo: false,
      modeBarButtons: [["select2d", "lasso2d", "zoom2d", "pan2d", "resetScale2d"]],
    });
    pick(null);
  }

  function pick(chosen) {
    let shown = 0;
    for (const [trial, row] of rows) {
      const stays = chosen === null || chosen.has(trial);
      row.classList.toggle("unpicked", !stays);
      shown += stays;
    }
    document.getElementById("picked").textContent =
      chosen === null ? "" : `${shown} of ${rows.size} deployments of the table picked`;
  }

  for (const [column, heading] of [...document.querySelectorAll("#candidates th")].entries()) {
    heading.tabIndex = 0;
    heading.title = "sort";
    let sign = 1;
    const sort = () => {
      const key = (row) => row.cells[column].textContent.trim();
      const value = (text) => parseFloat(text.replace(/,/g, "").replace(/^[<>]/, ""));
      const sorted = [...rows.values()].sort((left, right) => {
        const [a, b] = [key(left), key(right)];
        const difference = value(a) - value(b);
        return sign * (Number.isNaN(difference) ? a.localeCompare(b) : difference);
      });
      sorted.forEach((row) => row.parentElement.append(row));
      sign = -sign;
    };
    heading.addEventListener("click", sort);
    heading.addEventListener("keydown", (event) => event.key === "Enter" && sort());
  }

  if (points.length && objectives.length > 1) {
    document.getElementById("interactive").hidden = false;
    document.getElementById("without").hidden = true;
    draw();
    plot.on("plotly_selected", (event) => pick(event && new Set(event.points.map((point) => point.customdata))));
    plot.on("plotly_deselect", () => pick(null));
  }
})();
