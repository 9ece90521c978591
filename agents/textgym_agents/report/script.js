"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const finite = (x) => typeof x === "number" && Number.isFinite(x);

  // The same as numbers.show.
  function show(x) {
    if (!finite(x)) return "–";
    const size = Math.abs(x);
    let text;
    if (size >= 1e9) text = x.toExponential(2);
    else if (size >= 999.5) text = Math.round(x).toLocaleString("en-US");
    else if (Number.isInteger(x)) text = String(x || 0);
    else if (size < 0.0000995) text = x.toExponential(1);
    else text = x.toFixed(size >= 99.5 ? 0 : size >= 9.95 ? 1 : size >= 0.0995 ? 2 : size >= 0.00995 ? 3 : size >= 0.000995 ? 4 : 5);
    return text.replaceAll("-", "−");
  }
  const signed = (x) => (finite(x) && x > 0 ? "+" : "") + show(x);
  const percent = (p) => (finite(p) ? (p >= 0.001 || p === 0 ? show(100 * p) + " %" : show(p)) : "–");

  // ---- learning curves: one moment for all ----------------------------------------------------------------------------

  const plots = [...document.querySelectorAll(".plot")].map((element) => {
    const figure = element.closest(".chart");
    const readout = figure.querySelector(".readout");
    return {
      element,
      readout,
      atEnd: readout.innerHTML,
      cross: element.querySelector(".cross"),
      dot: element.querySelector(".dot"),
      ...data.charts[element.dataset.chart],
    };
  });

  function nearest(times, t) {
    let low = 0;
    let high = times.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (times[middle] <= t) low = middle;
      else high = middle;
    }
    return t - times[low] <= times[high] - t ? low : high;
  }

  function showMoment(t) {
    for (const plot of plots) {
      const i = nearest(plot.t, t);
      const x = (100 * plot.t[i]) / plot.end + "%";
      const value = plot.raw[i];
      plot.cross.hidden = plot.dot.hidden = false;
      plot.cross.style.left = plot.dot.style.left = x;
      const drawn = plot.smooth ? plot.smooth[i] : value;
      plot.dot.style.bottom = (100 * (drawn - plot.low)) / (plot.high - plot.low) + "%";
      const smooth = plot.smooth ? `, mean ${show(drawn)},` : "";
      const at = plot.t[i].toLocaleString("en-US");
      const bold = document.createElement("b");
      bold.textContent = show(value);
      plot.readout.replaceChildren(bold, `${smooth} at ${at}`);
      plot.element.setAttribute("aria-valuenow", i);
      plot.element.setAttribute("aria-valuetext", `${show(value)}${smooth} at timestep ${at}`);
    }
  }

  function hideMoment() {
    for (const plot of plots) {
      plot.cross.hidden = plot.dot.hidden = true;
      plot.readout.innerHTML = plot.atEnd; // what the page itself came with
    }
  }

  for (const plot of plots) {
    const { element } = plot;
    const follow = (event) => {
      const box = element.getBoundingClientRect();
      showMoment(((event.clientX - box.left) / box.width) * plot.end);
    };
    element.addEventListener("pointermove", follow);
    element.addEventListener("pointerdown", follow);
    element.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") hideMoment();
    });
    element.addEventListener("blur", hideMoment);
    element.addEventListener("keydown", (event) => {
      const last = plot.t.length - 1;
      const now = Number(element.getAttribute("aria-valuenow"));
      const far = Math.max(1, Math.round(last / 10));
      const next = {
        ArrowLeft: now - 1,
        ArrowRight: now + 1,
        PageDown: now - far,
        PageUp: now + far,
        Home: 0,
        End: last,
      }[event.key];
      if (event.key === "Escape") hideMoment();
      if (next === undefined) return;
      event.preventDefault();
      showMoment(plot.t[Math.min(last, Math.max(0, next))]);
    });
  }

  // ---- samples: which time the middle column shows --------------------------------------------------------------------

  const during = byId("during");
  if (during) {
    const times = JSON.parse(byId("during-times").textContent);
    const output = document.querySelector("output[for=during]");
    const choose = () => {
      output.textContent = times[during.value];
      during.setAttribute("aria-valuetext", times[during.value]);
      for (const cell of document.querySelectorAll("[data-during]")) cell.hidden = cell.dataset.during !== during.value;
    };
    during.addEventListener("input", choose);
    choose(); // a browser that reloads keeps the slider where it was
  }

  // ---- an episode, token by token -------------------------------------------------------------------------------------

  const strip = byId("tokens");
  if (!strip) return;
  const tip = byId("tip");
  const bars = byId("bars");
  const select = byId("episode");
  const MOST_BARS = 600;
  let episode = null;
  let tokens = [];
  let slots = [];
  let open = -1;

  const EXPLAINED = {
    advantage: ["worse than the critic had forecast", "better: made likelier"],
    probability: ["a surprise", "certain"],
    kl: ["rarer than in the reference model", "likelier than there"],
    value: ["little reward to come", "much"],
  };

  // One scale for all episodes, so that colours can be compared. Signed numbers around 0, others from end to end; the
  // outermost 2 percent share a colour, since one extreme token would pale all others.
  const scales = {};
  for (const name of Object.keys(EXPLAINED)) {
    const all = data.episodes.flatMap((e) => e[name]).filter(finite);
    const sorted = all.map(Math.abs).sort((a, b) => a - b);
    const most = sorted[Math.min(sorted.length - 1, Math.floor(0.98 * sorted.length))] || 1;
    const low = all.reduce((a, b) => Math.min(a, b), Infinity);
    const high = all.reduce((a, b) => Math.max(a, b), -Infinity);
    if (name === "probability") scales[name] = { signed: false, low: 0, high: 1 };
    else if (name === "value" && (low >= 0 || high <= 0)) scales[name] = { signed: false, low, high: high > low ? high : low + 1 };
    else scales[name] = { signed: true, low: -most, high: most };
  }

  function place(name, x) {
    const scale = scales[name];
    if (!finite(x)) return { side: "pos", strength: 0, at: 0, base: 0 };
    const inside = Math.min(scale.high, Math.max(scale.low, x));
    const at = (inside - scale.low) / (scale.high - scale.low);
    if (!scale.signed) return { side: "seq", strength: at, at, base: 0 };
    return { side: inside < 0 ? "neg" : "pos", strength: Math.abs(inside) / scale.high, at, base: 0.5 };
  }

  const span = (className, text) => {
    const element = document.createElement("span");
    element.className = className;
    element.textContent = text;
    return element;
  };

  function fill(element, text) {
    if (text === "") return element.append(span("mark", "∅"));
    if (/^<[|]?[^<>\s]+[|]?>$|^\[[A-Z]+\]$/.test(text)) element.classList.add("special");
    if (text.length > 24) element.classList.add("long");
    for (const piece of text.match(/\n|\t|^ +|[^\n\t ][^\n\t]*| +/g) || []) {
      if (piece === "\n") element.append(span("mark", "↵"), "\n");
      else if (piece === "\t") element.append(span("mark", "⇥\t"));
      else if (/^ +$/.test(piece)) for (const space of piece) element.append(span("space", space));
      else element.append(piece);
    }
    if (text.endsWith("\n")) element.lastChild.remove(); // the line breaks after the box, not inside
  }

  function showEpisode() {
    close();
    episode = data.episodes[select.value];
    strip.replaceChildren(span("prompt", episode.prompt));
    tokens = episode.text.map((text, i) => {
      const element = document.createElement("span");
      element.className = "token";
      element.dataset.i = i;
      element.tabIndex = i ? -1 : 0;
      element.setAttribute("role", "button");
      fill(element, text);
      if (/^\s/.test(text)) strip.append(document.createElement("wbr"));
      strip.append(element);
      if (text.endsWith("\n")) strip.append("\n");
      return element;
    });
    bars.hidden = tokens.length > MOST_BARS;
    slots = bars.hidden ? [] : tokens.map((_, i) => {
      const slot = document.createElement("span");
      slot.dataset.i = i;
      return slot;
    });
    const ends = { stop: "ended by the end token", length: "ended by the token budget" };
    const kl = episode.kl.reduce((a, b) => a + (b || 0), 0);
    byId("facts").textContent = [
      `Return ${show(episode.total)}`,
      `${tokens.length.toLocaleString("en-US")} tokens`,
      `KL ${show(kl)} nats`,
      ends[episode.finish] || episode.finish,
    ].filter(Boolean).join(" · ");
    colour();
  }

  function colour() {
    const name = document.querySelector("input[name=colour]:checked").value;
    const scale = scales[name];
    tokens.forEach((element, i) => {
      const { side, strength } = place(name, episode[name][i]);
      element.classList.remove("pos", "neg", "seq");
      element.classList.add(side);
      element.style.setProperty("--a", strength.toFixed(3));
    });
    const base = document.createElement("span");
    base.className = "base";
    base.style.bottom = scale.signed ? "50%" : "0";
    bars.replaceChildren(base, ...slots);
    slots.forEach((slot, i) => {
      const { side, at, base } = place(name, episode[name][i]);
      slot.className = "slot " + side;
      slot.style.setProperty("--from", 100 * Math.min(at, base) + "%");
      slot.style.setProperty("--tall", 100 * Math.abs(at - base) + "%");
    });
    const gradient = span("gradient", "");
    const at = (colour) => `rgb(var(--${colour}) / var(--strength))`;
    gradient.style.background = scale.signed
      ? `linear-gradient(to right, ${at("neg")}, transparent, ${at("pos")})`
      : `linear-gradient(to right, transparent, ${at("seq")})`;
    const number = (x) => (name === "probability" ? percent(x) : scale.signed ? signed(x) : show(x));
    const [low, high] = EXPLAINED[name];
    byId("scale").replaceChildren(span("", `${number(scale.low)}, ${low}`), gradient, span("", `${number(scale.high)}, ${high}`));
    if (open >= 0) showTip(open);
  }

  function quoted(text) {
    return text === "" ? "(no text)" : "“" + text.replace(/ /g, "␣").replace(/\n/g, "↵").replace(/\t/g, "⇥") + "”";
  }

  function showTip(i, x) {
    close();
    open = i;
    const element = tokens[i];
    const name = document.querySelector("input[name=colour]:checked").value;
    element.classList.add("on");
    if (slots[i]) slots[i].classList.add("on");
    const head = document.createElement("div");
    head.className = "name";
    const code = document.createElement("code");
    code.textContent = quoted(episode.text[i]);
    head.append(code, span("", `${i + 1} of ${tokens.length}`));
    const list = document.createElement("dl");
    const rows = [
      ["probability", "Probability", percent(episode.probability[i])],
      ["reference_probability", "Reference probability", percent(episode.reference_probability[i])],
      ["value", "Value", show(episode.value[i])],
      ["advantage", "Advantage", signed(episode.advantage[i])],
      ["kl", "KL", signed(episode.kl[i]) + " nats"],
      ["reward", "Reward", signed(episode.reward[i])],
    ];
    for (const [key, label, value] of rows) {
      const dt = document.createElement("dt");
      const dd = document.createElement("dd");
      dt.textContent = label;
      dd.textContent = value;
      if (key === name) dt.className = dd.className = "chosen";
      list.append(dt, dd);
    }
    tip.replaceChildren(head, list);
    tip.hidden = false;
    element.setAttribute("aria-describedby", "tip");
    const boxes = [...element.getClientRects()];
    const box = boxes.find((b) => x !== undefined && x >= b.left && x <= b.right) || boxes[0];
    const wide = document.documentElement.clientWidth;
    const left = Math.min(wide - tip.offsetWidth - 8, Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2));
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = left + window.scrollX + "px";
    tip.style.top = (above >= 4 ? above : box.bottom + 8) + window.scrollY + "px";
  }

  function close() {
    if (open < 0) return;
    tokens[open].classList.remove("on");
    tokens[open].removeAttribute("aria-describedby");
    if (slots[open]) slots[open].classList.remove("on");
    tip.hidden = true;
    open = -1;
  }

  const indexOf = (event) => {
    const element = event.target instanceof Element ? event.target.closest("[data-i]") : null;
    return element ? Number(element.dataset.i) : -1;
  };

  function settle() {
    // Back to the token that has the keyboard, if one has.
    const focused = tokens.indexOf(document.activeElement);
    if (focused >= 0) showTip(focused);
    else close();
  }

  for (const area of [strip, bars]) {
    area.addEventListener("pointerover", (event) => {
      if (event.pointerType === "mouse" && indexOf(event) >= 0) showTip(indexOf(event), event.clientX);
    });
    area.addEventListener("pointerout", (event) => {
      if (event.pointerType === "mouse") settle();
    });
    area.addEventListener("click", (event) => {
      const i = indexOf(event);
      if (i < 0) return close();
      tokens[i].focus({ preventScroll: true });
      showTip(i, event.clientX);
    });
  }
  strip.addEventListener("focusin", (event) => {
    const i = indexOf(event);
    if (i < 0) return;
    for (const token of tokens) token.tabIndex = -1;
    tokens[i].tabIndex = 0;
    if (open !== i) showTip(i);
  });
  strip.addEventListener("focusout", close);
  strip.addEventListener("keydown", (event) => {
    const i = tokens.indexOf(document.activeElement);
    const next = { ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: tokens.length - 1 }[event.key];
    if (i < 0 || next === undefined) return;
    event.preventDefault();
    tokens[Math.min(tokens.length - 1, Math.max(0, next))].focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  document.addEventListener("pointerdown", (event) => {
    if (event.target instanceof Node && !strip.contains(event.target) && !bars.contains(event.target)) close();
  });
  window.addEventListener("resize", close);
  select.addEventListener("change", showEpisode);
  for (const radio of document.querySelectorAll("input[name=colour]")) radio.addEventListener("change", colour);
  showEpisode();
})();
