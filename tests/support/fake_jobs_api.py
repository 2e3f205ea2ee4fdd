"""A Jobs API without a cluster: it takes packages and runs their commands on this machine, one process a job.

Of Ray's dashboard it answers what `orchestrator/jobs/client.py` asks. A test can let it fall silent, refuse, or hold jobs back.
"""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from aiohttp import web


@dataclass
class Sent:
    """A job that was sent, with the process that runs it; without one it never begins."""

    details: dict[str, Any]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    stopped: bool = False


@dataclass
class JobsApi:
    """What the API knows, and how it misbehaves.

    Attributes:
        holds: jobs stay PENDING.
        refusals: so many questions about one job are answered with 500.
        silent: the connection of a log stays open and says nothing.
        drops_after_s: the connection of a log breaks so long after all that there is was said.
    """

    folder: Path
    address: str = ""
    jobs: dict[str, Sent] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    packages: dict[str, bytes] = field(default_factory=dict)
    holds: bool = False
    refusals: int = 0
    silent: bool = False
    drops_after_s: float | None = None

    def put(self, id_: str, log: str, state: str = "RUNNING", entrypoint: str = "x", **metadata: str) -> Sent:
        """A job that is there without having been sent; its log begins as Ray's do."""
        file = self.folder / f"{id_}.log"
        file.write_text(f"Running entrypoint for job {id_}: {entrypoint}\n{log}")
        self.jobs[id_] = Sent({"submission_id": id_, "entrypoint": entrypoint, "status": state, "metadata": metadata}, file)
        return self.jobs[id_]

    def facts(self, job: Sent) -> dict[str, Any]:
        code = job.process.poll() if job.process else None
        if job.stopped:
            job.details["status"] = "STOPPED"
        elif code is not None:
            job.details |= {"status": "FAILED" if code else "SUCCEEDED", "driver_exit_code": code}
        return {"type": "SUBMISSION", "start_time": 1000} | job.details

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": ray.__version__, "ray_commit": "", "session_name": ""})

    async def package(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if request.method == "PUT":
            self.packages[name] = await request.read()
        return web.Response(status=200 if name in self.packages else 404)

    async def submit(self, request: web.Request) -> web.Response:
        asked = await request.json()
        id_, environment = asked["submission_id"], asked["runtime_env"]
        there = self.folder / id_
        zipfile.ZipFile(io.BytesIO(self.packages[environment["working_dir"].rpartition("/")[2]])).extractall(there)
        job = self.put(id_, "", "PENDING", asked["entrypoint"], **asked["metadata"])
        if not self.holds:
            job.details["status"] = "RUNNING"
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            variables = os.environ | environment["env_vars"] | {"PATH": path}
            with job.log.open("ab") as log:
                job.process = subprocess.Popen(
                    asked["entrypoint"], shell=True, cwd=there, env=variables, stdout=log, stderr=log
                )
        return web.json_response({"job_id": id_, "submission_id": id_})

    async def all(self, _: web.Request) -> web.Response:
        return web.json_response([self.facts(job) for job in self.jobs.values()])

    async def one(self, request: web.Request) -> web.Response:
        if self.refusals:
            self.refusals -= 1
            return web.Response(status=500, text="a blip")
        job = self.jobs.get(request.match_info["id"])
        return web.json_response(self.facts(job)) if job else web.Response(status=404, text="no such job")

    async def stop(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["id"]]
        job.stopped = True
        if job.process and job.process.poll() is None:
            job.process.terminate()
        return web.json_response({"stopped": True})

    async def delete(self, request: web.Request) -> web.Response:
        self.removed.append(request.match_info["id"])
        del self.jobs[self.removed[-1]]
        return web.json_response({"deleted": True})

    async def log(self, request: web.Request) -> web.Response:
        return web.json_response({"logs": self.jobs[request.match_info["id"]].log.read_text()})

    async def tail(self, request: web.Request) -> web.WebSocketResponse:
        job = self.jobs[request.match_info["id"]]
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if self.silent:
            await asyncio.sleep(60)
        await socket.send_str(job.log.read_text())
        if self.drops_after_s is not None:
            await asyncio.sleep(self.drops_after_s)
            assert request.transport is not None
            request.transport.abort()
        return socket

    def application(self) -> web.Application:
        application = web.Application(client_max_size=64 << 20)
        application.add_routes(
            [
                web.get("/api/version", self.version),
                web.get("/api/packages/gcs/{name}", self.package),
                web.put("/api/packages/gcs/{name}", self.package),
                web.get("/api/jobs/", self.all),
                web.post("/api/jobs/", self.submit),
                web.get("/api/jobs/{id}", self.one),
                web.delete("/api/jobs/{id}", self.delete),
                web.post("/api/jobs/{id}/stop", self.stop),
                web.get("/api/jobs/{id}/logs", self.log),
                web.get("/api/jobs/{id}/logs/tail", self.tail),
            ]
        )
        return application


@contextmanager
def serving(folder: Path) -> Iterator[JobsApi]:
    """The API on a port of loopback, in a thread of its own; processes that it began are ended with it."""
    api = JobsApi(folder)
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(api.application(), shutdown_timeout=0.1)

    async def end() -> None:
        await runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def begin() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        api.address = f"http://127.0.0.1:{runner.addresses[0][1]}"

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(begin(), loop).result(30)
    try:
        yield api
    finally:
        for job in api.jobs.values():
            if job.process and job.process.poll() is None:
                job.process.kill()
                job.process.wait()
        asyncio.run_coroutine_threadsafe(end(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def wait_until(condition: Callable[[], bool], patience_s: float = 60) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
