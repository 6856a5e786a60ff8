// The console in a real Chromium: a newcomer's path, every page in both themes held against axe, its first paint and
// its screenshots, and the pages without JavaScript.
//   node console.mjs MODULES CHROMIUM ADDRESS PASSWORD FOLDER
// Prints JSON: the steps that were taken, what was wrong, first paints in milliseconds. Fails where something was wrong.
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, chromium, address, password, folder] = process.argv.slice(2);
const require = createRequire(join(modules, "package.json"));
const { chromium: driver } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(folder, { recursive: true });

const PATIENCE = 240_000;
const wrong = [];
const steps = [];
const paints = {};
const browser = await driver.launch({ executablePath: chromium, args: ["--no-sandbox", "--disable-gpu"] });

// Everything that a page complains about is written down, and where.
function listen(page) {
  page.on("pageerror", (error) => wrong.push(`${page.url()}: ${error.message}`));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) wrong.push(`${page.url()}: console ${message.type()}: ${message.text()}`);
  });
  page.on("response", (response) => {
    if (response.status() >= 400) wrong.push(`${page.url()}: ${response.status()} for ${response.url()}`);
  });
}

async function signIn(page) {
  await page.goto(`${address}/`);
  await page.fill("input[name=name]", "admin");
  await page.fill("input[name=password]", password);
  await page.press("input[name=password]", "Enter");
  await page.waitForSelector(".flow svg");
}

async function step(name, work) {
  const begun = Date.now();
  try {
    await work();
    steps.push(`${name} (${((Date.now() - begun) / 1000).toFixed(1)} s)`);
  } catch (error) {
    wrong.push(`${name}: ${String(error.message).split("\n").slice(0, 6).join(" ")}`);
  }
}

const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, locale: "en-GB" });
const page = await context.newPage();
page.setDefaultTimeout(PATIENCE);
listen(page);

let run = "";
let event = "";
await step("sign in", () => signIn(page));
await step("see live data", () =>
  page.waitForFunction(() => {
    const figure = [...document.querySelectorAll("#figures .figure")].find((of) => of.querySelector("dt").textContent === "Records");
    return figure && Number(figure.querySelector(".value").textContent.replaceAll(",", "")) > 0;
  }));
await step("look back over another range, live all the while", async () => {
  await page.click(".ranges >> text=6h");
  await page.waitForURL("**/?range=6h");
  await page.waitForSelector("text=The last 6 hours");
  await page.waitForSelector(".live-toggle[data-state=live]");
  const before = await page.textContent("#figures");
  await page.waitForFunction((before) => document.querySelector("#figures").textContent !== before, before);
  if (!(await page.locator("text=The last 6 hours").count())) throw new Error("a live update has changed the range");
  await page.reload();
  await page.waitForSelector(".ranges a[aria-current] >> text=6h");
});
await step("trigger the batch and watch it succeed", async () => {
  await page.click("nav >> text=Batch");
  await page.click("text=Run user_events now");
  await page.waitForSelector("#head .badge.good");
  run = new URL(page.url()).pathname;
  if (!/^\/batch\/runs\//.test(run)) throw new Error(`not the page of a run: ${run}`);
});
await step("open a log", async () => {
  await page.waitForSelector(".log .line");
  await page.selectOption("#task", "run_bronze_to_silver");
  await page.click("form.filter button");
  await page.waitForSelector(".log .line");
});
await step("find a run by what it is", async () => {
  await page.goto(`${address}/batch`);
  await page.selectOption("#state", "succeeded");
  await page.selectOption("#cause", "manual");
  await page.click("form.filter button");
  await page.waitForSelector(`#runs >> a[href="${run}"]`);
  await page.selectOption("#state", "failed");
  await page.click("form.filter button");
  await page.waitForSelector("text=No run fits this filter");
});
await step("tick runs, whose ticks stay with them while others come, and be told of each", async () => {
  await page.goto(`${address}/batch?cause=manual`);
  await page.waitForSelector(".live-toggle[data-state=live]");
  const id = run.split("/").pop();
  const box = page.locator(`#runs input[value="${id}"]`);
  // With the keyboard alone; the focus stays, too.
  await box.focus();
  await page.keyboard.press("Space");
  await page.waitForSelector(".ticked >> text=1 ticked");
  const fresh = await page.evaluate(async () => {
    const headers = { "content-type": "application/json", "x-csrf-token": document.body.dataset.csrf };
    const body = JSON.stringify({ pipeline: "user_events" });
    return (await (await fetch("/api/v1/runs", { method: "POST", headers, body })).json()).run_id;
  });
  await page.waitForSelector(`#runs tr:first-child input[value="${fresh}"]`);
  await page.waitForSelector(`#runs tr:first-child .badge.good`);
  const ticked = await page.$$eval("#runs input:checked", (boxes) => boxes.map((box) => box.value));
  if (ticked.join() !== id) throw new Error(`ticked are ${ticked}, not ${id}`);
  if ((await page.evaluate(() => document.activeElement.value)) !== id) throw new Error("the focus has gone elsewhere");
  await page.screenshot({ path: join(folder, "batch-ticked.png"), fullPage: true });
  await page.click("text=All that are shown");
  const boxes = await page.locator("#runs .pick input").count();
  await page.waitForSelector(`.ticked >> text=${boxes} ticked`);
  await page.click("text=Retry the ticked runs");
  await page.waitForURL("**/batch?cause=manual&did=*");
  await page.waitForSelector(`text=0 runs retried, ${boxes} runs refused.`);
  await page.waitForSelector(`td.wrap >> text=${id} is succeeded`);
  await page.screenshot({ path: join(folder, "batch-told.png"), fullPage: true });
});
await step("complete, run and chart a query", async () => {
  await page.goto(`${address}/sql`);
  await page.check("input[value=clickhouse]");
  await page.fill("#sql", "");
  await page.locator("#sql").pressSequentially("select * from realtime.events_per_m", { delay: 5 });
  await page.waitForSelector("#completions [role=option]");
  await page.keyboard.press("Enter");
  await page.locator("#sql").pressSequentially(" order by window_start ", { delay: 5 });
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+Enter");
  await page.waitForSelector("[data-answer] table tbody tr");
  await page.waitForSelector("[data-answer] figure.chart svg");
  await page.screenshot({ path: join(folder, "sql-answer.png"), fullPage: true });
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("text=Download CSV")]);
  if (download.suggestedFilename() !== "rows.csv") throw new Error("the download is no rows.csv");
});
await step("tabs stay in the browser", async () => {
  await page.click("text=New tab");
  await page.check("input[value=delta]");
  await page.fill("#sql", "select event_id from silver.user_events limit 1");
  await page.keyboard.press("Control+Enter");
  await page.waitForSelector("[data-answer] table tbody td");
  event = (await page.textContent("[data-answer] table tbody td")).trim();
  await page.goto(`${address}/sql`);
  const tabs = await page.locator(".tabs button[aria-pressed]").count();
  if (tabs < 2) throw new Error(`${tabs} tabs`);
});
await step("cancel a query", async () => {
  await page.fill("#sql", "select count(*) from silver.user_events a, silver.user_events b, silver.user_events c where a.user_id + b.user_id + c.user_id = -1");
  await page.keyboard.press("Control+Enter");
  await page.click("[data-answer] >> text=Cancel");
  await page.waitForSelector("[data-answer] >> text=cancelled");
});
await step("follow an event", async () => {
  await page.fill("#q", event);
  await page.press("#q", "Enter");
  await page.waitForSelector(".way .step.silver");
});
await step("see a dead letter, correct it, send it again", async () => {
  await page.goto(`${address}/dead-letters`);
  await page.selectOption("#status", "unparsed");
  await page.selectOption("#state", "open");
  await page.click("form.filter button");
  await page.click("table th a");
  await page.fill("#value", "{");
  await page.click("section.card form:has(#value) button");
  await page.waitForSelector("text=it would be no event");
  const now = new Date().toISOString().slice(0, 19);
  const corrected = { event_id: crypto.randomUUID(), user_id: 7, event_type: "click", page: "/", timestamp: now, source: "web" };
  await page.fill("#value", JSON.stringify(corrected));
  await page.click("text=Check anew");
  await page.waitForSelector("text=it would be taken and counted");
  await page.screenshot({ path: join(folder, "letter-checked.png"), fullPage: true });
  await page.click("text=Send it again");
  await page.waitForSelector(".said.good >> text=Sent again as offset");
  const letter = page.url().split("?")[0];
  for (let i = 0; i < 240 && !(await page.locator("text=Resolved by").count()); i++) {
    await page.waitForTimeout(500);
    await page.goto(letter);
  }
  if (!(await page.locator("text=Resolved by").count())) throw new Error("the letter is not resolved");
});
await step("watch events as they come", async () => {
  await page.goto(`${address}/stream`);
  await page.click("text=Events as they come");
  await page.fill("#where", "user_id>0");
  await page.click("form.filter button");
  await page.waitForSelector("#tap table tbody tr");
});
await step("pause a partition and resume it", async () => {
  await page.goto(`${address}/stream`);
  await page.click("text=Pause reading");
  await page.selectOption("#pause-what", "user_events/1");
  await page.fill("#pause-reason", "a newcomer tries it");
  await page.click("form[action='/stream/pause'] button");
  await page.waitForSelector("#partitions .paused >> text=a newcomer tries it");
  await page.screenshot({ path: join(folder, "stream-paused.png"), fullPage: true });
  await page.click("form[action='/stream/resume'] button");
  await page.waitForSelector(".said.good >> text=Resumed");
  await page.waitForSelector("#partitions .paused", { state: "detached" });
});
await step("compare the layers", async () => {
  await page.goto(`${address}/reconcile`);
  await page.click("text=Compare now");
  await page.waitForSelector("#layers-title");
  const verdict = await page.textContent("#layers-title");
  if (!/the same/.test(verdict)) throw new Error(verdict);
});
await step("see the plan of a backfill", async () => {
  await page.goto(`${address}/batch/backfill`);
  await page.click("text=Show the plan");
  await page.waitForSelector("#plan-title");
});

// --- every page ------------------------------------------------------------------------------------------------------

const today = new Date().toISOString().slice(0, 10);
const record = await page.goto(`${address}/dead-letters`).then(() => page.getAttribute("table th a", "href"));
const pages = {
  overview: "/",
  "overview-week": "/?range=7d",
  stream: "/stream",
  tap: "/stream/tap",
  "tap-once": "/stream/tap?last=1&where=event_type%3Dpurchase",
  choices: "/stream/choices?pipeline=user_events",
  batch: "/batch",
  "batch-filtered": "/batch?state=succeeded&cause=manual",
  "batch-none": "/batch?state=failed",
  run: run || "/batch",
  "run-log": `${run || "/batch"}?task=run_bronze_to_silver`,
  "run-found": `${run || "/batch"}?find=ROWS`,
  backfill: `/batch/backfill?pipeline=user_events&from=${today}&to=${today}`,
  data: "/data",
  table: "/data/silver.user_events",
  "table-clickhouse": "/data/clickhouse/realtime.events_per_minute",
  sql: "/sql",
  quality: "/quality",
  "quality-month": "/quality?range=30d",
  reconcile: "/reconcile",
  "dead-letters": "/dead-letters",
  "letters-open": "/dead-letters?state=open&status=unparsed",
  "letters-all": "/dead-letters/all?status=unparsed",
  record,
  trace: `/trace/${event || "none"}`,
  search: "/search?q=nothing+of+the+kind",
  actors: "/actors",
  api: "/api",
  configuration: "/configuration",
  users: "/users",
  audit: "/audit",
  account: "/account",
};

async function look(name, path, theme, width, height) {
  await page.setViewportSize({ width, height });
  await page.emulateMedia({ colorScheme: theme });
  await page.goto(`${address}${path}`);
  await page.waitForSelector("main h1", { state: "attached" });
  if (name === "trace") await page.waitForSelector(".way");
  await page.waitForTimeout(250);
  const size = width > 600 ? "desktop" : "phone";
  await page.screenshot({ path: join(folder, `${name}-${theme}-${size}.png`), fullPage: true });
  const wider = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (wider > 1) wrong.push(`${path} on a ${size}: ${wider} pixels wider than the window`);
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  for (const violation of violations) {
    const where = violation.nodes.slice(0, 3).map((node) => node.target.join(" ")).join(", ");
    wrong.push(`${path} (${theme}, ${size}): ${violation.id}: ${violation.help}: ${where}`);
  }
}

for (const [name, path] of Object.entries(pages)) {
  await step(`look at ${name}`, async () => {
    await look(name, path, "light", 1440, 900);
    await look(name, path, "dark", 1440, 900);
    await look(name, path, "light", 390, 844);
  });
}
await page.setViewportSize({ width: 1440, height: 900 });
for (const [name, path] of Object.entries(pages)) {
  // The second view, as of somebody at work: style sheet and script are there.
  const times = [];
  for (let round = 0; round < 3; round++) {
    await page.goto(`${address}${path}`);
    times.push(await page.evaluate(async () => {
      const first = () => performance.getEntriesByName("first-contentful-paint")[0];
      for (let i = 0; i < 100 && !first(); i++) await new Promise((done) => setTimeout(done, 20));
      return first() ? first().startTime : NaN;
    }));
  }
  paints[name] = Math.round(Math.min(...times));
}

// --- without JavaScript ----------------------------------------------------------------------------------------------

await step("the same without JavaScript", async () => {
  const plain = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 1280, height: 800 } });
  const page = await plain.newPage();
  page.setDefaultTimeout(PATIENCE);
  await signIn(page);
  for (const path of Object.values(pages)) {
    const answer = await page.goto(`${address}${path}`);
    if (answer.status() !== 200) throw new Error(`${path}: ${answer.status()}`);
  }
  await page.goto(`${address}/batch?state=succeeded`);
  if (await page.locator(".live-toggle, .ticks-all").filter({ visible: true }).count()) throw new Error("what needs a script is shown without one");
  const box = page.locator("#runs .pick input").first();
  await box.check();
  await page.click("text=Cancel the ticked runs");
  await page.waitForURL("**/batch?state=succeeded&did=*");
  await page.waitForSelector("text=0 runs cancelled, 1 run refused.");
  await page.goto(`${address}/sql`);
  await page.fill("#sql", "select event_type, count(*) as events from silver.user_events group by 1 order by 2 desc");
  await page.click(".editor button.primary");
  await page.waitForSelector("table tbody tr");
  await page.waitForSelector("figure.chart svg");
  await plain.close();
});

await browser.close();
console.log(JSON.stringify({ steps, first_paint_ms: paints, wrong }, null, 1));
if (wrong.length) {
  console.error(wrong.join("\n"));
  process.exit(1);
}
