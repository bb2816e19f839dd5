// Handles events as the environment says: node harness.mjs PATH-OF-CONSUMER.JS DURABLE
import { existsSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [path, durable] = process.argv.slice(2);
const { consume } = await import(pathToFileURL(path).href);
const { connect } = createRequire(path)("@nats-io/transport-node");
const { FAIL, FAIL_TWICE, DIE_ONCE, DIED, EVENTS, BOOTSTRAP, NATS_URL } = process.env;

const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());
let done = 0;
let failed = 0;
let said = "";
const nc = await connect({ servers: NATS_URL });
await consume(
  nc,
  async (event) => {
    const name = event.data.summary.name;
    const what = BOOTSTRAP ? `${name} ${event.subject} ${event.data.revision}` : `${name} ${event.data.revision}`;
    if (name === FAIL || (name === FAIL_TWICE && event.data.revision === 1 && failed++ < 2)) {
      console.log(`fails ${what}`);
      throw new Error("as told");
    }
    if (name === DIE_ONCE && !existsSync(DIED)) {
      writeFileSync(DIED, "");
      said = `dies ${what}\n`;
      process.stdout.write(said, () => process.kill(process.pid, "SIGKILL"));
      await new Promise(() => {});
    }
    console.log(what);
    if (++done >= Number(EVENTS) || (!BOOTSTRAP && what === "B 2")) stop.abort();
  },
  { durable, bootstrap: Boolean(BOOTSTRAP), maxTries: 3, retryMillis: 10, ackWaitMillis: 1000 },
  stop.signal,
);
await nc.close();
