"""What an encoder file must be; a file that is not gets a sentence that names it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import onnx
import pytest
from onnx import TensorProto, helper

from alula.encoders import EncoderInfo, load_encoder, read_model, write_info
from alula.errors import EncoderError
from tests.tiny_encoders import save, write_drq, write_flops

FLOPS = EncoderInfo("flops", "COSINE", 8, True, dim=32, max_nnz=4)
DRQ = EncoderInfo("drq", "L2", 8, False, scale=2.0, levels=4, sign_bits=32)


def set_metadata(model, text):
    del model.metadata_props[:]
    model.metadata_props.add(key="alula", value=text)


def outside(name="secret", location="../../../../../../etc/passwd"):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def test_a_file_that_keeps_the_contract_loads(flops, drq, metric):
    assert load_encoder(flops.path).info == flops.info
    assert load_encoder(str(drq.path)).info == drq.info
    assert (drq.info.metric, drq.info.max_bits) == (metric, 40)


def test_sha256_is_that_of_the_file(flops):
    import hashlib

    assert load_encoder(flops.path).sha256 == hashlib.sha256(flops.path.read_bytes()).hexdigest()


def test_write_info_replaces_and_keeps_other_metadata(flops_model):
    flops_model.metadata_props.add(key="note", value="kept")
    write_info(flops_model, replace(FLOPS, training={"rows": 3}))
    found = {entry.key: entry.value for entry in flops_model.metadata_props}
    assert found["note"] == "kept"
    assert EncoderInfo.from_json(found["alula"]).training == {"rows": 3}
    assert len(flops_model.metadata_props) == 2


@pytest.mark.parametrize("info", [FLOPS, DRQ], ids=["flops", "drq"])
def test_info_survives_json(info):
    assert EncoderInfo.from_json(info.to_json()) == info


def test_unknown_metadata_fields_are_ignored():
    assert EncoderInfo.from_json(json.dumps({**asdict(FLOPS), "colour": "blue"})) == FLOPS


# --- no file, no ONNX -----------------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    with pytest.raises(EncoderError, match=r"none\.onnx: there is no such file\.$"):
        load_encoder(tmp_path / "none.onnx")


def test_a_directory_is_no_encoder(tmp_path):
    with pytest.raises(EncoderError, match="no such file"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"not an encoder at all, but a text that someone named .onnx", "not an ONNX file, or it is truncated"),
        (bytes(range(255, 0, -1)) * 40, "not an ONNX file, or it is truncated"),
        (b"\x00" * 4096, "not an ONNX file, or it is truncated"),
    ],
    ids=["empty", "text", "bytes", "zeros"],
)
def test_a_file_that_is_no_model(tmp_path, content, words):
    path = tmp_path / "strange.onnx"
    path.write_bytes(content)
    with pytest.raises(EncoderError, match=words) as caught:
        load_encoder(path)
    assert str(path) in str(caught.value)


def test_a_truncated_file(tmp_path, flops):
    path = tmp_path / "half.onnx"
    path.write_bytes(flops.path.read_bytes()[:-100])
    with pytest.raises(EncoderError, match=r"half\.onnx"):
        load_encoder(path)


def test_a_file_of_more_than_two_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate((2 << 30) + 1)  # sparse: takes no space
    with pytest.raises(EncoderError, match="larger than 2 GiB"):
        load_encoder(path)


# --- metadata -------------------------------------------------------------------------------------------------------


def test_no_metadata(flops_model, refused):
    del flops_model.metadata_props[:]
    assert "has no 'alula' metadata; train one with 'alula train'" in refused(flops_model)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, ""),
        ("[1, 2]", "is not a JSON object"),
        ("null", "is not a JSON object"),
        ("{}", "encoder format None"),
        ('{"format_version": 1}', "lacks input_dim, kind, metric, normalized"),
    ],
    ids=["broken", "deep", "list", "null", "empty", "bare"],
)
def test_metadata_that_is_no_description(flops_model, refused, text, words):
    set_metadata(flops_model, text)
    assert words in refused(flops_model)


@pytest.mark.parametrize("version", [0, 4, "1", None, True, 1.0])
def test_another_format_version_says_what_to_do(flops_model, refused, version):
    set_metadata(flops_model, json.dumps({**asdict(FLOPS), "format_version": version}))
    assert f"encoder format {version!r} and this Alula reads up to format 3; export it again" in refused(flops_model)


@pytest.mark.parametrize("name", ["kind", "metric", "input_dim", "normalized"])
def test_a_missing_field_is_named(flops_model, refused, name):
    fields = asdict(FLOPS)
    del fields[name]
    set_metadata(flops_model, json.dumps(fields))
    assert f"lacks {name}" in refused(flops_model)


@pytest.mark.parametrize(
    ("info", "name", "value"),
    [
        (FLOPS, "kind", "pq"),
        (FLOPS, "kind", ["flops"]),
        (FLOPS, "metric", "HAMMING"),
        (FLOPS, "metric", None),
        (FLOPS, "precision", "int4"),
        (FLOPS, "input_dim", 0),
        (FLOPS, "input_dim", -8),
        (FLOPS, "input_dim", 8.0),
        (FLOPS, "input_dim", "8"),
        (FLOPS, "input_dim", True),
        (FLOPS, "input_dim", 2**31 - 1),
        (FLOPS, "input_dim", 10**30),
        (FLOPS, "normalized", 1),
        (FLOPS, "normalized", "yes"),
        (FLOPS, "dim", 0),
        (FLOPS, "max_nnz", 0),
        (FLOPS, "max_nnz", 33),
        (FLOPS, "training", []),
        (FLOPS, "versions", "1.0"),
        (FLOPS, "parity", None),
        (DRQ, "scale", 0),
        (DRQ, "scale", -1.0),
        (DRQ, "scale", float("nan")),
        (DRQ, "scale", float("inf")),
        (DRQ, "scale", "2"),
        (DRQ, "levels", 0),
        (DRQ, "levels", 257),
        (DRQ, "sign_bits", 0),
        (DRQ, "sign_bits", 12),
        (DRQ, "sign_bits", -8),
    ],
)
def test_a_wrong_field_is_named(info, name, value):
    with pytest.raises(EncoderError, match=f"metadata is wrong.*{name}"):
        EncoderInfo.from_json(json.dumps({**asdict(info), name: value}))


def test_a_wrong_field_is_a_sentence_about_the_file(flops_model, refused):
    set_metadata(flops_model, json.dumps({**asdict(FLOPS), "metric": "HAMMING"}))
    assert "metric is 'HAMMING', not one of COSINE, IP, L2" in refused(flops_model)


# --- operators ------------------------------------------------------------------------------------------------------


def test_a_custom_operator(flops_model, refused):
    flops_model.graph.node[0].domain = "com.example"
    assert "com.example" in refused(flops_model)


def test_a_declared_custom_domain(flops_model, refused):
    flops_model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert "'com.microsoft'; only standard ONNX operators are allowed" in refused(flops_model)


def test_a_function_of_a_custom_domain(flops_model, refused):
    plain = helper.make_node("Identity", ["x"], ["y"])
    flops_model.functions.append(helper.make_function("mine", "F", ["x"], ["y"], [plain], []))
    assert "'mine'" in refused(flops_model)


# --- data outside the file ------------------------------------------------------------------------------------------


def as_initializer(model):
    model.graph.initializer.append(outside())


def as_sparse_initializer(model):
    indices = helper.make_tensor("indices", TensorProto.INT64, [4], [0, 1, 2, 3])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(outside(), indices, [8]))


def as_constant(model):
    model.graph.node.append(helper.make_node("Constant", [], ["y"], value=outside()))


def as_sparse_constant(model):
    indices = helper.make_tensor("indices", TensorProto.INT64, [4], [0, 1, 2, 3])
    sparse = helper.make_sparse_tensor(outside(), indices, [8])
    model.graph.node.append(helper.make_node("Constant", [], ["y"], sparse_value=sparse))


def as_list_attribute(model):
    model.graph.node.append(helper.make_node("Constant", [], ["y"], values=[outside()]))


def as_location_without_the_flag(model):
    tensor = outside()
    tensor.data_location = TensorProto.DEFAULT
    model.graph.initializer.append(tensor)


@pytest.mark.parametrize(
    "hide",
    [
        as_initializer,
        as_sparse_initializer,
        as_constant,
        as_sparse_constant,
        as_list_attribute,
        as_location_without_the_flag,
    ],
)
def test_a_tensor_outside_the_file_is_refused_wherever_it_is_hidden(flops_model, refused, hide):
    hide(flops_model)
    assert "its tensor 'secret' lies outside the file" in refused(flops_model)


def test_a_tensor_outside_the_file_is_refused_before_anything_is_read(tmp_path, flops_model):
    # a pipe that nobody writes to: opening it would never return
    import os

    os.mkfifo(tmp_path / "pipe")
    flops_model.graph.initializer.append(outside(location="pipe"))
    save(flops_model, tmp_path / "e.onnx")
    with pytest.raises(EncoderError, match="lies outside the file"):
        read_model(tmp_path / "e.onnx")


# --- inputs and outputs ---------------------------------------------------------------------------------------------


def test_an_extra_input(flops_model, refused):
    flops_model.graph.input.append(helper.make_tensor_value_info("temperature", TensorProto.FLOAT, [1]))
    assert "its inputs are ['temperature', 'vectors'], not ['vectors']" in refused(flops_model)


def test_an_input_of_another_name(flops_model, refused):
    flops_model.graph.input[0].name = "x"
    assert "its inputs are ['x']" in refused(flops_model)


def test_an_initializer_listed_as_input_is_no_input(flops_model, tmp_path):
    constant = flops_model.graph.initializer[0]
    flops_model.graph.input.append(helper.make_tensor_value_info(constant.name, constant.data_type, constant.dims))
    save(flops_model, tmp_path / "e.onnx")
    assert load_encoder(tmp_path / "e.onnx").kind == "flops"


@pytest.mark.parametrize(
    ("write", "name"),
    [(write_flops, name) for name in ("rows", "dims", "weights")]
    + [(write_drq, name) for name in ("codes", "norms", "signs", "lut", "query_signs")],
)
def test_a_missing_output_is_named(tmp_path, refused, write, name):
    model = onnx.load(write(tmp_path / "e.onnx").path)
    kept = [value for value in model.graph.output if value.name != name]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    assert f"lacks the output {name} of a " in refused(model)


def test_more_outputs_than_needed_do_no_harm(flops_model, tmp_path):
    flops_model.graph.node.append(helper.make_node("Identity", ["vectors"], ["copy"]))
    flops_model.graph.output.append(helper.make_tensor_value_info("copy", TensorProto.FLOAT, ["n", 8]))
    save(flops_model, tmp_path / "e.onnx")
    assert load_encoder(tmp_path / "e.onnx").kind == "flops"
