// The SQL editor: tabs kept in this browser, completion, and queries that run while the page stays. Without it the
// form is sent and the page comes back with the rows.
"use strict";

(() => {
  const editor = document.querySelector("[data-editor]");
  const answer = document.querySelector("[data-answer]");
  if (!editor || !answer) return;
  const form = editor.closest("form");
  const text = editor.querySelector("textarea");
  const engines = [...form.querySelectorAll("input[name=on]")];

  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  const engine = () => (engines.find((radio) => radio.checked) || engines[0]).value;
  function choose(on) {
    for (const radio of engines) radio.checked = radio.value === on;
  }

  // --- tabs ------------------------------------------------------------------------------------------------------

  const KEY = "boathouse-sql-tabs";
  const TABS_MAX = 12;
  const bar = make("div", { class: "tabs", role: "group", "aria-label": "Statements kept in this browser" });
  let tabs = [{ sql: "", on: "delta" }];
  let active = 0;

  function load() {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY) || "null");
      const good = kept && Array.isArray(kept.tabs) ? kept.tabs.filter((tab) => tab && typeof tab.sql === "string") : [];
      if (good.length) tabs = good.slice(0, TABS_MAX).map(({ sql, on }) => ({ sql, on: on === "clickhouse" ? on : "delta" }));
      active = Math.min(Math.max(Number(kept && kept.active) || 0, 0), tabs.length - 1);
    } catch {
      // Nothing is kept where the browser keeps nothing.
    }
  }

  function keep() {
    tabs[active] = { sql: text.value, on: engine() };
    try {
      localStorage.setItem(KEY, JSON.stringify({ active, tabs }));
    } catch {
      // As above.
    }
    // A link to the page shows a colleague the same statement.
    const address = `/sql?on=${engine()}&sql=${encodeURIComponent(text.value)}`;
    if (address.length < 4000) history.replaceState(null, "", text.value ? address : "/sql");
  }

  function show(index) {
    active = index;
    text.value = tabs[active].sql;
    choose(tabs[active].on);
    keep();
    draw();
  }

  const title = (tab) => {
    const line = tab.sql.trim().split("\n").join(" ");
    return line.length > 26 ? `${line.slice(0, 25)}…` : line || "Empty";
  };

  function draw() {
    const buttons = tabs.map((tab, index) => {
      const button = make("button", { type: "button", "aria-pressed": String(index === active) }, title(tab));
      button.addEventListener("click", () => { keep(); show(index); text.focus(); });
      return button;
    });
    const more = make("button", { type: "button", class: "quiet" }, "New tab");
    more.disabled = tabs.length >= TABS_MAX;
    more.addEventListener("click", () => { keep(); tabs.push({ sql: "", on: engine() }); show(tabs.length - 1); text.focus(); });
    const less = make("button", { type: "button", class: "quiet" }, "Close tab");
    less.disabled = tabs.length < 2;
    less.addEventListener("click", () => { tabs.splice(active, 1); show(Math.min(active, tabs.length - 1)); text.focus(); });
    const focused = [...bar.children].indexOf(document.activeElement);
    bar.replaceChildren(...buttons, more, less);
    if (focused >= 0 && bar.children[focused]) bar.children[focused].focus();
  }

  load();
  if (text.value.trim()) {
    // Somebody came by a link: it has a tab of its own unless there is one already.
    const [sql, on] = [text.value, engine()];
    let at = tabs.findIndex((tab) => tab.sql === sql && tab.on === on);
    if (at < 0) at = tabs.findIndex((tab) => !tab.sql.trim());
    if (at < 0) at = tabs.length < TABS_MAX ? tabs.length : active;
    tabs[at] = { sql, on };
    active = at;
    keep();
  } else {
    text.value = tabs[active].sql;
    choose(tabs[active].on);
  }
  editor.prepend(bar);
  draw();
  text.addEventListener("change", () => { keep(); draw(); });
  for (const radio of engines) radio.addEventListener("change", keep);

  // --- a query runs, and the page stays ----------------------------------------------------------------------------

  const parser = new DOMParser();
  let running = null;

  function put(...nodes) {
    answer.replaceChildren(...nodes);
  }

  function own() {
    if (window.crypto && crypto.randomUUID) return crypto.randomUUID();
    return `q-${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
  }

  function post(path, fields) {
    const body = new URLSearchParams({ csrf: document.body.dataset.csrf, ...fields });
    return fetch(path, { method: "POST", body, redirect: "manual" });
  }

  async function run() {
    if (running) return;
    keep();
    draw();
    const id = own();
    const begun = Date.now();
    const words = make("span", { role: "status" }, "Running");
    const stop = make("button", { type: "button", class: "danger" }, "Cancel");
    stop.addEventListener("click", () => { stop.disabled = true; post("/sql/cancel", { id }); });
    put(make("div", { class: "said busy under-way" }, words, stop));
    const tell = setInterval(async () => {
      const seconds = `${((Date.now() - begun) / 1000).toFixed(0)} s`;
      const all = await fetch("/sql/running").then((all) => (all.ok ? all.json() : []), () => []);
      const mine = all.find((query) => query.id === id);
      if (running !== id || !mine) return;
      const rows = mine.rows ? `, ${mine.rows.toLocaleString("en")} rows so far` : "";
      words.textContent = mine.waits ? `Waits for its turn, for ${seconds}` : `Running for ${seconds}${rows}`;
    }, 1000);
    running = id;
    try {
      const sent = await post("/sql", { sql: text.value, on: engine(), as: "part", id });
      const html = await sent.text();
      if (sent.ok) put(...parser.parseFromString(html, "text/html").body.childNodes);
      else put(make("p", { class: "said", role: "alert" }, `The server answered ${sent.status || "that you are not signed in"}; reload the page and try again.`));
    } catch {
      put(make("p", { class: "said", role: "alert" }, "The console does not answer; is the daemon running?"));
    } finally {
      clearInterval(tell);
      running = null;
    }
  }

  form.addEventListener("submit", (event) => {
    if (event.submitter && event.submitter.value === "csv") return;
    event.preventDefault();
    run();
  });

  // --- completion ----------------------------------------------------------------------------------------------------

  const KEYWORDS = ("select from where group by order by limit join left join inner join on with as distinct having union all " +
    "case when then else end and or not in is null like between count sum avg min max desc asc interval date").split(" ");
  const SHOWN_MAX = 8;
  const known = new Map();
  const list = make("ul", { id: "completions", class: "completions", role: "listbox", "aria-label": "Completions" });
  list.hidden = true;
  text.after(list);
  text.setAttribute("aria-autocomplete", "list");
  text.setAttribute("aria-haspopup", "listbox");
  text.setAttribute("aria-controls", list.id);
  const hint = editor.querySelector("[data-keys]");
  if (hint) hint.hidden = false;
  let offered = [];
  let at = -1;

  async function words() {
    const on = engine();
    if (!known.has(on)) {
      const none = { tables: [], functions: [] };
      const found = await fetch(`/sql/words?on=${on}`).then((words) => (words.ok ? words.json() : none), () => none);
      const all = [];
      for (const { table } of found.tables) all.push([table, "table"]);
      const columns = new Set(found.tables.flatMap((table) => table.columns));
      for (const column of columns) all.push([column, "column"]);
      for (const word of new Set(KEYWORDS)) all.push([word, "keyword"]);
      for (const name of found.functions) all.push([name, "function"]);
      known.set(on, { all, tables: found.tables });
      setTimeout(() => known.delete(on), 60000);
    }
    return known.get(on);
  }

  // The word before the cursor.
  function typed() {
    const before = text.value.slice(0, text.selectionStart);
    return (before.match(/[A-Za-z_][\w.]*$/) || [""])[0];
  }

  function close() {
    list.hidden = true;
    offered = [];
    at = -1;
    text.removeAttribute("aria-activedescendant");
  }

  function mark(index) {
    at = index;
    [...list.children].forEach((option, i) => option.setAttribute("aria-selected", String(i === at)));
    const option = list.children[at];
    if (option) {
      text.setAttribute("aria-activedescendant", option.id);
      option.scrollIntoView({ block: "nearest" });
    }
  }

  function accept(index) {
    const word = typed();
    const [chosen, kind] = offered[index];
    const end = text.selectionStart;
    const whole = kind === "function" ? `${chosen}(` : chosen;
    text.setRangeText(whole, end - word.length, end, "end");
    close();
    text.focus();
  }

  async function offer(asked) {
    const word = typed().toLowerCase();
    if (!asked && word.length < 2) return close();
    const { all, tables } = await words();
    if (typed().toLowerCase() !== word) return;
    // Columns of the tables that the statement names come first.
    const named = tables.filter((table) => text.value.includes(table.table)).flatMap((table) => table.columns);
    const first = new Set(named);
    const rank = ([name, kind]) => (first.has(name) ? 0 : { table: 1, column: 2, keyword: 3, function: 4 }[kind]);
    offered = all
      .filter(([name]) => name.toLowerCase().startsWith(word) && name.toLowerCase() !== word)
      .concat(word ? all.filter(([name, kind]) => kind === "table" && !name.toLowerCase().startsWith(word) && name.toLowerCase().includes(word)) : [])
      .sort((a, b) => rank(a) - rank(b))
      .slice(0, SHOWN_MAX);
    if (!offered.length) return close();
    list.replaceChildren(...offered.map(([name, kind], index) => {
      const option = make("li", { id: `completion-${index}`, role: "option", "aria-selected": "false" }, name, " ", make("span", { class: "note" }, kind));
      // Before the field loses the focus.
      option.addEventListener("mousedown", (event) => { event.preventDefault(); accept(index); });
      return option;
    }));
    list.hidden = false;
    mark(0);
  }

  text.addEventListener("input", () => offer(false));
  text.addEventListener("blur", close);
  text.addEventListener("keydown", (event) => {
    if (event.key === " " && event.ctrlKey) {
      event.preventDefault();
      offer(true);
      return;
    }
    if (list.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowDown") mark((at + 1) % offered.length);
    else if (event.key === "ArrowUp") mark((at + offered.length - 1) % offered.length);
    else if (event.key === "Enter" || event.key === "Tab") accept(at);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
})();
