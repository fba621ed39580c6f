"""The harness can fail: it sees rows that are lost, doubled or changed, and its proxy cuts where it says it does."""

from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest
from milvus_lite.server import Server as LiteServer
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

import alula
from benchmarks.loading.checking import FIELD, Rows, check, companions, count, open_encoder
from tests.tiny_encoders import TinyFlops, write_drq, write_flops
from tools.servers.cutting_proxy import CuttingProxy
from tools.servers.standalone import free_ports

NAME = "rows"


@pytest.fixture(scope="module")
def rows():
    return Rows(300, 8)


@pytest.fixture(scope="module", params=[write_flops, write_drq], ids=["flops", "drq"])
def loaded(request, lite, rows, tmp_path_factory):
    """A collection that holds the rows, and its encoder."""
    encoder = request.param(tmp_path_factory.mktemp("encoder") / "encoder.onnx")
    kind = "FLOPS_SPARSE" if isinstance(encoder, TinyFlops) else "DRQ"
    collection = alula.Collection.create(lite, NAME, encoder=encoder.path, index_type=kind, columns=rows.scalars)
    collection.insert(rows.columns[FIELD], {name: list(rows.columns[name]) for name in ("id", "year", "text")})
    yield lite.client, encoder.path
    lite.client.drop_collection(NAME)


def stored(client, id_):
    """A row as it can be inserted again."""
    row = dict(client.query(NAME, filter=f"id == {id_}", output_fields=["*"])[0])
    return {
        name: value[0] if isinstance(value, list) and isinstance(value[0], bytes) else value
        for name, value in row.items()
    }


def test_lost_doubled_and_changed_rows_are_counted(loaded, rows):
    client, encoder = loaded
    ids = rows.columns["id"].tolist()
    assert check(client, NAME, rows, encoder).clean

    companion = next(name for name in companions(open_encoder(encoder), rows.columns[FIELD][:1]) if "norm" not in name)
    other = stored(client, ids[3])
    for id_, change in (
        (ids[0], {"year": 1}),
        (ids[1], {FIELD: (np.asarray(rows.columns[FIELD][1]) + np.float32(1e-4)).tolist()}),
        (ids[2], {companion: other[companion]}),
    ):
        changed = stored(client, id_) | change
        client.delete(NAME, ids=[id_])
        client.insert(NAME, [changed])
    verdict = check(client, NAME, rows, encoder)
    assert (verdict.lost, verdict.doubled, verdict.wrong) == (0, 0, 3)

    client.insert(NAME, [stored(client, ids[10])])
    client.insert(NAME, [stored(client, ids[11]) | {"id": 1_000_000}])
    verdict = check(client, NAME, rows, encoder)
    assert (verdict.lost, verdict.doubled, verdict.wrong) == (0, 2, 3)

    client.delete(NAME, ids=ids[20:24])
    verdict = check(client, NAME, rows, encoder)
    assert (verdict.lost, verdict.doubled, verdict.wrong) == (4, 2, 3)


@pytest.mark.parametrize("kind", [write_flops, write_drq], ids=["flops", "drq"])
def test_the_expected_companions_do_not_depend_on_how_many_rows_are_encoded_at_once(kind, rows, tmp_path):
    session = open_encoder(kind(tmp_path / "encoder.onnx").path)
    whole = companions(session, rows.columns[FIELD])
    for size in (37, 128):
        parts = [companions(session, rows.columns[FIELD][start : start + size]) for start in range(0, 300, size)]
        for name, column in whole.items():
            joined = [value for part in parts for value in part[name]]
            assert all(a == b for a, b in zip(joined, column, strict=True)), (size, name)


class Behind:
    """An embedded engine that listens on a port, a proxy before it, and a client on either way."""

    def __init__(self, folder):
        port = free_ports(["lite"])["lite"]
        self.engine = LiteServer(str(folder / "proxied.db"), f"127.0.0.1:{port}")
        assert self.engine.init()
        assert self.engine.start()
        self.direct = MilvusClient(f"http://127.0.0.1:{port}")
        schema = self.direct.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("v", DataType.FLOAT_VECTOR, dim=64)
        index = self.direct.prepare_index_params()
        index.add_index("v", index_type="FLAT", metric_type="L2")
        self.direct.create_collection(NAME, schema=schema, index_params=index)
        self.port = port
        self.sent = 0

    def fate(self, proxy):
        """Send 1,000 new rows through the proxy, 256 KB, once: which cut hit them, and how many rows they left."""
        cuts, before = dict(proxy.cuts), count(self.direct, NAME)
        rows = [{"id": self.sent + i, "v": [0.5] * 64} for i in range(1000)]
        self.sent += 1000
        client = MilvusClient(proxy.uri)
        try:
            client.insert(NAME, rows, retry_times=0)
        except MilvusException:
            (cut,) = (kind for kind, times in proxy.cuts.items() if times != cuts.get(kind, 0))
        else:
            cut = ""
        client.close()
        return cut, count(self.direct, NAME) - before


@pytest.fixture(scope="module")
def behind(starts_engine, tmp_path_factory):
    place = Behind(tmp_path_factory.mktemp("behind"))
    yield place
    place.engine.stop()


def test_a_cut_before_the_reply_leaves_the_rows_written_and_a_cut_in_the_request_does_not(behind):
    with CuttingProxy(behind.port) as proxy:
        assert behind.fate(proxy) == ("", 1000)
        proxy.cut_next("before reply", "in request")
        assert behind.fate(proxy) == ("before reply", 1000)
        assert behind.fate(proxy) == ("in request", 0)
        assert behind.fate(proxy) == ("", 1000)
        assert dict(proxy.cuts) == {"before reply": 1, "in request": 1}


def test_a_stall_passes_nothing_until_it_ends(behind):
    with CuttingProxy(behind.port) as proxy, ThreadPoolExecutor(1) as pool:
        proxy.stall(3600)
        sending = pool.submit(behind.fate, proxy)
        assert not wait([sending], 0.5).done
        proxy.stall(0)
        assert sending.result() == ("", 1000)


def test_the_same_seed_cuts_the_same_requests(behind):
    fates = []
    for _ in range(2):
        with CuttingProxy(behind.port, chance=0.6, seed=3) as proxy:
            fates.append([behind.fate(proxy)[0] for _ in range(5)])
    assert fates[0] == fates[1]
    assert set(fates[0]) == {"", "in request", "before reply"}
