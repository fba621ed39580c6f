"""A gateway in operation: logins, deadlines, limits, what is counted, how it ends, and what it does without Milvus."""

from __future__ import annotations

import base64
import logging
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import trustme
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException
from pymilvus.grpc_gen import common_pb2, milvus_pb2

import alula
from alula.encoder_store import push, remove
from alula.gateway.config import TlsFiles
from alula.milvus.privileges import ROLES
from tests.engines.gateway.running import LOOPBACK, RunningGateway, stub, values
from tests.engines.gateway.test_abuse import fill
from tests.tiny_encoders import random_vectors, write_drq
from tests.waiting import wait_until

FOREVER = 3600.0  # seconds: longer than pytest lets a test run

SERVICE = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].full_name
EVERYTHING = milvus_pb2.ShowCollectionsRequest()


@pytest.fixture(scope="module")
def gateway(milvus_server):
    with RunningGateway(milvus_server.uri) as gateway:
        yield gateway


def failed(call) -> tuple[str, str]:
    """The gRPC code and the details that a call ends with."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code().name, error.value.details()


def small_collection(client: MilvusClient, name: str, rows: int, dim: int) -> None:
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dim)
    index = client.prepare_index_params()
    index.add_index("embedding", index_type="FLAT", metric_type="L2")
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
    vectors = random_vectors(rows, dim)
    client.insert(name, [{"id": i, "embedding": vectors[i]} for i in range(rows)])


class TestMetrics:
    def test_calls_are_counted_by_how_they_end(self, gateway, dead_port):
        before = values(gateway)

        def more(*sample):
            return values(gateway).get(sample, 0) - before.get(sample, 0)

        with gateway.channel() as channel:
            stub(channel).ShowCollections(EVERYTHING)
            stub(channel).DescribeCollection(milvus_pb2.DescribeCollectionRequest(collection_name="no_such"))
            made_up = channel.unary_unary("/milvus.proto.milvus.MilvusService/MadeUp")
            assert failed(lambda: made_up(b"")) == ("UNIMPLEMENTED", f"unknown method MadeUp for service {SERVICE}")
        assert more("alula_gateway_requests_total", "ShowCollections", "ok") == 1
        assert more("alula_gateway_request_seconds_count", "ShowCollections", "passed") == 1
        assert more("alula_gateway_requests_total", "DescribeCollection", "refused") == 1
        assert more("alula_gateway_requests_total", "other", "refused") == 1
        assert more("alula_gateway_upstream_errors_total", "UNIMPLEMENTED", "other") == 1
        with RunningGateway(f"http://{LOOPBACK}:{dead_port}") as alone, alone.channel() as channel:
            failed(lambda: stub(channel).ShowCollections(EVERYTHING))
        assert more("alula_gateway_requests_total", "ShowCollections", "failed") == 1
        assert more("alula_gateway_upstream_errors_total", "UNAVAILABLE", "ShowCollections") == 1

    def test_what_encoders_and_workers_do_is_counted(self, gateway, milvus_server, collection_name, tmp_path):
        encoder = write_drq(tmp_path / "drq.onnx")
        with alula.connect(milvus_server.uri) as server:
            push(server, encoder.path, name=collection_name)
        client = MilvusClient(gateway.uri)
        schema = client.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=8)
        client.create_collection(collection_name, schema=schema, consistency_level="Strong")
        index = client.prepare_index_params()
        index.add_index("embedding", index_type="DRQ", params={"encoder": collection_name})
        client.create_index(collection_name, index)
        client.load_collection(collection_name)
        before, vectors = values(gateway), random_vectors(20, 8)
        client.insert(collection_name, [{"id": i, "embedding": vectors[i]} for i in range(20)])
        client.search(collection_name, list(vectors[:3]), limit=2)
        after = values(gateway)
        client.drop_collection(collection_name)
        client.close()
        for sample in (
            ("alula_gateway_encode_seconds_count", "rows"),
            ("alula_gateway_encode_seconds_count", "queries"),
            ("alula_gateway_request_seconds_count", "Insert", "rewritten"),
            ("alula_gateway_request_seconds_count", "Search", "rewritten"),
            ("alula_gateway_requests_total", "Insert", "ok"),
        ):
            assert after[sample] - before.get(sample, 0) == 1, sample
        assert after["alula_gateway_encoders_loaded",] == 1

    def test_the_processs_own_are_there(self, gateway):
        assert values(gateway)["process_resident_memory_bytes",] > 10e6


class TestLog:
    def test_no_filter_or_value_is_logged_by_default(self, gateway, collection_name, tmp_path, caplog):
        """Neither what clients send nor what Milvus and the gateway answer to it."""
        with alula.connect(gateway.uri) as server:
            fill(server, collection_name, tmp_path)
        client = MilvusClient(gateway.uri)
        row, vector = {"id": 77123, "embedding": [float("nan")] * 8}, [0.25] * 8
        calls = {
            "Query": lambda: client.query(collection_name, filter="secret_word =="),
            "Search": lambda: client.search(collection_name, [vector], filter="secret_word > 77123"),
            "Search by a short vector": lambda: client.search(collection_name, [[77123.0] * 7]),
            "Insert": lambda: client.insert(collection_name, [row]),
            "Delete": lambda: client.delete(collection_name, filter="secret_word in [77123"),
        }
        with caplog.at_level(logging.INFO, "alula.gateway"):
            for call in calls.values():
                with pytest.raises(MilvusException):
                    call()
        lines = [str(vars(record)) for record in caplog.records if record.name == "alula.gateway"]
        assert sum("was refused" in line for line in lines) >= len(calls)
        assert not [line for line in lines if "secret" in line or "77123" in line]
        with caplog.at_level(logging.DEBUG, "alula.gateway"), pytest.raises(MilvusException):
            calls["Query"]()
        assert "secret_word ==" in caplog.text
        client.drop_collection(collection_name)
        client.close()


class TestLogins:
    def test_user_and_password_go_on_to_milvus(self, milvus_server_with_auth):
        server = milvus_server_with_auth
        through = {"ca_file": server.ca_file, "server_name": "localhost"}
        with RunningGateway(server.uri, **through) as gateway:
            assert gateway.gateway.health.ready, "a refusal is an answer"
            client = MilvusClient(gateway.uri, user=server.user, password=server.password)
            assert "root" in client.list_users()
            client.close()
            with server_channel(server) as straight, gateway.channel() as channel:
                for login in ("root:wrong", "nobody:Milvus", "", None):
                    metadata = () if login is None else (("authorization", base64.b64encode(login.encode()).decode()),)
                    for method in ("ShowCollections", "DescribeCollection"):
                        request = getattr(milvus_pb2, f"{method}Request")()
                        ends = [
                            failed(lambda s=s: getattr(stub(s), method)(request, metadata=metadata))  # noqa: B023
                            for s in (straight, channel)
                        ]
                        assert ends[0] == ends[1]
                        assert ends[0][0] == "UNAUTHENTICATED"

    def test_a_login_that_may_not_read_encoders(self, milvus_server_with_auth, collection_name, tmp_path):
        server = milvus_server_with_auth
        encoder = write_drq(tmp_path / "denied.onnx", input_dim=8).path
        login = {"user": server.user, "password": server.password}
        with alula.connect(server.uri, **login, ca_file=str(server.ca_file)) as root:
            push(root, encoder, name=collection_name)
            collection = alula.Collection.create(root, collection_name, encoder=encoder, index_type="DRQ")
            collection.insert(random_vectors(20), {"id": range(20)})
            root.client.create_user(collection_name[:30], "Secret-1")
            root.client.create_role(collection_name)
            root.client.grant_role(collection_name[:30], collection_name)
            for privilege in ROLES["reader"].privileges["Collection"]:
                root.client.grant_privilege(collection_name, "Collection", privilege, collection_name)
            through = {"ca_file": server.ca_file, "server_name": "localhost"}
            with RunningGateway(server.uri, **through) as gateway:
                client = MilvusClient(gateway.uri, user=collection_name[:30], password="Secret-1")
                for _ in range(2):
                    with pytest.raises(
                        MilvusException, match="may not query the collection '_alula_encoders'"
                    ) as refused:
                        client.search(collection_name, data=random_vectors(1).tolist(), limit=2)
                    assert refused.value.code == 1100
                client.close()
                allowed = MilvusClient(gateway.uri, **login)
                assert len(allowed.search(collection_name, data=random_vectors(1).tolist(), limit=2)[0]) == 2
                allowed.close()
            collection.drop()
            remove(root, collection_name)

    def test_tls_on_both_sides_and_clients_with_certificates(self, milvus_server_with_auth, tmp_path):
        server, own, clients = milvus_server_with_auth, trustme.CA(), trustme.CA()
        certificate, client = own.issue_cert("localhost"), clients.issue_cert("me")
        for name, blob in {
            "ca.pem": own.cert_pem,
            "server.pem": certificate.cert_chain_pems[0],
            "server.key": certificate.private_key_pem,
            "clients.pem": clients.cert_pem,
            "me.pem": client.cert_chain_pems[0],
            "me.key": client.private_key_pem,
        }.items():
            blob.write_to_path(str(tmp_path / name))
        tls = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "clients.pem")
        with RunningGateway(server.uri, ca_file=server.ca_file, tls=tls) as gateway:
            login = {"uri": f"https://localhost:{gateway.port}", "user": server.user, "password": server.password}
            trust = {"secure": True, "ca_pem_path": str(tmp_path / "ca.pem"), "server_name": "localhost"}
            own_pems = {"client_pem_path": str(tmp_path / "me.pem"), "client_key_path": str(tmp_path / "me.key")}
            client = MilvusClient(**login, **trust, **own_pems)
            assert "root" in client.list_users()
            client.close()


def server_channel(server) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(server.ca_file.read_bytes())
    return grpc.secure_channel(f"localhost:{server.port}", credentials)


class TestLimits:
    def test_requests_may_be_as_large_as_told_and_answers_larger(self, milvus_server, collection_name):
        rows, dim = 1500, 1024  # 6 MB: more than gRPC's own limit of 4
        with RunningGateway(milvus_server.uri, max_message=7 << 20) as gateway:
            client = MilvusClient(gateway.uri)
            small_collection(client, collection_name, rows, dim)
            found = client.query(collection_name, filter="id >= 0", output_fields=["embedding"], limit=rows)
            assert len(found) == rows
            with gateway.channel() as channel:
                insert = stub(channel).Insert
                request = milvus_pb2.InsertRequest(collection_name=collection_name)
                request.hash_keys.extend([1 << 31] * (8 << 20 >> 2))
                code, details = failed(lambda: insert(request))
            assert code == "RESOURCE_EXHAUSTED"
            assert "larger than max" in details
            client.drop_collection(collection_name)
            client.close()

    def test_a_full_queue_refuses_and_what_is_passed_on_goes_on(self, proxy):
        with RunningGateway(proxy.uri, workers=1, queue=1) as gateway:
            channels = [gateway.channel() for _ in range(6)]
            stub(channels[0]).ShowCollections(EVERYTHING)  # so that the login is known
            proxy.delay = 0.4

            def describe(number):
                name = f"no_such_{number}"  # others would take the answer of the first
                request = milvus_pb2.DescribeCollectionRequest(collection_name=name)
                return stub(channels[number]).DescribeCollection(request).status

            with ThreadPoolExecutor(6) as pool:
                ends = pool.map(describe, range(6))
                wait_until(lambda: values(gateway)["alula_gateway_waiting",] == 1, "a call that waits")
                assert values(gateway)["alula_gateway_running",] == 1
                with gateway.channel() as channel:
                    stub(channel).ShowCollections(EVERYTHING)
                ends = list(ends)
            refused = [end for end in ends if end.code == 8]
            assert len(refused) == 4
            assert {end.error_code for end in refused} == {common_pb2.RateLimit}
            assert "run more gateways" in refused[0].reason
            assert values(gateway)["alula_gateway_waiting",] == values(gateway)["alula_gateway_running",] == 0
            for channel in channels:
                channel.close()

    def test_clients_wait_where_there_is_no_room(self, proxy, milvus_server, collection_name):
        straight = milvus_server.client()
        small_collection(straight, collection_name, 5, 8)
        with RunningGateway(proxy.uri, workers=1, queue=0) as gateway:
            client = MilvusClient(gateway.uri)
            before = values(gateway)
            proxy.delay = 0.1

            def describe(_):
                return client.describe_collection(collection_name)["collection_name"]

            with ThreadPoolExecutor(8) as pool:
                assert list(pool.map(describe, range(8))) == [collection_name] * 8
            client.close()
            refused = ("alula_gateway_requests_total", "DescribeCollection", "refused")
            assert values(gateway)[refused] > before.get(refused, 0), "there was room"
        straight.drop_collection(collection_name)
        straight.close()

    def test_searches_that_pass_share_one_look_at_their_collection(self, proxy, milvus_server, collection_name):
        """More may be under way than workers and queue have room for when the description is too old."""
        straight = milvus_server.client()
        small_collection(straight, collection_name, 5, 8)
        with RunningGateway(proxy.uri, workers=1, queue=1) as gateway:
            client = MilvusClient(gateway.uri, retry_times=0)
            client.list_collections()  # so that the login is known
            before = values(gateway)
            proxy.delay = 0.1

            def count(_):
                return client.query(collection_name, filter="id >= 0", output_fields=["count(*)"])[0]["count(*)"]

            with ThreadPoolExecutor(16) as pool:
                assert list(pool.map(count, range(16))) == [5] * 16
            client.close()
            after = values(gateway)
            refused = ("alula_gateway_requests_total", "Query", "refused")
            assert after.get(refused, 0) == before.get(refused, 0)
        straight.drop_collection(collection_name)
        straight.close()

    def test_clients_may_ping_as_often_as_they_like(self, gateway):
        """SDKs do so every 5 to 10 seconds without a call, which gRPC's own servers end with GOAWAY."""
        settings, ping, goaway = 4, 6, 7
        with socket.create_connection((LOOPBACK, gateway.port)) as client:
            client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(settings, b""))
            answered, received = 0, client.makefile("rb")
            while answered < 20:
                client.sendall(frame(ping, b"12345678"))
                kind, flags = read_frame(received)
                while (kind, flags) != (ping, 1):
                    assert kind != goaway, f"cut off after {answered} pings"
                    kind, flags = read_frame(received)
                answered += 1


def frame(kind: int, payload: bytes) -> bytes:
    """A frame of HTTP/2 about the connection."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, 0]) + bytes(4) + payload


def read_frame(received) -> tuple[int, int]:
    """The type and the flags of the next frame."""
    header = received.read(9)
    assert len(header) == 9, "the connection was closed"
    received.read(int.from_bytes(header[:3], "big"))
    return header[3], header[4]


class TestDeadlines:
    @pytest.mark.parametrize("method", ["ShowCollections", "DescribeCollection"])
    def test_a_call_ends_at_its_deadline(self, proxy, method):
        with RunningGateway(proxy.uri) as gateway, gateway.channel() as channel:
            call = getattr(stub(channel), method)
            request = getattr(milvus_pb2, f"{method}Request")()
            call(request)
            proxy.hold()  # Milvus does not answer before the call has ended
            assert failed(lambda: call(request, timeout=0.3))[0] == "DEADLINE_EXCEEDED"


class TestWithoutMilvus:
    def test_calls_fail_at_once_and_work_again_afterwards(self, proxy, milvus_server, dead_port):
        with RunningGateway(proxy.uri) as gateway, gateway.channel() as channel:
            stub(channel).ShowCollections(EVERYTHING)
            proxy.target = dead_port
            proxy.cut_now()
            wait_until(lambda: not gateway.gateway.health.ready, "the gateway to miss Milvus")
            for method in ("ShowCollections", "DescribeCollection"):
                request = getattr(milvus_pb2, f"{method}Request")()
                code, details = failed(lambda: getattr(stub(channel), method)(request))  # noqa: B023
                assert code == "UNAVAILABLE"
                assert f"Milvus at {proxy.uri} does not answer" in details
            proxy.target = milvus_server.port
            wait_until(lambda: gateway.gateway.health.ready, "the gateway to find Milvus")
            stub(channel).ShowCollections(EVERYTHING)

            def answers():
                try:
                    stub(channel).DescribeCollection(milvus_pb2.DescribeCollectionRequest())
                except grpc.RpcError:
                    return False
                return True

            wait_until(
                answers, "an answer"
            )  # the workers' connection is another one, which is made anew within two seconds


def accepts(channel: grpc.Channel) -> bool:
    """True while the gateway takes new calls."""
    try:
        stub(channel).ShowCollections(EVERYTHING, timeout=0.2)
    except grpc.RpcError as error:
        return error.code() != grpc.StatusCode.UNAVAILABLE
    return True


class TestDraining:
    def test_running_calls_are_answered_and_new_ones_are_not_taken(self, proxy):
        with RunningGateway(proxy.uri, health_seconds=FOREVER) as gateway:
            begun = threading.Barrier(9)

            def call(number):
                with gateway.channel() as channel:
                    grpc.channel_ready_future(channel).result()
                    begun.wait()
                    method = ("ShowCollections", "DescribeCollection")[number % 2]
                    request = getattr(milvus_pb2, f"{method}Request")()
                    if method == "DescribeCollection":
                        request.collection_name = f"no_such_{number}"  # others would take the answer of the first
                    return getattr(stub(channel), method)(request)

            with ThreadPoolExecutor(8) as pool, gateway.channel() as late:
                grpc.channel_ready_future(late).result()
                calls = [pool.submit(call, number) for number in range(8)]
                before = proxy.calls
                proxy.hold()
                begun.wait()
                wait_until(lambda: proxy.calls >= before + 8, "the calls to reach Milvus")
                stopping = threading.Thread(target=gateway.stop, args=(FOREVER,))  # it waits for the calls alone
                stopping.start()
                wait_until(lambda: not accepts(late), "the gateway to refuse new calls")
                proxy.release()
                stopping.join()
                for done in calls:
                    done.result()

    def test_calls_that_take_longer_are_given_up(self, proxy):
        with RunningGateway(proxy.uri, health_seconds=FOREVER) as gateway, gateway.channel() as channel:
            stub(channel).ShowCollections(EVERYTHING)
            before = proxy.calls
            proxy.hold()
            running = stub(channel).ShowCollections.future(EVERYTHING)
            wait_until(lambda: proxy.calls > before, "the call to reach Milvus")
            gateway.stop(0.3)  # it does not wait for Milvus, which never answers
            assert failed(running.result)[0] in ("UNAVAILABLE", "CANCELLED")
