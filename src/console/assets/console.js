// Makes a page live: takes the parts that the server sends and changes what differs. Everything works without it.
"use strict";

(() => {
  // --- parts -------------------------------------------------------------------------------------------------

  // Makes `now` like `next` and leaves alone what is alike, so that focus, selection and scroll places stay.
  function morph(now, next) {
    if (now.nodeType !== next.nodeType || now.nodeName !== next.nodeName) {
      now.replaceWith(next.cloneNode(true));
      return;
    }
    if (now.nodeType === Node.TEXT_NODE) {
      if (now.data !== next.data) now.data = next.data;
      return;
    }
    if (now.nodeType !== Node.ELEMENT_NODE) return;
    for (const { name, value } of [...next.attributes]) {
      if (now.getAttribute(name) !== value) now.setAttribute(name, value);
    }
    for (const { name } of [...now.attributes]) {
      if (!next.hasAttribute(name) && !(now.nodeName === "DETAILS" && name === "open")) now.removeAttribute(name);
    }
    morphChildren(now, next);
  }

  const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE && node.getAttribute("data-key")) || null;

  // A child with a key stays that of its key when others come before it or go: what is ticked in a row is of its run.
  function morphChildren(now, next) {
    const own = new Map([...now.childNodes].filter(keyOf).map((child) => [keyOf(child), child]));
    const wanted = new Set([...next.childNodes].map(keyOf));
    // What is gone goes first, so that what stays need not be moved, which would take the focus from it.
    own.forEach((child, key) => { if (!wanted.has(key)) child.remove(); });
    let place = now.firstChild;
    for (const child of next.childNodes) {
      const kept = keyOf(child) ? own.get(keyOf(child)) : place && !keyOf(place) ? place : null;
      if (!kept) {
        now.insertBefore(child.cloneNode(true), place);
      } else if (kept === place) {
        place = place.nextSibling;
        morph(kept, child);
      } else {
        now.insertBefore(kept, place);
        morph(kept, child);
      }
    }
    while (place) {
      const rest = place;
      place = place.nextSibling;
      rest.remove();
    }
  }

  const parser = new DOMParser();

  function show({ id, html }) {
    const part = document.getElementById(id);
    if (!part || !part.hasAttribute("data-part")) return;
    const log = part.querySelector(".log");
    const atEnd = log && log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    // Parsed in a document of its own: nothing in it runs.
    morphChildren(part, parser.parseFromString(html, "text/html").body);
    const longer = part.querySelector(".log");
    if (longer && atEnd !== false) longer.scrollTop = longer.scrollHeight;
    document.dispatchEvent(new Event("parts"));
  }

  // --- the connection ----------------------------------------------------------------------------------------

  const address = document.body.dataset.live;
  const toggle = document.querySelector(".live-toggle");
  let source = null;

  function tell(state) {
    if (!toggle) return;
    const words = { live: "Live", paused: "Paused", lost: "Reconnecting…" };
    toggle.textContent = words[state];
    toggle.dataset.state = state;
    toggle.setAttribute("aria-pressed", String(state === "paused"));
    toggle.title = state === "paused" ? "Go on with updates" : "Stop updates";
  }

  function connect() {
    source = new EventSource(address);
    source.addEventListener("open", () => tell("live"));
    source.addEventListener("part", (event) => show(JSON.parse(event.data)));
    source.addEventListener("ended", () => location.reload());
    source.addEventListener("error", () => {
      tell("lost");
      // A connection that the server refused is not tried again by the browser.
      if (source && source.readyState === EventSource.CLOSED) {
        source = null;
        setTimeout(() => { if (!source && toggle.dataset.state === "lost") connect(); }, 3000);
      }
    });
  }

  function disconnect() {
    if (source) source.close();
    source = null;
  }

  if (address && toggle) {
    toggle.hidden = false;
    tell("live");
    connect();
    toggle.addEventListener("click", () => {
      if (toggle.dataset.state === "paused") {
        tell("live");
        connect();
      } else {
        disconnect();
        tell("paused");
      }
    });
    // A page that nobody sees costs nothing.
    document.addEventListener("visibilitychange", () => {
      if (toggle.dataset.state === "paused") return;
      if (document.hidden) disconnect();
      else if (!source) connect();
    });
    window.addEventListener("pagehide", disconnect);
  }

  for (const log of document.querySelectorAll(".log")) log.scrollTop = log.scrollHeight;

  // --- the box that goes anywhere: "/" puts the cursor there --------------------------------------------------

  document.addEventListener("keydown", (event) => {
    const box = document.getElementById("q");
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    if (box && event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      box.focus();
      box.select();
    }
  });

  // --- tick boxes: all that are shown at once, and how many are ticked --------------------------------------------

  for (const ticks of document.querySelectorAll("[data-ticks]")) {
    const all = ticks.querySelector(".ticks-all input");
    const boxes = () => [...ticks.querySelectorAll(".pick input")];
    const count = () => {
      const ticked = boxes().filter((box) => box.checked).length;
      all.checked = ticked > 0 && ticked === boxes().length;
      all.indeterminate = ticked > 0 && !all.checked;
      const words = ticked ? `${ticked} ticked` : "";
      const said = ticks.querySelector(".ticked");
      if (said.textContent !== words) said.textContent = words;
    };
    all.parentElement.hidden = false;
    all.addEventListener("change", () => boxes().forEach((box) => { box.checked = all.checked; }));
    ticks.addEventListener("change", count);
    document.addEventListener("parts", count);
    count();
  }

  // --- a form that asks first, and one that cannot be sent twice -----------------------------------------------

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented) return;
    if (form.dataset.ask && !window.confirm(form.dataset.ask)) {
      event.preventDefault();
      return;
    }
    if (form.method === "post") {
      setTimeout(() => form.querySelectorAll("button").forEach((button) => { button.disabled = true; }));
      // The page may stay, as with a download.
      setTimeout(() => form.querySelectorAll("button").forEach((button) => { button.disabled = false; }), 4000);
    }
  });

  // --- Ctrl-Enter runs a query ---------------------------------------------------------------------------------

  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.matches("textarea[data-run]")) {
      event.preventDefault();
      event.target.form.requestSubmit();
    }
  });
})();
