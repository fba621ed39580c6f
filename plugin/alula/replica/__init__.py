"""Replicas: the codes of a Milvus collection held in this process, while Milvus stays the source of truth."""

from alula.replica.refresh import Refreshed
from alula.replica.replica import Replica

__all__ = ["Refreshed", "Replica"]
