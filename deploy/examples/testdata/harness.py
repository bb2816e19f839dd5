"""Handles events as the environment says: python3 harness.py STATE-FILE DURABLE"""

import asyncio
import contextlib
import os
import pathlib
import signal
import sqlite3
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "python"))

import nats  # noqa: E402
from consumer import consume  # noqa: E402

STATE, DURABLE = sys.argv[1:3]
ENV = {name: os.environ.get(name, "") for name in ("FAIL", "FAIL_TWICE", "DIE_ONCE", "DIED", "EVENTS", "BOOTSTRAP")}


async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    done = failed = 0

    async def handle(event):
        nonlocal done, failed
        name, revision = event["data"]["summary"]["name"], event["data"]["revision"]
        what = f"{name} {event['subject']} {revision}" if ENV["BOOTSTRAP"] else f"{name} {revision}"
        if name == ENV["FAIL"] or name == ENV["FAIL_TWICE"] and revision == 1 and failed < 2:
            failed += name == ENV["FAIL_TWICE"]
            print(f"fails {what}", flush=True)
            raise RuntimeError("as told")
        if name == ENV["DIE_ONCE"] and not pathlib.Path(ENV["DIED"]).exists():
            pathlib.Path(ENV["DIED"]).touch()
            print(f"dies {what}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        print(what, flush=True)
        done += 1
        if done >= int(ENV["EVENTS"]) or not ENV["BOOTSTRAP"] and what == "B 2":
            stop.set()

    nc = await nats.connect(os.environ["NATS_URL"])
    with contextlib.closing(sqlite3.connect(f"{STATE}-{DURABLE}")) as state:
        await consume(
            nc, handle, durable=DURABLE, state=state, stop=stop, bootstrap=bool(ENV["BOOTSTRAP"]), max_tries=3, retry_seconds=0.01, ack_wait=1.0
        )
    await nc.drain()


asyncio.run(main())
