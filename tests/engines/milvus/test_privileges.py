"""A login with a role's privileges can do what the role says, and no more, in a real server that checks them."""

from __future__ import annotations

import numpy as np
import pytest

import alula
from alula.errors import ServerError
from alula.milvus import MissingRightsError
from alula.milvus.privileges import ROLES
from tests.small_collections import DIM, ROWS, Rows
from tests.tiny_encoders import random_vectors, write_drq

PASSWORD = "Secret-1"
NAME = "with_rights"
QUERY = random_vectors(1, DIM, seed=3)
ROWS_HELD = Rows()


@pytest.fixture(scope="module")
def root(milvus_server_with_auth):
    server = milvus_server_with_auth
    with alula.connect(
        server.uri, user=server.user, password=server.password, ca_file=str(server.ca_file)
    ) as connected:
        client = connected.client
        for name, role in ROLES.items():
            if name not in client.list_users():
                client.create_user(name, PASSWORD)
                client.create_role(name)
                client.grant_role(name, name)
            for kind, privileges in role.privileges.items():
                for privilege in privileges:
                    client.grant_privilege(name, kind, privilege, "*")
        yield connected


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_drq(tmp_path_factory.mktemp("rights") / "drq.onnx", input_dim=DIM)


@pytest.fixture(scope="module")
def collection(root, encoder):
    made = ROWS_HELD.filled(root, NAME, encoder, "DRQ")
    yield made
    made.drop()


@pytest.fixture(params=ROLES)
def role(request):
    return request.param


@pytest.fixture
def server(role, root, milvus_server_with_auth):
    with alula.connect(
        root.uri, user=role, password=PASSWORD, ca_file=str(milvus_server_with_auth.ca_file)
    ) as connected:
        yield connected


def test_each_role_reads(server, collection, encoder):
    opened = alula.Collection.open(server, NAME, encoder=encoder.path)
    assert opened.search(QUERY, output_fields=["year"]) == collection.search(QUERY, output_fields=["year"])
    assert opened.describe().rows == opened.count() == ROWS
    assert len(alula.Replica(opened)) == ROWS


def test_a_reader_may_not_write(server, role, collection, encoder):
    opened = alula.Collection.open(server, NAME, encoder=encoder.path)
    columns = {name: values[:5] for name, values in ROWS_HELD.columns.items()}
    if role != "reader":
        assert opened.insert(ROWS_HELD.vectors[:5], columns).total == ROWS
        return
    with pytest.raises(ServerError, match=r"into 'with_rights': PERMISSION_DENIED PrivilegeUpsert: permission deny"):
        opened.insert(ROWS_HELD.vectors[:5], columns)
    with pytest.raises(ServerError, match="PrivilegeDelete"):
        opened.delete(ROWS_HELD.ids[:1])


def test_only_an_owner_creates(server, role, collection, encoder):
    opened = alula.Collection.open(server, NAME, encoder=encoder.path)
    create = {"encoder": encoder.path, "index_type": "DRQ"}
    if role == "owner":
        made = alula.Collection.create(server, "of_an_owner", **create)
        made.insert(ROWS_HELD.vectors[:3], {"id": np.arange(3)})
        made.drop()
        opened.set_defaults(candidates=50)
        opened.set_defaults()
        return
    with pytest.raises(MissingRightsError, match="rights to create"):
        alula.Collection.create(server, "of_an_owner", **create)
    with pytest.raises(MissingRightsError, match="login may not store default search options"):
        opened.set_defaults(candidates=50)


def test_a_choice_that_may_not_be_stored_is_shown(alula, role, root, milvus_server_with_auth, collection, encoder):
    """Tuning takes minutes, and its result is of use without the right to store it."""
    login = ["--uri", root.uri, "--user", role, "--password", PASSWORD, "--ca-file", milvus_server_with_auth.ca_file]
    result = alula(
        "tune", NAME, "--encoder", encoder.path, "--target", "recall=0.5", "--sample", "30", "--seconds", "1", *login
    )
    assert result.code == 0
    assert ("Stored: " in result.out) == (role == "owner")
    assert ("may not store default search options" in result.out) == (role != "owner")
    collection.set_defaults()


def test_a_collection_that_is_not_loaded(server, role, root, collection, encoder):
    root.client.release_collection(NAME)
    try:
        opened = alula.Collection.open(server, NAME, encoder=encoder.path)
        if role == "reader":  # which may not even ask Milvus 2.3.5 if it is loaded
            with pytest.raises(ServerError, match="not loaded"):
                opened.search(QUERY)
        else:
            assert opened.search(QUERY) == collection.search(QUERY)
    finally:
        root.client.load_collection(NAME)
