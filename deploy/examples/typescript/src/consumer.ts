// A durable consumer of nimble-bridge's contact events.
//
// consume() calls a handler with each event, one at a time and in order. An event counts as done when the handler has returned; one that fails comes again
// after a pause, and when it has failed too often it goes to a stream of dead letters, so that the others go on. A new consumer can begin with the latest
// event of each contact out of the key-value bucket instead of the whole history.
import {
  AckPolicy,
  DeliverPolicy,
  DiscardPolicy,
  jetstream,
  JetStreamApiCodes,
  JetStreamApiError,
  jetstreamManager,
  type JetStreamClient,
  type JetStreamManager,
  type JsMsg,
} from "@nats-io/jetstream";
import { Kvm, type KV } from "@nats-io/kv";
import { headers, nanos, type NatsConnection } from "@nats-io/transport-node";

/** A contact event. `nimble-bridge schema` has all of it; readers pass over members that they do not know. */
export interface ContactEvent {
  id: string;
  type: `com.nimble.contact.${"snapshot" | "created" | "updated" | "deleted"}`;
  /** The contact's id. */
  subject: string;
  time: string;
  data: {
    account: string;
    /** Counts the contact's events: 1, 2, 3 … The same revision again is the same event again. */
    revision: number;
    reason?: "not_found" | "forbidden" | "erased";
    restored?: boolean;
    erased?: boolean;
    truncated?: boolean;
    summary: { name: string; company: string; title: string; emails: string[]; phones: string[]; tags: string[] };
    contact: { id: string; [key: string]: unknown };
    changes?: Record<string, { before: unknown; after: unknown }>;
  };
}

/** What is done with an event. It may be called again with one that it has seen, after a crash between its end and the acknowledgement. */
export type Handler = (event: ContactEvent) => Promise<void> | void;

export interface Options {
  /** The name under which NATS remembers how far this consumer has come. */
  durable: string;
  /** Which events: see the consumer's guide. */
  subjects?: string[];
  stream?: string;
  bucket?: string;
  /** Begin with the latest event of each contact, not with the first event of the stream. It matters only the first time. */
  bootstrap?: boolean;
  maxTries?: number;
  retryMillis?: number;
  /** How long NATS waits for a sign of life before it gives an event out again: the time that a crash costs. */
  ackWaitMillis?: number;
  log?: (line: string) => void;
}

/** Handles events until the signal says stop. */
export async function consume(nc: NatsConnection, handler: Handler, options: Options, stop?: AbortSignal): Promise<void> {
  const o = {
    subjects: ["nimble.*.contact.>"],
    stream: "NIMBLE",
    bucket: "nimble-contacts",
    bootstrap: false,
    maxTries: 5,
    retryMillis: 1000,
    ackWaitMillis: 30_000,
    log: (line: string) => console.error(line),
    ...options,
  };
  const jsm = await jetstreamManager(nc);
  const js = jetstream(nc);
  // The last revision handled of each contact. A service that writes to a database keeps this there, in the transaction that writes the rest.
  const seen = await new Kvm(js).create(`${o.durable}-seen`);
  await deadLetters(jsm);

  if (!(await exists(jsm, o.stream, o.durable))) {
    let from = 0;
    if (o.bootstrap) {
      from = await bootstrap(js, jsm, o.bucket, (event) => once(seen, event, handler, o.log), stop);
      if (stop?.aborted) return; // The next start reads the bucket again, and passes over what is done.
      const { first_seq, last_seq } = (await jsm.streams.info(o.stream)).state;
      if (first_seq > from + 1) throw new Error("the stream dropped events while the bucket was read; start again");
      if (last_seq < from) from = 0; // It has lost its end in a power failure, and sequences come again: all of it, then.
    }
    await jsm.consumers.add(o.stream, {
      durable_name: o.durable,
      filter_subjects: o.subjects,
      ack_policy: AckPolicy.Explicit,
      ack_wait: nanos(o.ackWaitMillis),
      // One at a time: an event that waits for its next try holds back those after it, so that a contact's events stay in order.
      max_ack_pending: 1,
      max_deliver: -1,
      ...(from > 0
        ? { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: from + 1 }
        : { deliver_policy: DeliverPolicy.All }),
    });
  }

  const consumer = await js.consumers.get(o.stream, o.durable);
  const messages = await consumer.consume({ max_messages: 10 });
  stop?.addEventListener("abort", () => void messages.close());
  if (stop?.aborted) void messages.close();
  for await (const message of messages) {
    const tries = message.info.deliveryCount;
    const alive = setInterval(() => message.working(), o.ackWaitMillis / 3);
    try {
      // A message that ended the process as often as this is not tried again.
      if (tries > o.maxTries) throw new Error(`was delivered ${tries} times and never done`);
      await once(seen, message.json<ContactEvent>(), handler, o.log);
    } catch (err) {
      const reason = err instanceof Error ? err.message : String(err);
      if (tries < o.maxTries) {
        o.log(`event ${message.seq}, try ${tries} of ${o.maxTries}: ${reason}`);
        message.nak(o.retryMillis * 2 ** (tries - 1));
        continue;
      }
      await bury(js, o.durable, message, reason);
      o.log(`event ${message.seq} is given up: ${reason}`);
    } finally {
      clearInterval(alive);
    }
    if (!(await message.ackAck())) o.log(`event ${message.seq}: the acknowledgement is not confirmed, it may come again`);
  }
}

/** Calls the handler unless this event, or a later one of the contact, has been handled before. */
async function once(seen: KV, event: ContactEvent, handler: Handler, log: (line: string) => void): Promise<void> {
  const key = `${event.data.account}.${event.subject}`;
  const known = await seen.get(key);
  if (known && known.operation === "PUT" && Number(known.string()) >= event.data.revision) {
    log(`revision ${event.data.revision} of contact ${event.subject} is done already`);
    return;
  }
  await handler(event);
  await seen.put(key, String(event.data.revision));
}

/**
 * Handles the latest event of each contact, and returns the sequence of the event stream that the rest begins behind.
 *
 * NATS fills the bucket from the stream in order, and each of its messages says where in the stream it comes from. All events up to the newest one that was read are
 * covered: by themselves, or by a later event of the same contact, which is either in the bucket as well or still to come from the stream.
 */
async function bootstrap(
  js: JetStreamClient,
  jsm: JetStreamManager,
  bucket: string,
  handler: Handler,
  stop?: AbortSignal,
): Promise<number> {
  const stream = `KV_${bucket}`;
  let newest = 0;
  if ((await jsm.streams.info(stream)).state.messages === 0) return newest;
  const consumer = await js.consumers.get(stream, { deliver_policy: DeliverPolicy.All }); // Ordered: it starts over by itself after a gap.
  const messages = await consumer.consume();
  for await (const message of messages) {
    // Nats-Stream-Source is "<stream> <sequence> <filter> <destination> <subject>".
    const source = message.headers?.get("Nats-Stream-Source")?.split(" ") ?? [];
    newest = Math.max(newest, Number(source[1] ?? 0));
    await handler(message.json<ContactEvent>());
    if (message.info.pending === 0 || stop?.aborted) break;
  }
  return newest;
}

async function exists(jsm: JetStreamManager, stream: string, durable: string): Promise<boolean> {
  try {
    await jsm.consumers.info(stream, durable);
    return true;
  } catch (err) {
    if (isApiError(err, JetStreamApiCodes.ConsumerNotFound)) return false;
    throw err;
  }
}

function isApiError(err: unknown, code: number): boolean {
  return err instanceof JetStreamApiError && err.code === code;
}

/** The stream of dead letters, with a subject for each consumer. It is no part of the event stream. */
async function deadLetters(jsm: JetStreamManager): Promise<void> {
  try {
    await jsm.streams.info("nimble-dead");
  } catch (err) {
    if (!isApiError(err, JetStreamApiCodes.StreamNotFound)) throw err;
    await jsm.streams.add({ name: "nimble-dead", subjects: ["nimble-dead.>"], discard: DiscardPolicy.New });
  }
}

/** Stores a message among the dead letters, as it is, in the form that the Go package publisher/consumer gives them. */
async function bury(js: JetStreamClient, durable: string, message: JsMsg, reason: string): Promise<void> {
  const h = headers();
  for (const [name, values] of message.headers ?? []) {
    // Those of NATS itself would mean something to the server.
    for (const value of values) h.append(name.startsWith("Nats-") ? `Nimble-Dead-Original-${name}` : name, value);
  }
  // Another id than the event's, since each consumer may bury it; the same one when this is done twice.
  h.set("Nats-Msg-Id", `${durable}:${message.headers?.get("Nats-Msg-Id") ?? message.seq}`);
  h.set("Nimble-Dead-Consumer", durable);
  h.set("Nimble-Dead-Reason", "exhausted");
  h.set("Nimble-Dead-Error", reason.replace(/[\r\n]+/g, " ").slice(0, 500));
  h.set("Nimble-Dead-Tries", String(message.info.deliveryCount));
  h.set("Nimble-Dead-Stream", message.info.stream);
  h.set("Nimble-Dead-Sequence", String(message.seq));
  h.set("Nimble-Dead-Subject", message.subject);
  // <prefix>.<account>.contact.<verb>.<contact id>
  const [account, , , contact] = message.subject.split(".").slice(-4);
  await js.publish(`nimble-dead.${durable}.letter.${account}.${contact}`, message.data, { headers: h });
}
