"""A store like S3 on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """The address of a store that speaks S3's protocol."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a bucket, which the environment says how to reach."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # with another environment
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket="rows")
    yield "s3://rows"
    s3fs.S3FileSystem.clear_instance_cache()
