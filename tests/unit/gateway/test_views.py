"""Cached descriptions of collections: used by those that may read them, and dropped when they are old."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from alula.gateway import views as views_module
from alula.gateway.upstream import MilvusError
from alula.gateway.views import Views


@dataclass
class Client:
    """A caller of an upstream with one ordinary collection, which its login may describe or not."""

    login: str
    may: bool = True
    sent: list = field(default_factory=list)

    @property
    def metadata(self):
        return (("authorization", self.login),)

    def send(self, method, request):
        self.sent.append(request.collection_name)
        if not self.may:
            raise MilvusError(common_pb2.Status(code=65535, reason="permission deny"))
        answer = milvus_pb2.DescribeCollectionResponse()
        answer.schema.name = request.collection_name
        return answer


def test_the_description_of_one_login_is_not_anothers():
    views, one, other, stranger = Views(None), Client("one"), Client("other"), Client("stranger", may=False)
    assert views.read(one, "", "words").name == "words"
    assert views.read(one, "", "words").name == "words"
    assert one.sent == ["words"]
    assert views.read(stranger, "", "words").name == ""
    assert stranger.sent == ["words"]
    assert views.read(other, "", "words").name == "words"
    assert other.sent == ["words"], "it asked with its own rights"
    views.read(other, "", "words")
    assert other.sent == ["words"]


@pytest.mark.parametrize("seconds", [0.0, 100.0])
def test_the_right_is_asked_for_again(monkeypatch, seconds):
    monkeypatch.setattr(views_module, "DESCRIBED_SECONDS", seconds)
    views, client = Views(None), Client("one")
    for _ in range(3):
        views.read(client, "", "words")
    assert len(client.sent) == (1 if seconds else 3)


def test_old_descriptions_are_dropped(monkeypatch):
    views, client = Views(None), Client("one")
    for name in ("first", "second"):
        views.read(client, "", name)
    assert views.cached("", "first")
    monkeypatch.setattr(views_module, "MAX_AGE", 0.0)
    views.read(client, "", "third")
    assert [name for _, name in views._cached] == ["third"]
