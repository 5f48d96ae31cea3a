from __future__ import annotations

from pathlib import Path

import pytest

from face_encode.errors import GalleryError, InputError
from face_encode.gallery.milvus_places import TOKEN_VARIABLE, is_milvus, milvus_place


def test_which_names_are_milvus() -> None:
    for uri in ("people.db", Path("a/people.db"), "http://host", "https://host:19530/x#y"):
        assert is_milvus(uri)
    for uri in ("people.npz", Path("people"), "people", ":memory:", Path("http:/x")):
        assert not is_milvus(uri)
    with pytest.raises(InputError, match="a path is"):
        is_milvus("")
    for uri in ("ftp://me:sesame@host", "s3://bucket/people.db", "://x"):
        with pytest.raises(GalleryError, match="begins with http:// or") as raised:
            is_milvus(uri)
        assert "sesame" not in str(raised.value)


def test_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    place = milvus_place(Path("people.db"))
    assert (place.path, place.address, place.token) == (Path("people.db"), "", "")
    assert (place.label, place.collection) == ("people.db", "face_encode")
    assert milvus_place("people.db", collection="staff").label == "people.db#staff"


@pytest.mark.parametrize(
    ("uri", "address", "collection", "token"),
    [
        ("http://host:19530", "http://host:19530", "face_encode", ""),
        ("https://host", "https://host", "face_encode", ""),
        ("http://host:1/door#staff", "http://host:1/door", "staff", ""),
        ("http://root:sesame@host:1", "http://host:1", "face_encode", "root:sesame"),
        ("http://key@host:1/door#a", "http://host:1/door", "a", "key"),
        ("http://[::1]:19530", "http://[::1]:19530", "face_encode", ""),
    ],
)
def test_an_address(
    uri: str, address: str, collection: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    place = milvus_place(uri)
    assert (place.address, place.collection, place.token) == (address, collection, token)
    assert place.path is None
    for secret in ("sesame", "key"):
        assert secret not in place.label
        assert secret not in repr(place)


def test_what_is_given_comes_before_what_is_in_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "from the environment")
    assert milvus_place("http://host").token == "from the environment"
    assert milvus_place("http://a:b@host").token == "a:b"
    place = milvus_place("http://a:b@host#one", "given", "two")
    assert (place.token, place.collection, place.label) == ("given", "two", "http://host#two")


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("http://", "without a host"),
        ("http://host:port", "Port could not be cast"),
        ("http://host:99999", "out of range"),
        ("http://host#a-b", "letters, digits and underscores"),
        ("http://host#1a", "no digit"),
        ("http://host#" + "a" * 256, "up to 255"),
    ],
)
def test_what_is_no_address_is_refused(uri: str, told: str) -> None:
    with pytest.raises(GalleryError, match=told):
        milvus_place(uri)
