"""`--output` and `--annotation`: what they mean, and what is said of what they can't mean."""

from __future__ import annotations

import pytest

from limpet.build.outputs import grammar
from limpet.build.outputs.request import STORE, Annotation, Output
from limpet.errors import Invalid
from limpet.images.package import Form
from limpet.images.packing import Packing
from limpet.oci import reference
from limpet.oci.platform import Platform

APP = reference.parse("registry.example/app:1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("out", Output("local", dest="out")),
        ("-", Output("tar", dest="-")),
        ("type=local,dest=a b", Output("local", dest="a b")),
        ('"type=local","dest=a,b"', Output("local", dest="a,b")),
        ("TYPE=tar,Dest=x.tar,platform-split=false", Output("tar", dest="x.tar", split=False)),
        ("type=tar", Output("tar", dest="-")),
        ("type=oci", Output("oci", dest="-")),
        ("type=oci,dest=l,tar=false", Output("oci", dest="l", layout=True)),
        ("type=docker", Output("docker", keep=True)),
        ("type=cacheonly", Output("cacheonly")),
        ("type=docker,dest=d.tar", Output("docker", dest="d.tar")),
        ("type=image", Output("image", keep=True)),
        ("type=image,unpack=true,push=1,store=false", Output("image", push=True)),
        ("type=registry,name=registry.example/app:1", Output("image", push=True, names=(APP,))),
        ("type=image,push=true,push-by-digest=true", Output("image", keep=True, push=True, by_digest=True)),
        (
            'type=image,"name=registry.example/app:1,registry.example/app:1"',
            Output("image", keep=True, names=(APP, APP)),
        ),
        ("type=image,rewrite-timestamp=true", Output("image", keep=True)),
        (
            "type=oci,dest=x,compression=zstd,compression-level=19,force-compression=true",
            Output("oci", dest="x", form=Form(Packing("zstd", 19, anew=True, force=True))),
        ),
        (
            "type=image,oci-mediatypes=false",
            Output("image", keep=True, form=Form(Packing("gzip", 3, anew=True), docker=True)),
        ),
        (
            "type=image,annotation.Some.Key=v=1,annotation-index.k=w,annotation-manifest[linux/arm64].k=x",
            Output(
                "image",
                keep=True,
                annotations=(
                    Annotation("manifest", "Some.Key", "v=1"),
                    Annotation("index", "k", "w"),
                    Annotation("manifest", "k", "x", Platform("linux", "arm64")),
                ),
            ),
        ),
    ],
)
def test_an_output(text: str, expected: Output) -> None:
    made = grammar.output(text)
    assert made.text == text
    for name in Output.__slots__:
        if name != "text":
            assert getattr(made, name) == getattr(expected, name), name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dest=x", "type is required"),
        ("type=loca,dest=x", "unknown type 'loca'; did you mean local?"),
        ("type=local", "dest is required"),
        ("type=local,dest=-", "a directory can't go to standard output; type=tar,dest=- is a tar of it"),
        ("type=local,dest", "'dest' is not KEY=VALUE"),
        ('"type=local', "a value with a comma is put in quotes"),
        ("type=local,dest=x,compression=gzip", "type=local has no option 'compression'; type=image has it"),
        ("type=docker,dest=x,compression=zstd", "type=docker has no option 'compression'"),
        ("type=oci,dest=x,dst=y", "type=oci has no option 'dst'; did you mean dest?"),
        ("type=cacheonly,dest=x", "type=cacheonly has no option 'dest'"),
        ("type=oci,tar=false", "dest is required for a directory"),
        ("type=oci,dest=x,tar=no", "tar=no is neither true nor false"),
        ("type=image,name-canonical=true", "name-canonical is not supported"),
        ("type=image,registry.insecure=true", "registry.insecure is not supported"),
        ("type=image,rewrite-timestamp=false", "rewrite-timestamp=false: times are always"),
        ("type=image,push-by-digest=true", "push-by-digest needs push=true"),
        ("type=image,compression=lz4", "unknown compression 'lz4'; gzip, zstd and uncompressed are known"),
        ("type=image,compression=estargz", "can't be written as estargz yet"),
        ("type=image,compression-level=99", "gzip has no compression level 99"),
        ("type=image,compression-level=x", "compression-level=x is no number"),
        ("type=image,compression=uncompressed,compression-level=3", "no compression level"),
        ("type=image,compression=zstd,oci-mediatypes=false", "zstd has no media type of Docker's"),
        ("type=tar,dest=x,annotation.a=b", "type=tar has no place for annotations"),
        ("type=image,annotation-indx.a=b", "unknown place 'indx'; did you mean index?"),
        ("type=image,annotation=b", "names no annotation"),
        ("type=image,name=UPPER", "UPPER"),
    ],
)
def test_what_an_output_is_not(text: str, message: str) -> None:
    with pytest.raises(Invalid) as error:
        grammar.output(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=b", [Annotation("manifest", "a", "b")]),
        ("org.example:x=b:c=d", [Annotation("manifest", "org.example:x", "b:c=d")]),
        ("index,manifest:a=", [Annotation("index", "a", ""), Annotation("manifest", "a", "")]),
        (
            "manifest-descriptor[linux/arm/v7]:a=b",
            [Annotation("manifest-descriptor", "a", "b", Platform("linux", "arm", "v7"))],
        ),
    ],
)
def test_an_annotation(text: str, expected: list[Annotation]) -> None:
    assert grammar.annotation(text) == expected


@pytest.mark.parametrize("text", ["a", "=b", "indx:a=b", "index[linux/arm64]:a=b", "manifest[/]:a=b"])
def test_what_an_annotation_is_not(text: str) -> None:
    with pytest.raises(Invalid, match="--annotation"):
        grammar.annotation(text)


def test_push_and_load() -> None:
    name = ["registry.example/app:1"]
    assert grammar.wanted([], [], []).outputs == (STORE,)
    (pushed,) = grammar.wanted(name, [], [], push=True).outputs
    assert (pushed.push, pushed.keep) == (True, False)
    (both,) = grammar.wanted(name, ["type=image"], [], push=True).outputs
    assert (both.push, both.keep) == (True, True)
    assert [each.keep for each in grammar.wanted(name, ["out"], [], push=True, load=True).outputs] == [
        False,
        False,
        True,
    ]
    assert grammar.wanted(name, ["type=docker"], [], load=True).outputs == (grammar.output("type=docker"),)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], ["type=registry"], []), "a name is needed to push"),
        (([], ["type=tar", "type=oci"], []), "several outputs would go to standard output"),
        (([], ["out"], ["a=b"]), "no output has a place for it"),
        ((["a@sha256:" + "0" * 64], [], []), "has a digest"),
    ],
)
def test_what_can_not_be_asked_for(arguments: tuple[list[str], list[str], list[str]], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        grammar.wanted(*arguments)
