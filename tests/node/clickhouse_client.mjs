// ClickHouse's own client for Node.js on the engine: DDL, inserts, bound parameters, every shape of result, errors.
//   node clickhouse_client.mjs MODULES URL
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, url] = process.argv.slice(2);
const { createClient, ClickHouseError } = createRequire(join(modules, "package.json"))("@clickhouse/client");

for (const compression of [{ request: false, response: false }, { request: true, response: true }]) {
  const client = createClient({ url, compression, request_timeout: 30_000 });
  try {
    assert.equal((await client.ping()).success, true);
    await client.command({
      query: "CREATE OR REPLACE TABLE node_events (id UInt64, name String, at DateTime, tags Array(String), note Nullable(String)) ENGINE = MergeTree ORDER BY id",
    });
    const values = Array.from({ length: 1_000 }, (_, id) => ({
      id, name: `event ${id} 'quoted' \\ ü`, at: 1_770_000_000 + id, tags: [`${id % 3}`, "t"], note: id % 2 ? "n" : null,
    }));
    await client.insert({ table: "node_events", values, format: "JSONEachRow" });

    const bound = await client.query({
      query: "SELECT id, name, tags, note FROM node_events WHERE id >= {least:UInt64} AND name != {not:String} ORDER BY id",
      query_params: { least: 990, not: "it's" },
      format: "JSONEachRow",
      clickhouse_settings: { output_format_json_quote_64bit_integers: 0 },
    });
    const rows = await bound.json();
    assert.deepEqual(rows, values.slice(990).map(({ at, ...rest }) => rest));

    const whole = await (await client.query({ query: "SELECT count() AS n FROM node_events", format: "JSON" })).json();
    assert.deepEqual([whole.meta[0].name, Number(whole.data[0].n), whole.rows], ["n", 1000, 1]);

    let streamed = 0;
    const stream = await client.query({ query: "SELECT number FROM system.numbers LIMIT 100000", format: "JSONEachRow" });
    for await (const part of stream.stream()) streamed += part.length;
    assert.equal(streamed, 100_000);

    await assert.rejects(client.query({ query: "SELECT * FROM nope" }), (error) => {
      assert.ok(error instanceof ClickHouseError, String(error));
      return error.code === "60" && error.type === "UNKNOWN_TABLE";
    });
    const tables = await (await client.query({ query: "SELECT name FROM system.tables WHERE database = 'realtime' ORDER BY name", format: "JSONEachRow" })).json();
    for (const name of ["events_per_minute", "logins_per_source", "purchases_per_minute"]) {
      assert.ok(tables.some((t) => t.name === name), `realtime.${name} is not listed`);
    }
    await client.command({ query: "DROP TABLE node_events" });
  } finally {
    await client.close();
  }
}
console.log("@clickhouse/client works");
