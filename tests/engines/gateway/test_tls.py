"""Certificates: what clients of a server with these credentials see, renewals, and files that are wrong."""

from __future__ import annotations

import asyncio

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from alula.errors import UsageError
from alula.gateway.config import Options, TlsFiles
from alula.gateway.ops.tls import channel_credentials, server_credentials


@pytest.fixture
def authority():
    return trustme.CA()


def write(folder, authority, *, client_ca=None) -> TlsFiles:
    """A new certificate for localhost in ``server.pem`` and ``server.key``."""
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "server.key"))
    if client_ca:
        client_ca.cert_pem.write_to_path(str(folder / "clients.pem"))
    return TlsFiles(folder / "server.pem", folder / "server.key", folder / "clients.pem" if client_ca else None)


async def reach(port: int, trusted: trustme.CA, client: trustme.LeafCert | None = None) -> str:
    """What a call ends with for a client that trusts an authority, in a connection of its own."""
    own = (client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes()) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(trusted.cert_pem.bytes(), *own)
    settings = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials, settings) as channel:
        try:
            await channel.unary_unary("/no/method")(b"", timeout=5)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


def serve(files: TlsFiles, work) -> None:
    """Run ``work(port)`` beside a server that has no methods: UNIMPLEMENTED means that TLS was well."""

    async def run() -> None:
        server = grpc.aio.server()
        port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
        await server.start()
        try:
            await work(port)
        finally:
            await server.stop(None)

    asyncio.run(run())


def test_clients_that_trust_the_authority(tmp_path, authority):
    async def work(port):
        assert await reach(port, authority) == "UNIMPLEMENTED"
        assert await reach(port, trustme.CA()) == "UNAVAILABLE"

    serve(write(tmp_path, authority), work)


def test_clients_need_certificates_of_the_client_authority(tmp_path, authority):
    clients = trustme.CA()

    async def work(port):
        assert await reach(port, authority, clients.issue_cert("me")) == "UNIMPLEMENTED"
        assert await reach(port, authority, trustme.CA().issue_cert("me")) == "UNAVAILABLE"
        assert await reach(port, authority) == "UNAVAILABLE"

    serve(write(tmp_path, authority, client_ca=clients), work)


def test_a_renewed_certificate_is_used_and_half_of_one_is_not(tmp_path, authority):
    files, new = write(tmp_path, authority), trustme.CA()

    async def work(port):
        assert await reach(port, authority) == "UNIMPLEMENTED"
        key = files.key.read_bytes()
        write(tmp_path, new)
        renewed = files.key.read_bytes()
        files.key.write_bytes(key)  # the new certificate has come, its key has not
        assert await reach(port, authority) == "UNIMPLEMENTED"
        files.certificate.rename(tmp_path / "gone")  # nor is a moment without any file the end
        assert await reach(port, authority) == "UNIMPLEMENTED"
        (tmp_path / "gone").rename(files.certificate)
        files.key.write_bytes(renewed)
        assert await reach(port, new) == "UNIMPLEMENTED"
        assert await reach(port, authority) == "UNAVAILABLE"

    serve(files, work)


def test_files_that_are_wrong(tmp_path, authority):
    files = write(tmp_path, authority)
    nothing = tmp_path / "nothing.pem"
    for wrong, words in (
        (TlsFiles(nothing, files.key), f"{nothing}, the gateway's certificate, cannot be read"),
        (TlsFiles(files.certificate, tmp_path), "its private key, cannot be read"),
        (TlsFiles(files.certificate, files.key, nothing), "the authority of client certificates, cannot be read"),
        (TlsFiles(files.key, files.certificate), "are not a certificate and its private key"),
        (TlsFiles(files.certificate, files.key, files.key), "contains no certificate"),
    ):
        with pytest.raises(UsageError, match=words):
            server_credentials(wrong)
    authority.issue_cert("localhost").private_key_pem.write_to_path(str(files.key))
    with pytest.raises(UsageError, match="are not a certificate and its private key"):
        server_credentials(files)
    with pytest.raises(UsageError, match="the authority of Milvus's certificate, cannot be read"):
        channel_credentials(Options("https://milvus", ca_file=nothing))
    with pytest.raises(UsageError, match="contains no certificate"):
        channel_credentials(Options("https://milvus", ca_file=files.key))


def test_a_key_with_a_password_is_refused_and_not_asked_for(tmp_path, authority):
    files = write(tmp_path, authority)
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    sealed = serialization.BestAvailableEncryption(b"secret")
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed
    files.key.write_bytes(key.private_bytes(*pem))
    with pytest.raises(UsageError, match="without a password"):
        server_credentials(files)


def test_an_upstream_without_tls_has_no_credentials():
    assert channel_credentials(Options("http://milvus")) is None
    assert channel_credentials(Options("https://milvus")) is not None
