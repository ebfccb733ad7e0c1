// PerSQL's documented HTTP API on the engine beneath it: one Durable Object with SQLite a database.
// A plain server of that API for the tests. It knows nothing of the library.

import { DurableObject } from "cloudflare:workers";

const MAX_STATEMENTS = 100;
const MAX_KEY_LENGTH = 200;
const MAX_CACHED_ANSWERS = 20_000;
const USD_PER_REQUEST = 0.5e-6;
const USD_PER_ROW_READ = 0.005e-6;
const USD_PER_ROW_WRITTEN = 2e-6;

// psql_test_<role>_<namespace>_<secret>
const TOKEN = /^psql_(?:test|live)_(admin|readwrite|readonly)_(.+)_[A-Za-z0-9]+$/;
const PATH = /^\/v1\/db\/([^/]+)\/([^/]+)\/(query|batch|tables)$/;
const DDL = /^\s*(CREATE|ALTER|DROP|TRUNCATE|ATTACH|DETACH|REINDEX|VACUUM)\b/i;
const READ = /^\s*(SELECT|PRAGMA)\b/i;

function failure(status, error, detail, headers) {
  const body = { success: false, error };
  if (detail) body.errorDetail = { message: error, ...detail };
  return Response.json(body, { status, headers });
}

export default {
  async fetch(request, env) {
    const token = TOKEN.exec((request.headers.get("Authorization") ?? "").replace(/^Bearer /, ""));
    if (!token) return failure(401, "Invalid token format");
    const [, role, namespace] = token;
    const path = PATH.exec(new URL(request.url).pathname);
    if (!path) return failure(404, "Not found");
    if (decodeURIComponent(path[1]) !== namespace) return failure(403, "Token namespace mismatch");
    if (request.method !== (path[3] === "tables" ? "GET" : "POST")) {
      return failure(405, "Method not allowed");
    }
    const slug = `${namespace}/${decodeURIComponent(path[2])}`;
    const headers = new Headers(request.headers);
    headers.delete("Authorization");
    headers.set("X-Role", role);
    headers.set("X-Verb", path[3]);
    headers.set("X-Idempotency", env.IDEMPOTENCY ?? "on");
    const database = env.DATABASES.get(env.DATABASES.idFromName(slug));
    return database.fetch(new Request(request, { headers }));
  },
};

export class HostedDatabase extends DurableObject {
  answers = new Map();

  async fetch(request) {
    const verb = request.headers.get("X-Verb");
    if (verb === "tables") return Response.json({ success: true, data: this.tables() });

    const text = await request.text();
    // From here to the answer nothing awaits, so requests can't interleave.
    const key = request.headers.get("Idempotency-Key");
    if (key !== null && key.length > MAX_KEY_LENGTH) {
      return failure(400, `Idempotency-Key longer than ${MAX_KEY_LENGTH} characters`);
    }
    const caching = key !== null && request.headers.get("X-Idempotency") !== "off";
    if (caching && this.answers.has(key)) {
      return new Response(this.answers.get(key), {
        headers: { "Content-Type": "application/json", "Idempotency-Replayed": "true" },
      });
    }

    let body;
    try {
      body = JSON.parse(text);
    } catch {
      return failure(400, "Invalid JSON body");
    }
    const statements = verb === "query" ? [body] : body?.statements;
    if (!Array.isArray(statements) || statements.some((each) => typeof each?.sql !== "string")) {
      return failure(400, "Invalid body: expected sql, or statements with sql");
    }
    if (statements.length > MAX_STATEMENTS) {
      return failure(400, `A batch takes at most ${MAX_STATEMENTS} statements`);
    }
    const refusal = refused(request.headers.get("X-Role"), statements);
    if (refusal) return refusal;

    const began = Date.now();
    const run = () => statements.map((each) => this.run(each));
    let results;
    try {
      results = verb === "batch" && body.transaction ? this.ctx.storage.transactionSync(run) : run();
    } catch (error) {
      return failure(400, error.message, explain(error.message));
    }
    const answer = JSON.stringify({
      success: true,
      data: verb === "query" ? results[0] : results,
      meta: meta(results, Date.now() - began),
    });
    if (caching) {
      this.answers.set(key, answer);
      if (this.answers.size > MAX_CACHED_ANSWERS) {
        this.answers.delete(this.answers.keys().next().value);
      }
    }
    return new Response(answer, { headers: { "Content-Type": "application/json" } });
  }

  run({ sql, params }) {
    const cursor = this.ctx.storage.sql.exec(sql, ...(params ?? []));
    const rows = [...cursor.raw()];
    return {
      columns: cursor.columnNames,
      rows,
      rowsRead: cursor.rowsRead,
      rowsWritten: cursor.rowsWritten,
    };
  }

  tables() {
    const names = this.run({
      sql: `SELECT name FROM sqlite_master WHERE type = 'table'
            AND name NOT LIKE 'sqlite^_%' ESCAPE '^' AND name NOT LIKE '^_cf^_%' ESCAPE '^'
            ORDER BY name`,
    }).rows;
    return names.map(([name]) => {
      const quoted = `"${name.replaceAll('"', '""')}"`;
      return { name, rowCount: this.run({ sql: `SELECT count(*) FROM ${quoted}` }).rows[0][0] };
    });
  }
}

function refused(role, statements) {
  for (const { sql } of statements) {
    if (role === "readonly" && !READ.test(sql)) {
      return failure(403, "Token role 'readonly' may only read", { kind: "readonly" });
    }
    if (role === "readwrite" && DDL.test(sql)) {
      return failure(403, "Token role 'readwrite' may not run DDL", { kind: "readonly" });
    }
  }
  return null;
}

function meta(results, durationMs) {
  const sum = (field) => results.reduce((total, result) => total + result[field], 0);
  const rowsRead = sum("rowsRead");
  const rowsWritten = sum("rowsWritten");
  return {
    rowsRead,
    rowsWritten,
    durationMs,
    statementCount: results.length,
    costUsd: USD_PER_REQUEST + rowsRead * USD_PER_ROW_READ + rowsWritten * USD_PER_ROW_WRITTEN,
  };
}

function columnsOf(list) {
  const columns = list.split(", ").map((name) => {
    const [table, column] = name.split(".");
    return { table, column };
  });
  return { ...columns[0], columns };
}

const EXPLANATIONS = [
  [/UNIQUE constraint failed: ([^:]+)/, (m) => ({ kind: "unique_violation", ...columnsOf(m[1]) })],
  [/NOT NULL constraint failed: ([^:]+)/, (m) => ({ kind: "not_null_violation", ...columnsOf(m[1]) })],
  [/FOREIGN KEY constraint failed/, () => ({ kind: "fk_violation" })],
  [/CHECK constraint failed: ([^:]+)/, (m) => ({ kind: "check_violation", constraint: m[1] })],
  [/no such table: ([^\s:]+)/, (m) => ({ kind: "unknown_table", table: m[1] })],
  [/no such column: ([^\s:]+)/, (m) => ({ kind: "unknown_column", column: m[1] })],
  [
    /table (\S+) has no column named ([^\s:]+)/,
    (m) => ({ kind: "unknown_column", table: m[1], column: m[2] }),
  ],
  [/near "(.*?)": syntax error/, (m) => ({ kind: "syntax_error", near: m[1] })],
  [/incomplete input|unrecognized token/, () => ({ kind: "syntax_error" })],
  [/datatype mismatch|cannot store \S+ value in/, () => ({ kind: "type_mismatch" })],
  [/database is locked/, () => ({ kind: "database_locked" })],
  [/too many SQL variables/, () => ({ kind: "too_many_params" })],
];

function explain(message) {
  for (const [pattern, detail] of EXPLANATIONS) {
    const match = pattern.exec(message);
    if (match) return detail(match);
  }
  return { kind: "unknown" };
}
