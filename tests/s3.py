"""A real S3 server for tests: moto's, in a process of its own, with buckets that last one test."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.waiting import await_that

KEY_ID, SECRET = "pillops-test-key", "pillops-test-secret-key"


@dataclass(frozen=True)
class S3:
    """A server, and the log in which it tells each request."""

    address: str
    log: Path

    @property
    def port(self) -> int:
        """Its port on the loopback interface."""
        return int(self.address.rpartition(":")[2])

    @property
    def environment(self) -> dict[str, str]:
        """What a client must know, and no profile of whoever runs the tests."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """A client that shares nothing with ours."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.address,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def make_bucket(self) -> str:
        """Make a bucket that no other test has, and return its name."""
        name = f"desk-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name

    def objects(self, bucket: str) -> dict[str, int]:
        """The objects of a bucket and their sizes, as the server has them."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {one["Key"]: one["Size"] for page in pages for one in page.get("Contents", [])}

    def read(self, bucket: str, name: str) -> bytes:
        """The bytes of an object."""
        return bytes(self.client().get_object(Bucket=bucket, Key=name)["Body"].read())

    def requests(self, bucket: str) -> list[str]:
        """Each request about a bucket since the server began, as `GET /bucket/name?...`."""
        lines = re.findall(r'"([A-Z]+ /\S+) HTTP', self.log.read_text())
        return [line for line in lines if line.split(" ")[1].startswith(f"/{bucket}")]

    @contextmanager
    def checking_keys(self) -> Iterator[None]:
        """From now on only keys that it gave out itself are let in, which are none."""
        self._check_after("0")
        try:
            yield
        finally:
            self._check_after("inf")

    def _check_after(self, count: str) -> None:
        address = f"{self.address}/moto-api/reset-auth"
        plain = {"Content-Type": "text/plain"}
        request = urllib.request.Request(address, data=count.encode(), headers=plain)
        with urllib.request.urlopen(request, timeout=30):
            pass


@contextmanager
def start_s3(folder: Path) -> Iterator[S3]:
    """Run a server on a port of its own choice; its log lies in `folder`."""
    log = folder / "moto.log"
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        server = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:

        def address() -> str:
            assert server.poll() is None, log.read_text()
            found = re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text())
            return found[1] if found else ""

        await_that(address, "the start of the S3 server")
        yield S3(address(), log)
    finally:
        server.terminate()
        server.wait()
