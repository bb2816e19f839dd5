// Prints who changed and what: node dist/main.js [--bootstrap] [--durable NAME] [--events N] [SUBJECT...]
import { parseArgs } from "node:util";
import { connect, credsAuthenticator } from "@nats-io/transport-node";
import { readFileSync } from "node:fs";
import { consume, type ContactEvent } from "./consumer.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    bootstrap: { type: "boolean", default: false },
    durable: { type: "string", default: "example-typescript" },
    events: { type: "string" },
  },
});

const creds = process.env["NATS_CREDS"];
const nc = await connect({
  servers: (process.env["NATS_URL"] ?? "nats://127.0.0.1:4222").split(","),
  name: values.durable,
  maxReconnectAttempts: -1,
  ...(creds ? { authenticator: credsAuthenticator(readFileSync(creds)) } : {}),
});

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());

let left = values.events ? Number(values.events) : Infinity;

function print(event: ContactEvent): void {
  const { data } = event;
  const verb = event.type.split(".").at(-1) ?? "";
  const notes = [data.reason, data.restored && "restored", data.erased && "erased"].filter(Boolean);
  console.log([verb.padEnd(8), data.summary.name || event.subject, `#${data.revision}`, ...notes].join("  "));
  for (const [key, { before, after }] of Object.entries(data.changes ?? {})) {
    console.log(`          ${key}: ${words(before)} → ${words(after)}`);
  }
  if (--left <= 0) stop.abort();
}

/** The texts of one side of a change: of a field's values, of tags, or of anything else as JSON. */
function words(side: unknown): string {
  if (side === null) return "(none)";
  if (!Array.isArray(side)) return JSON.stringify(side);
  const texts = side.map((v) => (v !== null && typeof v === "object" ? (v.value ?? v.tag ?? JSON.stringify(v)) : String(v)));
  return texts.join(", ") || "(none)";
}

await consume(
  nc,
  print,
  {
    durable: values.durable,
    bootstrap: values.bootstrap,
    ...(positionals.length > 0 ? { subjects: positionals } : {}),
  },
  stop.signal,
);
await nc.drain();
