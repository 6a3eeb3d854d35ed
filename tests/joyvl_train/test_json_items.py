"""Items of long JSON files, one by one, whatever stands between them."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joyvl_train import json_items as json_items_module
from joyvl_train.config import UserError
from joyvl_train.json_items import json_items, json_members


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def items(path: Path) -> list:
    return [item.error.reason if item.error else item.data for item in json_items(path)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[]", []),
        (' [ {"a": 1} , {"b": "]}\\""} ] \n', [{"a": 1}, {"b": ']}"'}]),
        ('\ufeff[{"a": 1}]', [{"a": 1}]),
        ('{"a": 1}\n\n{"b": 2}', [{"a": 1}, {"b": 2}]),
        ('{\n "a": [1,\n 2]\n}\n', [{"a": [1, 2]}]),
        ('{\n"a": 1}\n{"b":\n2}', [{"a": 1}, {"b": 2}]),
        ('[{"a": 1}, {oops}, {"b": 2}]', [{"a": 1}, "not JSON", {"b": 2}]),
        ('[{"a": 1}, oops, 5, {"b": 2}]', [{"a": 1}, "not JSON", 5, {"b": 2}]),
        ('{"a": 1}\n{oops\n{"b": 2}\n', [{"a": 1}, "not JSON", {"b": 2}]),
        ('{oops}\n{"b": 2}\n', ["not JSON", {"b": 2}]),
        ('[{"a": 1}, {"b": "cut', [{"a": 1}, "cut off"]),
        ('[{"a": 1},', [{"a": 1}, "cut off"]),
        ('[{"a": 1}] {"b": 2}', [{"a": 1}, "not JSON"]),
        (b'[{"a": "\xff"}, {"b": 2}]', ["not UTF-8", {"b": 2}]),
        ('[{"a": ' + "[" * 100_000 + "]" * 100_000 + "}, 3]", ["nested too deeply", 3]),
    ],
)
def test_items_are_found_one_by_one(tmp_path, text, wanted):
    assert items(write(tmp_path / "x.json", text)) == wanted


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=5),
            st.recursive(
                st.none() | st.integers() | st.text(max_size=8),
                lambda inner: st.lists(inner, max_size=3),
                max_leaves=6,
            ),
            max_size=3,
        ),
        max_size=8,
    ),
    st.integers(1, 9),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_any_list_is_read_whatever_the_size_of_the_buffer(
    tmp_path_factory, records, chunk, indent, ascii
):
    path = tmp_path_factory.mktemp("json") / "x.json"
    text = json.dumps(records, indent=indent, ensure_ascii=ascii)
    path.write_bytes(text.encode("utf-8", "replace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_items_module, "_CHUNK", chunk)
        found = list(json_items(path))
    data = path.read_bytes()
    assert [item.data for item in found] == json.loads(data)
    for item in found:
        assert json.loads(data[item.offset : item.offset + item.length]) == item.data


def test_items_without_an_end_are_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(json_items_module, "MAX_ITEM_BYTES", 1000)
    monkeypatch.setattr(json_items_module, "_CHUNK", 100)
    many = '"' + "x" * 5000 + '"'
    assert items(write(tmp_path / "a.json", f'[{{"a": 1}}, {{"b": {many}}}]')) == [
        {"a": 1},
        "too large",
    ]
    lines = f'{{"a": 1}}\n{{"b": {many}}}\n{{"c": 3}}\n'
    assert items(write(tmp_path / "b.jsonl", lines)) == [{"a": 1}, "too large", {"c": 3}]


@pytest.mark.parametrize("text", ["", "hello", "\x00\x01", "5", b"\xff\xfe[\x00]\x00"])
def test_files_of_another_kind_are_a_users_error(tmp_path, text):
    with pytest.raises(UserError, match="neither a JSON list nor JSON lines"):
        list(json_items(write(tmp_path / "x.json", text)))


def test_a_missing_file_is_a_users_error(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        list(json_items(tmp_path / "gone.json"))


# Members of an object.


def members(tmp_path: Path, text: str | bytes) -> list[tuple]:
    path = tmp_path / "members.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return [
        (name, None if item.error is None else item.error.reason, item.data)
        for name, item in json_members(path)
    ]


keys = st.text(max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(keys, json_values, max_size=6), st.sampled_from([None, 1]))
def test_members_are_those_of_the_object(tmp_path_factory, data, indent):
    text = json.dumps(data, indent=indent)
    found = members(tmp_path_factory.mktemp("x"), text)
    assert [(name, value) for name, _, value in found] == list(data.items())


def test_members_of_one_name_and_of_several_objects_are_all_there(tmp_path):
    text = '\ufeff{"a": 1, "a": [2]}\n{"b": {"c": "}"}} {}'
    assert members(tmp_path, text) == [("a", None, 1), ("a", None, [2]), ("b", None, {"c": "}"})]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1, "b": [1, 2', [("a", None), ("b", "cut off")]),
        ('{"a": 1, "b', [("a", None), ("", "cut off")]),
        ('{"a": 1, "b"', [("a", None), ("", "not JSON")]),
        ('{"a": 1, "b":', [("a", None), ("b", "cut off")]),
        ('{"a": 1, "b" 2}', [("a", None), ("b", "not JSON")]),
        ('{"a": 1', [("a", None), ("", "cut off")]),
        ('{"a": tru, "b": 2}', [("a", "not JSON"), ("b", None)]),
        ('{"a": 1} x', [("a", None), ("", "not JSON")]),
        ('{1: 2, "a": 3}', [("", "not JSON")]),
        (
            '{"a": ' + "[" * 100_000 + "]" * 100_000 + ', "b": 2}',
            [("a", "nested too deeply"), ("b", None)],
        ),
        (b'{"a": "\xff", "b": 2}', [("a", "not UTF-8"), ("b", None)]),
    ],
)
def test_broken_members_are_told_by_name(tmp_path, text, found):
    assert [(name, reason) for name, reason, _ in members(tmp_path, text)] == found


def test_what_is_no_object_is_told_in_a_line(tmp_path):
    with pytest.raises(UserError, match="no JSON object"):
        members(tmp_path, "[1]")
    with pytest.raises(UserError, match="can't be read"):
        list(json_members(tmp_path / "none.json"))


def test_long_objects_are_read_a_member_at_a_time(tmp_path):
    path = tmp_path / "big.json"
    with path.open("w") as file:
        file.write("{" + ",".join(f'"v{n}": "{"x" * 10_000}"' for n in range(2000)) + "}")
    tracemalloc.start()
    assert sum(1 for _ in json_members(path)) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000
