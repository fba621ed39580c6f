"""The harness can fail: it sees a leak, and a failure that nothing explains; a recorded answer is a recorded one."""

import os
import threading

import grpc
import pytest
from pymilvus import MilvusClient

from benchmarks.gateway.pressure import press
from benchmarks.gateway.soak import SERVERS_OWN, Tally, Window, _targets, _unexplained
from benchmarks.gateway.soak_worker import Refusal, Seen
from benchmarks.gateway.throughput import recorded
from benchmarks.gateway.usage import Usage, usage
from benchmarks.report import Report
from tools.servers.lite import LiteServer


def missed(tally):
    report = Report("soak", [0], "make bench-gateway")
    _targets(report, tally, {"ordinary": "FLAT", "codes": "DRQ"}, quick=True)
    return {entry["what"].removeprefix("Soak: ") for entry in report.targets if not entry["met"]}


@pytest.fixture
def clean():
    """A soak in which all went well."""
    seen = Seen()
    seen.recalls["ordinary"] = seen.recalls["codes"] = [1.0]
    samples = [(float(i), Usage(200 << 20, 100 << 20, 20, 10, i / 100)) for i in range(400)]
    return Tally(seen=[seen], samples=samples, quiet_points=2, recoveries=[1.0])


@pytest.mark.parametrize(
    ("what", "a_minute"), [("resident MB", {"rss": 5 << 20}), ("open files", {"files": 3}), ("threads", {"threads": 2})]
)
def test_growth_is_seen(clean, what, a_minute):
    assert not missed(clean)
    for i, (at, held) in enumerate(clean.samples):
        more = {name: getattr(held, name) + value * i // 30 for name, value in a_minute.items()}
        clean.samples[i] = (at, Usage(**(vars(held) | more)))
    assert missed(clean) == {f"growth of the gateway that is not killed, {what}"}


def test_what_was_broken_explains_failures_of_its_time_and_gateway_alone(clean):
    clean.windows = [Window(10, 20, frozenset([0]))]
    clean.seen[0].refusals = [Refusal("query", 0, 8, 11, ""), Refusal("query", 0, 3, 5, SERVERS_OWN)]
    assert not _unexplained(clean)
    clean.seen[0].refusals += [Refusal("query", 1, 12, 13, "another gateway"), Refusal("query", 0, 21, 22, "later")]
    assert [refusal.message for refusal in _unexplained(clean)] == ["another gateway", "later"]
    assert missed(clean) == {"calls that failed while nothing was broken"}


def test_findings_are_counted(clean):
    clean.note("a row that never was")
    assert missed(clean) == {"wrong answers and other findings"}


def test_usage_sees_what_a_process_takes(tmp_path):
    before, done = usage(os.getpid()), threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    with (tmp_path / "a").open("w"), (tmp_path / "b").open("w"):
        held = bytearray(os.urandom(64 << 20))
        sum(held[:5_000_000])
        after = usage(os.getpid())
    done.set()
    thread.join()
    assert after.files == before.files + 2
    assert after.threads == before.threads + 1
    assert after.rss - before.rss > 50 << 20
    assert after.anonymous - before.anonymous > 50 << 20
    assert after.cpu > before.cpu


def test_what_was_answered_once_is_answered_without_the_server(starts_engine):
    method = "/milvus.proto.milvus.MilvusService/ShowCollections"
    with LiteServer() as server:
        MilvusClient(server.uri).close()  # it is up
        with recorded(server.uri.removeprefix("http://")) as address, grpc.insecure_channel(address) as channel:
            call = channel.unary_unary(method)
            first = call(b"")
            server.kill()
            assert call(b"") == first
            with pytest.raises(grpc.RpcError):
                call(b"\x12\x01x")
            outcome = press(address, b"\x12\x01x", 1, clients=1, at_once=2, seconds=0.2)
            assert outcome.failed
            assert not outcome.answered
