"""Collections and their aliases, as Milvus 2.4 and later handle them."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from pymilvus import DataType
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from tools.servers.versions.rule import Call, RefusedError, Rule, Version, parse

DESCRIPTION = "collection.description"
MAX_DESCRIPTION = 1024  # bytes


class ServerVersion(Rule):
    """The version that clients read."""

    since = "2.4.0"
    source = "milvus internal/proxy/impl.go GetVersion, Connect"
    methods = ("GetVersion", "Connect")

    @property
    def text(self) -> str:
        """The version as Milvus writes it."""
        return "v" + ".".join(map(str, self.version))

    def ask(self, call: Call) -> Message | None:
        """See `Rule.ask`."""
        return milvus_pb2.GetVersionResponse(version=self.text) if call.method == "GetVersion" else None

    def answer(self, call: Call, response: Any) -> None:
        """See `Rule.answer`."""
        del call
        response.server_info.build_tags = self.text


class VectorFieldLimit(Rule):
    """A collection has 4 vector fields at most, and 10 from 2.6 on."""

    since = "2.4.0"
    source = "milvus internal/proxy/task.go createCollectionTask.PreExecute; proxy.maxVectorFieldNum"
    methods = ("CreateCollection",)

    def ask(self, call: Call) -> None:
        """See `Rule.ask`."""
        most = 10 if self.version >= parse("2.6.0") else 4
        vectors = [f.name for f in call.known.schema.fields if DataType(f.data_type).name.endswith("_VECTOR")]
        if len(vectors) > most:
            raise RefusedError(1100, f"maximum vector field's number should be limited to {most}")


class NoNullableVectors(Rule):
    """A vector field cannot be nullable before 2.6.18."""

    since = "2.4.0"
    before = "2.6.18"
    source = "milvus internal/proxy/util.go ValidateField"
    methods = ("CreateCollection",)

    def ask(self, call: Call) -> None:
        """See `Rule.ask`."""
        for field in call.known.schema.fields:
            if field.nullable and DataType(field.data_type).name.endswith("_VECTOR"):
                raise RefusedError(1100, f"vector type not support null, fieldName:{field.name}")


class DescriptionLength(Rule):
    """A collection's description has 1,024 bytes at most."""

    since = "2.6.19"
    source = "milvus internal/proxy/util.go validateCollectionDescription; proxy.maxCollectionDescriptionLength"
    methods = ("CreateCollection", "AlterCollection")

    def ask(self, call: Call) -> None:
        """See `Rule.ask`."""
        given = [call.known.schema.description] if call.method == "CreateCollection" else []
        if call.method == "AlterCollection":
            given = [pair.value for pair in call.request.properties if pair.key == DESCRIPTION]
        if any(len(text.encode()) > MAX_DESCRIPTION for text in given):
            raise RefusedError(1100, f"the collection description exceeds the limit of {MAX_DESCRIPTION} bytes")


class DescriptionAltered(Rule):
    """The property ``collection.description`` replaces the description."""

    since = "2.5.0"
    source = "milvus internal/rootcoord/alter_collection_task.go; common.CollectionDescription"
    methods = ("AlterCollection", "DescribeCollection")

    def __init__(self, version: Version) -> None:
        super().__init__(version)
        self._altered: dict[int, str] = {}  # descriptions by the collection's number

    def answer(self, call: Call, response: Any) -> None:
        """See `Rule.answer`."""
        if call.method == "DescribeCollection":
            response.schema.description = self._altered.get(response.collectionID, response.schema.description)
            return
        for pair in call.request.properties:
            if pair.key == DESCRIPTION:
                self._altered[call.describe().collectionID] = pair.value


class PropertiesDeleted(Rule):
    """AlterCollection removes the properties that ``delete_keys`` names."""

    since = "2.4.17"
    source = "milvus internal/proxy/task.go alterCollectionTask PreExecute; internal/rootcoord/alter_collection_task.go"
    methods = ("AlterCollection", "DescribeCollection")

    def __init__(self, version: Version) -> None:
        super().__init__(version)
        self._deleted: dict[int, set[str]] = {}  # keys by the collection's number

    def ask(self, call: Call) -> Message | None:
        """See `Rule.ask`."""
        if call.method != "AlterCollection":
            return None
        deleted = self._deleted.setdefault(call.describe().collectionID, set())
        if not call.request.delete_keys:
            deleted -= {pair.key for pair in call.request.properties}
            return None
        if call.request.properties:
            raise RefusedError(1100, "cannot provide both DeleteKeys and ExtraParams")
        deleted |= set(call.request.delete_keys)
        return common_pb2.Status()

    def answer(self, call: Call, response: Any) -> None:
        """See `Rule.answer`."""
        if call.method == "DescribeCollection":
            deleted = self._deleted.get(response.collectionID, set())
            left = [pair for pair in response.properties if pair.key not in deleted]
            del response.properties[:]
            response.properties.extend(left)


class AliasesListed(Rule):
    """ListAliases is answered by the coordinator, not from a cache."""

    since = "2.4.0"
    source = "milvus internal/proxy/impl.go ListAliases; internal/rootcoord/root_coord.go ListAliases"
    methods = ("ListAliases",)

    def ask(self, call: Call) -> Message:
        """See `Rule.ask`."""
        described, (database, name) = call.describe(), call.name
        return milvus_pb2.ListAliasesResponse(
            status=described.status, db_name=database, collection_name=name, aliases=described.aliases
        )


class StaleAliases(Rule):
    """A collection is described from a cache that a moved alias does not clear.

    Only the entry of the alias is cleared. Before 2.6.6 that of the collection to which an alias is added is cleared
    too, so that only the one that lost it is described with it for a while.
    """

    since = "2.5.19"
    source = (
        "milvus internal/rootcoord/ddl_callbacks_alter_alias.go alterAliasV2AckCallback; CachedProxyServiceProvider"
    )
    methods = ("DescribeCollection", "CreateAlias", "AlterAlias", "DropAlias", "DropCollection", "RenameCollection")

    def __init__(self, version: Version) -> None:
        super().__init__(version)
        self._aliases: dict[tuple[str, str], list[str]] = {}

    def answer(self, call: Call, response: Any) -> None:
        """See `Rule.answer`."""
        database, name = call.name
        if call.method == "DescribeCollection":
            if not response.status.code:
                aliases = self._aliases.setdefault((database, name), list(response.aliases))
                del response.aliases[:]
                response.aliases.extend(aliases)
        elif call.method.endswith("Alias"):
            self._aliases.pop((database, call.request.alias), None)
            if self.version < parse("2.6.6"):
                self._aliases.pop((database, name), None)
        else:
            for word in ("collection_name", "oldName", "newName"):
                self._aliases.pop((database, getattr(call.request, word, "")), None)
