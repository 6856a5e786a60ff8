// Holds dashboards against Grafana's own model: each becomes a TypeScript constant of the published types (the dashboard,
// and of every panel its options and field options by its type), which the compiler accepts or not. A key that Grafana does not
// know is an error, as is a value that is none of those it knows.
//   node dashboards.mjs MODULES FILE...
import { readFileSync, writeFileSync, mkdtempSync, rmSync, symlinkSync, existsSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";

const [modules, ...files] = process.argv.slice(2);
const require = createRequire(join(modules, "package.json"));
const ts = require("typescript");

// The panel types that are in use, and how the model calls them.
const PANELS = { stat: "Stat", timeseries: "TimeSeries", table: "Table", bargauge: "BarGauge" };
const FIELD_OPTIONS = ["timeseries", "table"];
const schema = join(modules, "node_modules/@grafana/schema/dist/esm/raw/composable");

const folder = mkdtempSync(join(tmpdir(), "dashboards-"));
try {
  symlinkSync(join(modules, "node_modules"), join(folder, "node_modules"));
  const sources = files.map((file) => {
    const dashboard = JSON.parse(readFileSync(file, "utf8"));
    const imports = new Set();
    const parts = [];
    dashboard.panels.forEach((panel, at) => {
      const name = PANELS[panel.type];
      if (name === undefined) throw new Error(`${file}: panel ${panel.title} is of type ${panel.type}, which is not checked here`);
      const path = join(schema, panel.type, "panelcfg/x", `${name}PanelCfg_types.gen`);
      if (!existsSync(`${path}.d.ts`)) throw new Error(`no model of ${panel.type} in @grafana/schema`);
      imports.add(`import type * as ${panel.type} from ${JSON.stringify(path)};`);
      parts.push(`export const options${at}: Plain<Partial<${panel.type}.Options>> = ${JSON.stringify(panel.options, null, 1)};`);
      const custom = panel.fieldConfig.defaults.custom ?? {};
      if (FIELD_OPTIONS.includes(panel.type)) {
        parts.push(`export const field${at}: Plain<Partial<${panel.type}.FieldConfig>> = ${JSON.stringify(custom, null, 1)};`);
      } else if (Object.keys(custom).length > 0) {
        throw new Error(`${file}: ${panel.title}: panels of type ${panel.type} have no field options`);
      }
    });
    const path = join(folder, basename(file).replace(/\W/g, "_") + ".ts");
    const text = [
      `import type { Dashboard, Panel } from "@grafana/schema";`,
      ...imports,
      // A file holds the values of an enumeration's members, not their names.
      "type Plain<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;",
      `export const dashboard: Plain<Dashboard & { panels: Panel[] }> = ${JSON.stringify(dashboard, null, 1)};`,
      ...parts,
    ].join("\n");
    writeFileSync(path, text);
    return path;
  });
  const program = ts.createProgram(sources, {
    noEmit: true, strict: true, skipLibCheck: true, types: [],
    module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler, target: ts.ScriptTarget.ES2022,
  });
  const problems = ts.getPreEmitDiagnostics(program);
  for (const problem of problems) {
    const at = problem.file ? problem.file.getLineAndCharacterOfPosition(problem.start) : undefined;
    const line = problem.file && at ? problem.file.text.split("\n")[at.line].trim() : "";
    console.error(`${problem.file ? basename(problem.file.fileName) : ""}:${at ? at.line + 1 : ""} ${line}\n  ${ts.flattenDiagnosticMessageText(problem.messageText, "\n  ")}`);
  }
  if (problems.length > 0) process.exitCode = 1;
  else console.log(`${files.length} dashboards are as Grafana's model wants them`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
