"""A durable consumer of nimble-bridge's contact events.

consume() calls a handler with each event, one at a time and in order. An event counts as done when the handler has returned; one that fails comes again after
a pause, and when it has failed too often it goes to a stream of dead letters, so that the others go on. A new consumer can begin with the latest event of each
contact out of the key-value bucket instead of the whole history.

As a program it prints who changed and what:

    python3 consumer.py [--bootstrap] [--durable NAME] [--state FILE] [--events N] [SUBJECT ...]
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys

import nats
import nats.errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, DiscardPolicy
from nats.js.errors import NotFoundError

DEAD_LETTERS = "nimble-dead"


def log(line):
    print(line, file=sys.stderr, flush=True)


async def consume(
    nc,
    handler,
    *,
    durable,
    state,
    stop,
    subjects=("nimble.*.contact.>",),
    stream="NIMBLE",
    bucket="nimble-contacts",
    bootstrap=False,
    max_tries=5,
    retry_seconds=1.0,
    ack_wait=30.0,
):
    """Handles events until stop is set. durable is the name under which NATS remembers how far this consumer has come; state is an SQLite connection.

    ack_wait is how many seconds NATS waits for a sign of life before it gives an event out again: the time that a crash costs.

    handler is a coroutine function. It may be called again with an event that it has seen, if what it did is not in the same database.
    """
    js = nc.jetstream()
    state.execute("CREATE TABLE IF NOT EXISTS seen (contact TEXT PRIMARY KEY, revision INTEGER NOT NULL)")
    await create_dead_letters(js)

    if not await exists(js, stream, durable):
        begin = {"deliver_policy": DeliverPolicy.ALL}
        if bootstrap:
            newest = await read_bucket(js, bucket, lambda event: once(state, event, handler), stop)
            if stop.is_set():
                return  # The next start reads the bucket again, and passes over what is done.
            reach = (await js.stream_info(stream)).state
            if reach.first_seq > newest + 1:
                raise RuntimeError("the stream dropped events while the bucket was read; start again")
            if reach.last_seq >= newest:  # Else it has lost its end in a power failure, and sequences come again: all of it, then.
                begin = {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": newest + 1}
        await js.add_consumer(
            stream,
            ConsumerConfig(
                durable_name=durable,
                filter_subjects=list(subjects),
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ack_wait,
                # One at a time: an event that waits for its next try holds back those after it, so that a contact's events stay in order.
                max_ack_pending=1,
                max_deliver=-1,
                **begin,
            ),
        )

    subscription = await js.pull_subscribe_bind(durable, stream=stream)
    while not stop.is_set():
        try:
            [message] = await subscription.fetch(1, timeout=1)
        except nats.errors.TimeoutError:
            continue
        tries, sequence = message.metadata.num_delivered, message.metadata.sequence.stream
        alive = asyncio.create_task(keep_alive(message, ack_wait / 3))
        try:
            # A message that ended the process as often as this is not tried again.
            if tries > max_tries:
                raise RuntimeError(f"was delivered {tries} times and never done")
            await once(state, json.loads(message.data), handler)
        except Exception as err:  # Whatever the handler raises is a reason to try again.
            if tries < max_tries:
                log(f"event {sequence}, try {tries} of {max_tries}: {err}")
                await message.nak(delay=retry_seconds * 2 ** (tries - 1))
                continue
            await bury(js, durable, message, str(err))
            log(f"event {sequence} is given up: {err}")
        finally:
            alive.cancel()
        try:
            await message.ack_sync()
        except nats.errors.TimeoutError:
            log(f"event {sequence}: the acknowledgement is not confirmed, it may come again")


async def once(state, event, handler):
    """Calls the handler unless this event, or a later one of the contact, has been handled before.

    What the handler writes to the same database and the revision are stored together or not at all.
    """
    data = event["data"]
    contact = f"{data['account']}.{event['subject']}"
    row = state.execute("SELECT revision FROM seen WHERE contact = ?", (contact,)).fetchone()
    if row and row[0] >= data["revision"]:
        log(f"revision {data['revision']} of contact {event['subject']} is done already")
        return
    with state:
        await handler(event)
        state.execute(
            "INSERT INTO seen VALUES (?, ?) ON CONFLICT (contact) DO UPDATE SET revision = excluded.revision",
            (contact, data["revision"]),
        )


async def read_bucket(js, bucket, handler, stop):
    """Handles the latest event of each contact, and returns the sequence of the event stream that the rest begins behind.

    NATS fills the bucket from the stream in order, and each of its messages says where in the stream it comes from. All events up to the newest one that was
    read are covered: by themselves, or by a later event of the same contact, which is either in the bucket as well or still to come from the stream.
    """
    stream, newest, expected = f"KV_{bucket}", 0, 1
    info = await js.add_consumer(
        stream, ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL, inactive_threshold=60, mem_storage=True)
    )
    subscription = await js.pull_subscribe_bind(info.name, stream=stream)
    pending = info.num_pending
    while pending > 0 and not stop.is_set():
        for message in await subscription.fetch(min(pending, 100), timeout=10):
            if message.metadata.sequence.consumer != expected:
                raise RuntimeError("a message of the bucket was lost on the way; start again")
            expected += 1
            # Nats-Stream-Source is "<stream> <sequence> <filter> <destination> <subject>".
            newest = max(newest, int(message.headers["Nats-Stream-Source"].split(" ")[1]))
            await handler(json.loads(message.data))
            pending = message.metadata.num_pending
    return newest


async def keep_alive(message, seconds):
    while True:
        await asyncio.sleep(seconds)
        await message.in_progress()


async def exists(js, stream, durable):
    try:
        await js.consumer_info(stream, durable)
        return True
    except NotFoundError:
        await js.stream_info(stream)  # It is the consumer that is not there, or this fails as well.
        return False


async def create_dead_letters(js):
    """The stream of dead letters has a subject for each consumer. It is no part of the event stream."""
    try:
        await js.stream_info(DEAD_LETTERS)
    except NotFoundError:
        await js.add_stream(name=DEAD_LETTERS, subjects=[f"{DEAD_LETTERS}.>"], discard=DiscardPolicy.NEW)


async def bury(js, durable, message, reason):
    """Stores a message among the dead letters, as it is, in the form that the Go package publisher/consumer gives them."""
    # Headers of NATS itself would mean something to the server.
    own = {f"Nimble-Dead-Original-{name}" if name.startswith("Nats-") else name: value for name, value in (message.headers or {}).items()}
    sequence = str(message.metadata.sequence.stream)
    # <prefix>.<account>.contact.<verb>.<contact id>
    account, _, _, contact = message.subject.split(".")[-4:]
    await js.publish(
        f"{DEAD_LETTERS}.{durable}.letter.{account}.{contact}",
        message.data,
        headers={
            **own,
            # Another id than the event's, since each consumer may bury it; the same one when this is done twice.
            "Nats-Msg-Id": f"{durable}:{own.get('Nimble-Dead-Original-Nats-Msg-Id', sequence)}",
            "Nimble-Dead-Consumer": durable,
            "Nimble-Dead-Reason": "exhausted",
            "Nimble-Dead-Error": " ".join(reason.split())[:500],
            "Nimble-Dead-Tries": str(message.metadata.num_delivered),
            "Nimble-Dead-Stream": message.metadata.stream,
            "Nimble-Dead-Sequence": sequence,
            "Nimble-Dead-Subject": message.subject,
        },
    )


def words(side):
    """The texts of one side of a change: of a field's values, of tags, or of anything else as JSON."""
    if side is None:
        return "(none)"
    if not isinstance(side, list):
        return json.dumps(side, ensure_ascii=False)
    texts = [str(v.get("value") or v.get("tag") or json.dumps(v)) if isinstance(v, dict) else str(v) for v in side]
    return ", ".join(texts) or "(none)"


def lines(event):
    data = event["data"]
    verb = event["type"].rsplit(".", 1)[1]
    notes = [data.get("reason"), data.get("restored") and "restored", data.get("erased") and "erased"]
    yield "  ".join([verb.ljust(8), data["summary"]["name"] or event["subject"], f"#{data['revision']}", *filter(None, notes)])
    for key, change in data.get("changes", {}).items():
        yield f"          {key}: {words(change['before'])} → {words(change['after'])}"


async def main():
    parser = argparse.ArgumentParser(description="Print who changed and what.")
    parser.add_argument("subjects", nargs="*", default=["nimble.*.contact.>"])
    parser.add_argument("--bootstrap", action="store_true")
    parser.add_argument("--durable", default="example-python")
    parser.add_argument("--state", help="SQLite file with what has been handled; by default named after the durable")
    parser.add_argument("--events", type=int, default=0)
    args = parser.parse_args()

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    left = args.events

    async def show(event):
        nonlocal left
        for line in lines(event):
            print(line, flush=True)
        left -= 1
        if left == 0:
            stop.set()

    options = {"servers": os.environ.get("NATS_URL", "nats://127.0.0.1:4222").split(","), "name": args.durable, "max_reconnect_attempts": -1}
    if os.environ.get("NATS_CREDS"):
        options["user_credentials"] = os.environ["NATS_CREDS"]
    nc = await nats.connect(**options)
    with contextlib.closing(sqlite3.connect(args.state or f"{args.durable}.sqlite3")) as state:
        await consume(nc, show, durable=args.durable, state=state, stop=stop, subjects=args.subjects, bootstrap=args.bootstrap)
    await nc.drain()


if __name__ == "__main__":
    asyncio.run(main())
