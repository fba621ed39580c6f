"""Runs the steps of a scenario with pymilvus, as ``node/run.mjs`` does with the Node SDK."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc
from pymilvus import AnnSearchRequest, DataType, MilvusClient, RRFRanker, WeightedRanker
from pymilvus.exceptions import MilvusException
from pymilvus.grpc_gen import schema_pb2

Step = Mapping[str, Any]


def run(client: MilvusClient, steps: Sequence[Step]) -> list[dict[str, Any]]:
    """One result for each step: ``{"ok": what it gave}`` or ``{"error": {"code": ..., "reason": ...}}``."""
    return [_outcome(client, step) for step in steps]


def _outcome(client: MilvusClient, step: Step) -> dict[str, Any]:
    try:
        return {"ok": ACTIONS[step["do"]](client, step)}
    except MilvusException as error:
        return {"error": {"code": error.code, "legacy": error.compatible_code, "reason": error.message}}
    except grpc.RpcError as error:
        return {"error": {"code": error.code().name, "reason": error.details()}}


def _scope(step: Step) -> dict[str, Any]:
    given = {name: step[name] for name in ("filter", "output_fields", "limit", "offset") if name in step}
    if "partitions" in step:
        given["partition_names"] = step["partitions"]
    return {**given, "collection_name": step["collection"], "consistency_level": "Strong"}


def _search_params(step: Step) -> dict[str, Any]:
    given: dict[str, Any] = {"params": step.get("params", {})}
    if "metric" in step:
        given["metric_type"] = step["metric"]
    return {
        "search_params": given,
        **({"anns_field": step["field"]} if "field" in step else {}),
        **({"group_by_field": step["group_by"]} if "group_by" in step else {}),
    }


def _vector(value: Any) -> Any:
    """A query; bytes where every number is one."""
    if isinstance(value, Mapping):
        return {int(dim): weight for dim, weight in value.items()}
    return bytes(value) if all(isinstance(number, int) for number in value) else value


def _row(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in fields.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], bytes):
        return list(value[0])  # a binary vector
    if isinstance(value, Mapping):
        return {str(key): part for key, part in value.items()}
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _rows(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [_row(row) for row in found]


def _hits(found: Any, step: Step) -> list[dict[str, Any]]:
    key = step.get("key", "id")
    return [
        {
            "id": hit.id,
            "score": hit.distance,
            "fields": _row({name: value for name, value in hit["entity"].items() if name != key}),
        }
        for hit in found
    ]


def _batches(iterator: Any) -> Iterator[Any]:
    try:
        while batch := iterator.next():
            yield batch
    finally:
        iterator.close()


def _create_collection(client: MilvusClient, step: Step) -> None:
    schema = client.create_schema(
        description=step.get("description", ""), enable_dynamic_field=step.get("dynamic", False)
    )
    renamed = {"primary": "is_primary", "partition_key": "is_partition_key"}
    for field in step["fields"]:
        given = {renamed.get(name, name): value for name, value in field.items() if name not in ("name", "type")}
        if "element" in given:
            given["element_type"] = _data_type(given.pop("element"))
        schema.add_field(field["name"], _data_type(field["type"]), **given)
    more = {name: step[name] for name in ("properties", "num_partitions") if name in step}
    client.create_collection(step["collection"], schema=schema, consistency_level="Strong", **more)


def _data_type(name: str) -> DataType:
    """A type by its name in Milvus's protocol, which Node's SDK uses too."""
    return DataType(schema_pb2.DataType.Value(name))


def _create_index(client: MilvusClient, step: Step) -> None:
    params = client.prepare_index_params()
    given = {name: step[name] for name in ("index_type", "index_name", "params") if name in step}
    if "metric" in step:
        given["metric_type"] = step["metric"]
    params.add_index(step["field"], **given)
    client.create_index(step["collection"], params)


def _write(call: Callable[..., Mapping[str, Any]], step: Step) -> dict[str, Any]:
    rows = [{name: _input(value) for name, value in row.items()} for row in step["rows"]]
    answer = call(step["collection"], rows, **({"partition_name": step["partition"]} if "partition" in step else {}))
    count = answer.get("upsert_count", answer.get("insert_count"))
    return {"count": count, "ids": list(answer.get("ids", answer.get("primary_keys", [])))}


def _input(value: Any) -> Any:
    if isinstance(value, Mapping) and value and all(key.isdigit() for key in value):
        return {int(dim): weight for dim, weight in value.items()}
    return value


def _delete(client: MilvusClient, step: Step) -> dict[str, Any]:
    given = {name: step[name] for name in ("ids", "filter") if name in step}
    if "partition" in step:
        given["partition_name"] = step["partition"]
    answer = client.delete(step["collection"], **given)
    return {"count": answer["delete_count"] if isinstance(answer, Mapping) else len(answer)}


def _count(client: MilvusClient, step: Step) -> int:
    return int(client.query(**_scope({**step, "output_fields": ["count(*)"]}))[0]["count(*)"])


def _search(client: MilvusClient, step: Step) -> list[list[dict[str, Any]]]:
    vectors = [_vector(vector) for vector in step["vectors"]]
    return [_hits(found, step) for found in client.search(data=vectors, **_scope(step), **_search_params(step))]


def _hybrid_search(client: MilvusClient, step: Step) -> list[list[dict[str, Any]]]:
    requests = [
        AnnSearchRequest(
            [_vector(request["vector"])],
            request["field"],
            {"params": request.get("params", {})},
            limit=step["limit"],
            expr=request.get("filter"),
        )
        for request in step["requests"]
    ]
    params = step.get("ranker_params", {})
    ranker = RRFRanker(params.get("k", 60)) if step["ranker"] == "rrf" else WeightedRanker(*params["weights"])
    found = client.hybrid_search(reqs=requests, ranker=ranker, **_scope(step))
    return [_hits(hits, step) for hits in found]


def _search_iterator(client: MilvusClient, step: Step) -> list[list[dict[str, Any]]]:
    vectors = [_vector(vector) for vector in step["vectors"]]
    iterator = client.search_iterator(data=vectors, batch_size=step["batch"], **_scope(step), **_search_params(step))
    return [_hits(batch, step) for batch in _batches(iterator)]


def _query_iterator(client: MilvusClient, step: Step) -> list[list[dict[str, Any]]]:
    return [_rows(batch) for batch in _batches(client.query_iterator(batch_size=step["batch"], **_scope(step)))]


def _described_indexes(client: MilvusClient, step: Step) -> list[Any]:
    return [client.describe_index(step["collection"], name) for name in sorted(client.list_indexes(step["collection"]))]


ACTIONS: Mapping[str, Callable[[MilvusClient, Step], Any]] = {
    "create_collection": _create_collection,
    "create_index": _create_index,
    "drop_index": lambda client, step: client.drop_index(step["collection"], step["index_name"]),
    "load": lambda client, step: client.load_collection(step["collection"]),
    "release": lambda client, step: client.release_collection(step["collection"]),
    "load_state": lambda client, step: f"LoadState{client.get_load_state(step['collection'])['state'].name}",
    "insert": lambda client, step: _write(client.insert, step),
    "upsert": lambda client, step: _write(client.upsert, step),
    "delete": _delete,
    "flush": lambda client, step: client.flush(step["collection"]),
    "query": lambda client, step: _rows(client.query(**_scope(step))),
    "get": lambda client, step: _rows(client.get(**_scope(step), ids=step["ids"])),
    "count": _count,
    "search": _search,
    "hybrid_search": _hybrid_search,
    "search_iterator": _search_iterator,
    "query_iterator": _query_iterator,
    "describe_collection": lambda client, step: client.describe_collection(step["collection"]),
    "describe_index": _described_indexes,
    "list_indexes": lambda client, step: sorted(client.list_indexes(step["collection"])),
    "statistics": lambda client, step: int(client.get_collection_stats(step["collection"])["row_count"]),
    "has_collection": lambda client, step: client.has_collection(step["collection"]),
    "list_collections": lambda client, step: sorted(
        name for name in client.list_collections() if name.startswith(step["prefix"])
    ),
    "rename_collection": lambda client, step: client.rename_collection(step["collection"], step["to"]),
    "alter_collection": lambda client, step: client.alter_collection_properties(step["collection"], step["properties"]),
    "drop_collection": lambda client, step: client.drop_collection(step["collection"]),
    "create_alias": lambda client, step: client.create_alias(step["collection"], step["alias"]),
    "alter_alias": lambda client, step: client.alter_alias(step["collection"], step["alias"]),
    "drop_alias": lambda client, step: client.drop_alias(step["alias"]),
    "create_partition": lambda client, step: client.create_partition(step["collection"], step["partition"]),
    "has_partition": lambda client, step: client.has_partition(step["collection"], step["partition"]),
    "list_partitions": lambda client, step: sorted(client.list_partitions(step["collection"])),
    "drop_partition": lambda client, step: client.drop_partition(step["collection"], step["partition"]),
    "version": lambda client, step: client.get_server_version(),
    "list_databases": lambda client, step: sorted(client.list_databases()),
}
