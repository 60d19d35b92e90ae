"""Load test of the demo with many visitors at once.

    python -m benchmarks.demo_load --clients 50 --seconds 60

Serves the page on loopback in a separate process. Every client repeatedly uploads scikit-image's
astronaut, requests the analysis and checks that the answer is "happy". Prints answers, errors,
waiting times, and the server's resident memory before and during the load.
"""

import argparse
import asyncio
import collections
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import skimage

MODEL = "deep_emotion.fer2013"


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


async def answer(client: httpx.AsyncClient, url: str, picture: bytes) -> str:
    """Uploads a picture and returns the page's answer."""
    files = {"files": ("picture.png", picture)}
    upload = await client.post(f"{url}/gradio_api/upload", files=files)
    given = {"path": upload.raise_for_status().json()[0], "meta": {"_type": "gradio.FileData"}}
    call = f"{url}/gradio_api/call/analyse"
    event = await client.post(call, json={"data": [given, MODEL]})
    stream = await client.get(f"{call}/{event.raise_for_status().json()['event_id']}")
    last = stream.text.strip().rsplit("event: ", 1)[-1]
    if not last.startswith("complete"):
        raise ValueError(last[:200])
    return json.loads(last.split("data: ", 1)[1])[2]["label"]


async def load(url: str, pid: int, clients: int, seconds: float) -> None:
    """Runs the clients and prints the results."""
    picture = (Path(skimage.data_dir) / "astronaut.png").read_bytes()
    waits: list[float] = []
    errors: collections.Counter[str] = collections.Counter()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=300, limits=limits, trust_env=False) as client:
        await answer(client, url, picture)  # compiles
        before = resident_mb(pid)
        memory = [before]
        end = time.monotonic() + seconds

        async def visitor() -> None:
            while time.monotonic() < end:
                start = time.monotonic()
                try:
                    label = await answer(client, url, picture)
                    if label != "happy":
                        raise ValueError(f"answered {label}")
                    waits.append(time.monotonic() - start)
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    errors[repr(error)[:200]] += 1

        async def watch() -> None:
            while True:
                memory.append(resident_mb(pid))
                await asyncio.sleep(1)

        watcher = asyncio.create_task(watch())
        await asyncio.gather(*(visitor() for _ in range(clients)))
        watcher.cancel()
    print(f"{clients} clients, {seconds:.0f} s: {len(waits)} answers, {errors.total()} errors")
    if waits:
        median, late = statistics.median(waits), np.percentile(waits, 95)
        print(f"seconds per answer: median {median:.1f}, p95 {late:.1f}, maximum {max(waits):.1f}")
    parts = [max(part) for part in np.array_split(memory, min(10, len(memory)))]
    print(f"server memory in MB: {before:.0f} before, then at most in each tenth of the time:")
    print(" ".join(f"{most:.0f}" for most in parts))
    print("load average of the machine:", *(f"{value:.1f}" for value in os.getloadavg()))
    for error, count in errors.most_common():
        print(f"{count} x {error}")


def main() -> None:
    """Starts the server, runs the clients and stops the server."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "deep_emotion_jax", "demo", f"--port={port}"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        print(server.stdout.readline().strip())
        url = f"http://127.0.0.1:{port}"
        asyncio.run(load(url, server.pid, options.clients, options.seconds))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


if __name__ == "__main__":
    main()
