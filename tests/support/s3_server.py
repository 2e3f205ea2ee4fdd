"""A real object store on loopback: moto's S3 server in a process of its own, and what it was asked for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.support.cli import free_port, points_in
from tests.support.tracking_server import wait_until_up

BUCKET = "lab"
KEY, SECRET = "the-key-of-tests", "the-secret-that-nobody-may-see"
ASKED = re.compile(r'"(?:\x1b\[\d+m)*(GET|HEAD|PUT|POST|DELETE) (/\S*)')


@dataclass(frozen=True)
class ObjectStore:
    """A running store with one bucket."""

    endpoint: str
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a user of it sets."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str = "s3") -> Any:
        return _client(self.endpoint, service)

    def objects(self, prefix: str = "") -> dict[str, int]:
        """Key -> bytes of everything below a prefix."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {one["Key"]: one["Size"] for page in pages for one in page.get("Contents", [])}

    def content(self, key: str) -> bytes:
        return bytes(self.client().get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def curves(self, prefix: str) -> dict[str, set[tuple[str, int, float]]]:
        """Those of a sweep's trials, as tests.support.cli.curves has them."""
        files = [key for key in self.objects(f"{prefix}/trials/") if key.endswith("/metrics.jsonl") and "/.aside/" not in key]
        return {key.split("/")[-2]: points_in(self.content(key).decode()) for key in files}

    def finished(self, prefix: str) -> dict[str, bytes]:
        """Key -> content of the results that are there."""
        return {key: self.content(key) for key in self.objects(f"{prefix}/trials/") if key.endswith("/result.json")}

    def requests(self, since: int = 0) -> list[tuple[str, str]]:
        """Method and path of every request, from a byte of the log on; a listing counts as LIST."""
        asked = ASKED.findall(self.log.read_bytes()[since:].decode(errors="replace"))
        return [("LIST" if "list-type=" in path else method, path) for method, path in asked]

    @property
    def now(self) -> int:
        """Where the log ends."""
        return self.log.stat().st_size

    @contextmanager
    def checking_keys(self) -> Iterator[dict[str, str]]:
        """Keys are checked meanwhile, which moto does not do otherwise; the environment of a user who may do nothing."""
        user = self.client("iam")
        user.create_user(UserName="nobody")
        key = user.create_access_key(UserName="nobody")["AccessKey"]
        self._check_keys_after("0")
        try:
            yield {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        finally:
            self._check_keys_after("inf")
            user.delete_access_key(UserName="nobody", AccessKeyId=key["AccessKeyId"])
            user.delete_user(UserName="nobody")

    def _check_keys_after(self, requests: str) -> None:
        address = f"{self.endpoint}/moto-api/reset-auth"
        request = Request(address, data=requests.encode(), headers={"Content-Type": "text/plain"}, method="POST")
        assert json.loads(urlopen(request, timeout=10).read())["status"] == "ok"


@cache
def _client(endpoint: str, service: str) -> Any:
    import boto3

    keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
    return boto3.client(service, endpoint_url=endpoint, region_name="us-east-1", **keys)


@contextmanager
def s3_server(folder: Path) -> Iterator[ObjectStore]:
    """A store for as long as the block lasts; what it holds is in its memory."""
    port, log = free_port(), folder / "objects.log"
    with open(log, "wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=output,
            stderr=output,
            env=os.environ | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET},
        )
    try:
        store = ObjectStore(f"http://127.0.0.1:{port}", log)
        wait_until_up(f"{store.endpoint}/moto-api/")
        store.client().create_bucket(Bucket=BUCKET)
        yield store
    finally:
        server.kill()
        server.wait()
