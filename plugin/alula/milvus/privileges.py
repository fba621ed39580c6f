"""The privileges that a login needs, by what it does with Alula.

Milvus grants privileges and not methods; which one a method needs is said in Milvus's own protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pymilvus.grpc_gen import common_pb2, milvus_pb2

_METHODS = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].methods_by_name
_READ = (
    "DescribeCollection",
    "DescribeIndex",
    "GetLoadState",
    "GetLoadingProgress",
    "ListAliases",
    "Query",
    "Search",
)
_WRITE = (*_READ, "Delete", "Flush", "GetFlushState", "Import", "Insert", "LoadCollection", "ShowPartitions", "Upsert")
_OWN = (
    *_WRITE,
    "AlterAlias",
    "AlterCollection",
    "CreateAlias",
    "CreateCollection",
    "CreateIndex",
    "DropAlias",
    "DropCollection",
    "DropIndex",
    "GetCollectionStatistics",
    "ReleaseCollection",
    "RenameCollection",
)


@dataclass(frozen=True)
class Role:
    """The rights of a login.

    Args:
        commands: The commands of Alula that it may give.
        methods: The methods of Milvus that these call and that need a privilege.
    """

    commands: str
    methods: tuple[str, ...]

    @property
    def privileges(self) -> Mapping[str, tuple[str, ...]]:
        """Names of privileges by the type of their object, ``Collection`` or ``Global``."""
        found: dict[str, set[str]] = {}
        for method in self.methods:
            needed = _METHODS[method].input_type.GetOptions().Extensions[common_pb2.privilege_ext_obj]
            name = common_pb2.ObjectPrivilege.Name(needed.object_privilege).removeprefix("Privilege")
            found.setdefault(common_pb2.ObjectType.Name(needed.object_type), set()).add(name)
        return {kind: tuple(sorted(found[kind])) for kind in sorted(found)}


ROLES: Mapping[str, Role] = MappingProxyType(
    {
        "reader": Role(
            "search, describe, evaluate and encoders pull, of loaded collections; replicas; a gateway", _READ
        ),
        "loader": Role("load too", _WRITE),
        "owner": Role("create, migrate, tune, encoders, doctor and drop too; create_index through a gateway", _OWN),
    }
)
