"""Replicas: search the codes of a Milvus collection in this process."""

from alula.replica.refresh import Refreshed
from alula.replica.replica import Replica

__all__ = ["Refreshed", "Replica"]
