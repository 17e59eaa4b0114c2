"""Bake files: variables, functions, matrices, references, what inherits what; in HCL, JSON and Compose's YAML."""

from __future__ import annotations

import json
from typing import Any

import pytest

from limpet.build.attest.request import Attests, Provenance
from limpet.build.bake import compose, overrides, selection, show
from limpet.build.bake.definition import Definition, define, parse
from limpet.build.bake.run import request
from limpet.errors import Invalid, LimpetError

BUILTINS = {"BAKE_CMD_CONTEXT": "cwd://", "BAKE_LOCAL_PLATFORM": "linux/amd64"}


def defined(*texts: str, environment: dict[str, str] | None = None) -> Definition:
    """HCL, JSON if it begins with a brace, Compose if it has services."""
    found = Definition()
    names = ["t.json" if text.lstrip().startswith("{") else "t.hcl" for text in texts]
    define([parse(text, name) for name, text in zip(names, texts, strict=True)], found, environment or {}, BUILTINS)
    return found


def printed(found: Definition, *targets: str, changes: tuple[str, ...] = ()) -> Any:
    return json.loads(show.to_json(selection.select(found, targets, overrides.parse(changes, {"FROM_ENV": "env"}))))


def test_the_examples_of_the_reference_print_as_they_do_there() -> None:
    """docs/bake-reference.md of docker/buildx."""
    text = """
    group "default" {
      targets = ["db", "webapp-dev"]
    }
    target "webapp-dev" {
      dockerfile = "Dockerfile.webapp"
      tags = ["docker.io/username/webapp:latest"]
    }
    target "webapp-release" {
      inherits = ["webapp-dev"]
      platforms = ["linux/amd64", "linux/arm64"]
    }
    target "db" {
      dockerfile = "Dockerfile.db"
      tags = ["docker.io/username/db"]
    }
    """
    whole = printed(defined(text), "webapp-release", "db")
    assert whole == {
        "group": {"default": {"targets": ["db", "webapp-release"]}},
        "target": {
            "db": {"context": ".", "dockerfile": "Dockerfile.db", "tags": ["docker.io/username/db"]},
            "webapp-release": {
                "context": ".",
                "dockerfile": "Dockerfile.webapp",
                "tags": ["docker.io/username/webapp:latest"],
                "platforms": ["linux/amd64", "linux/arm64"],
            },
        },
    }
    assert list(printed(defined(text))["target"]) == ["db", "webapp-dev"]


def test_a_matrix_is_a_group_of_its_targets() -> None:
    text = """
    target "app" {
      name = "app-${tgt}-${replace(version, ".", "-")}"
      matrix = { tgt = ["lint", "build"], version = ["1.0", "2.0"] }
      target = tgt
      args = { VERSION = version }
    }
    """
    whole = printed(defined(text), "app")
    names = ["app-build-1-0", "app-build-2-0", "app-lint-1-0", "app-lint-2-0"]
    assert sorted(whole["target"]) == names
    assert sorted(whole["group"]["app"]["targets"]) == names
    assert whole["target"]["app-build-2-0"]["args"] == {"VERSION": "2.0"}
    assert sorted(printed(defined(text), "app-lint-*")["target"]) == names[2:]


@pytest.mark.parametrize(
    ("body", "environment", "value"),
    [
        ("", {}, ""),
        ('default = "a"', {}, "a"),
        ('default = "a"', {"V": "b"}, "b"),
        ("default = 3", {"V": "4"}, 4),
        ("default = true", {"V": "0"}, False),
        ("default = null", {"V": "x"}, "x"),
        ("type = number", {"V": "7"}, 7),
        ("type = string", {}, None),
        ('type = list(string)\ndefault = ["a"]', {"V": 'b,"c,d"'}, ["b", "c,d"]),
        ("type = list(number)", {"V_JSON": "[1, 2]"}, [1, 2]),
        ("type = object({a = string})", {"V_JSON": '{"a": "x"}', "V": "no"}, {"a": "x"}),
        ("type = any\ndefault = [1]", {}, [1]),
    ],
)
def test_a_variable_has_its_default_or_what_the_environment_says(
    body: str, environment: dict[str, str], value: Any
) -> None:
    text = f'variable "V" {{\n{body}\n}}\ntarget "t" {{ args = {{ v = jsonencode(V) }} }}'
    found = defined(text, environment=environment)
    assert json.loads(found.targets["t"]["args"]["v"]) == value


@pytest.mark.parametrize(
    ("text", "environment", "said"),
    [
        ('variable "V" { default = 3 }', {"V": "x"}, "V of the environment: 'x' is not a number"),
        ('variable "V" { default = [1] }', {"V": "x"}, "give the variable a type"),
        ('variable "V" { type = map(string) }', {"V": "x"}, "give it as JSON, in NAME_JSON"),
        ('variable "V" {\n type = number\n default = "x"\n}', {}, "default of V: 'x' is not a number"),
        ('variable "V" {\n default = W\n}\nvariable "W" {\n default = V\n}', {}, "needs itself"),
        (
            'variable "V" {\n validation {\n condition = V != ""\n error_message = "V is needed"\n }\n}',
            {},
            "t.hcl:3:2: validation failed: V is needed",
        ),
        ('target "t" { dockerfil = "x" }', {}, "did you mean dockerfile?"),
        ('traget "t" {}', {}, "did you mean target?"),
        ('target "a b" {}', {}, "letters, digits, _ and -"),
        ('target "t" {\n tags = 3\n}', {}, "t.hcl:2:2: tags: number where a list is needed"),
        ('target "t" {\n name = "x"\n}', {}, "name needs a matrix"),
        ('target "t" {\n args = { a = target.u.target }\n}', {}, "no target 'u' in the files"),
        ('function "f" {\n params = [a]\n result = f(a)\n}\ntarget "t" { args = { x = f(1) } }', {}, "too many levels"),
        ('{"target": {"t": {"tags": 3}}}', {}, "tags: number"),
        ('{"target": {"t": ', {}, "not JSON"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_place(text: str, environment: dict[str, str], said: str) -> None:
    with pytest.raises(LimpetError) as error:
        defined(text, environment=environment)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_references_functions_and_attributes_in_any_order() -> None:
    text = """
    target "b" {
      dockerfile = target.a.dockerfile
      args = merge(target.a.args, { own = join("+", all("x", "y")), up = shout })
      labels = { from = "${target["a"].name}" }
    }
    shout = upper(word)
    word = "hello"
    function "all" {
      params = [first]
      variadic_params = rest
      result = concat([first], rest)
    }
    target "a" {
      dockerfile = "A"
      args = { one = "1", gone = null }
    }
    """
    whole = printed(defined(text), "b")["target"]["b"]
    assert whole["dockerfile"] == "A"
    assert whole["args"] == {"one": "1", "own": "x+y", "up": "HELLO"}
    assert whole["labels"] == {"from": "a"}


def test_several_files_complete_each_other_and_json_has_templates() -> None:
    first = 'variable "V" { default = "1" }\ntarget "t" {\n tags = ["a"]\n args = { x = "1", y = "1" }\n}'
    second = '{"variable": {"V": {"default": "2"}}, "target": {"t": {"args": {"y": "v${V}"}, "cache-from": ["r/c"]}}}'
    third = 'target "t" {\n cache-from = [{type = "local", src = "d"}, "type=registry,ref=r/c"]\n tags = ["b"]\n}'
    whole = printed(defined(first, second, third), "t")["target"]["t"]
    assert whole["args"] == {"x": "1", "y": "v2"}
    assert whole["tags"] == ["b"]
    assert whole["cache-from"] == [{"ref": "r/c", "type": "registry"}, {"src": "d", "type": "local"}]


def test_what_is_inherited_is_added_to_or_replaced() -> None:
    text = """
    target "one" {
      args = { a = "1", b = "1" }
      tags = ["one"]
      platforms = ["linux/amd64"]
      secret = ["id=s,src=f"]
      no-cache-filter = ["x"]
    }
    target "two" { args = { b = "2" } }
    target "t" {
      inherits = ["one", "two"]
      platforms = ["linux/arm64"]
      secret = [{ id = "t", env = "T" }]
      no-cache-filter = ["y"]
      network = "host"
    }
    """
    whole = printed(defined(text), "t")["target"]["t"]
    assert whole["args"] == {"a": "1", "b": "2"}
    assert whole["tags"] == ["one"]
    assert whole["platforms"] == ["linux/arm64"]
    assert whole["secret"] == [{"id": "s", "src": "f"}, {"id": "t", "env": "T"}]
    assert whole["no-cache-filter"] == ["x", "y"]
    assert whole["entitlements"] == ["network.host"]
    with pytest.raises(LimpetError, match="inherits itself"):
        printed(defined('target "a" { inherits = ["b"] }\ntarget "b" { inherits = ["a"] }'), "a")


def test_the_last_attestation_of_a_type_counts() -> None:
    text = 'target "t" { attest = ["type=provenance,mode=min", "type=sbom", { type = "provenance", mode = "max" }] }'
    expected = [{"mode": "max", "type": "provenance"}, {"type": "sbom"}]
    assert printed(defined(text), "t")["target"]["t"]["attest"] == expected
    off = printed(defined(text), "t", changes=("*.attest=type=sbom,disabled=true",))
    assert off["target"]["t"]["attest"][1] == {"disabled": True, "type": "sbom"}


def test_set_changes_what_it_fits() -> None:
    text = 'target "a" {\n tags = ["x"]\n output = ["type=local,dest=o"]\n}\ntarget "b" {}\ntarget "ab" {}'
    group = 'group "default" { targets = ["a", "b", "ab"] }'
    changes = (
        "a*.args.V=1",
        "b.args.FROM_ENV",
        "b.args.UNSET",
        "a.tags+=y",
        "*.platform=linux/arm64",
        "*.platform=linux/amd64",
        "b.tags=z",
        "*.push=true",
        "ab.load=true",
        "ab.no-cache=true",
        "b.contexts.lib=../lib",
        "b.secret.tok=env=TOK",
        "b.target=release",
    )
    whole = printed(defined(text, group), changes=changes)["target"]
    assert whole["a"]["args"] == whole["ab"]["args"] == {"V": "1"}
    assert whole["b"]["args"] == {"FROM_ENV": "env"}
    assert whole["a"]["tags"] == ["x", "y"]
    assert whole["b"]["tags"] == ["z"]
    assert whole["a"]["platforms"] == ["linux/arm64", "linux/amd64"]
    assert whole["a"]["output"] == [{"dest": "o", "type": "local"}]
    assert whole["b"]["output"] == [{"push": "true", "type": "image"}]
    assert whole["ab"]["output"] == [{"push": "true", "type": "image"}, {"type": "docker"}]
    assert whole["ab"]["no-cache"] is True
    assert whole["b"]["contexts"] == {"lib": "../lib"}
    assert whole["b"]["secret"] == [{"id": "tok", "env": "TOK"}]
    for change, said in (
        ("c.target=x", "no target 'c'"),
        ("a.tag=x", "did you mean tags?"),
        ("a.args=x", "args needs a name"),
        ("a.pull=maybe", "true or false"),
        ("target", "it needs a target and a key"),
    ):
        with pytest.raises(LimpetError, match=said.replace("?", r"\?")):
            printed(defined(text, group), changes=(change,))


def test_contexts_that_are_targets_come_along() -> None:
    text = """
    target "base" { output = ["type=local,dest=o"] }
    target "app" {
      contexts = { base = "target:base", src = "./src", none = "" }
    }
    """
    selected = selection.select(defined(text), ["app"], [])
    assert selected.ordered() == ["base", "app"]
    assert selected.linked == {"base"}
    assert selected.targets["base"]["output"] == [{"type": "cacheonly"}]
    assert request("app", selected.targets["app"]).contexts == {"base": "target:base", "src": "src"}
    with pytest.raises(LimpetError, match="needs itself"):
        selection.select(defined('target "a" { contexts = { b = "target:a" } }'), ["a"], [])


COMPOSE = """
services:
  web.app:
    image: reg/web:${TAG:-latest}
    build:
      context: ./dir
      dockerfile: Dockerfile.web
      args: {A: "1", FROM_ENV: , MISSING: }
      additional_contexts: {lib: "service:lib", other: ../other}
      secrets: [token]
      ssh: [default]
      cache_from: ["type=local,src=c", reg/cache]
      provenance: mode=max
      entitlements: [network.host]
      no_cache_filter: [b]
      ulimits: {nproc: 100, nofile: {soft: 20, hard: 40}}
      x-bake:
        tags: [reg/web:extra]
        platforms: linux/amd64 linux/arm64
        no-cache-filter: a
  lib: {build: "./lib$$dir"}
  db: {image: postgres}
secrets:
  token: {environment: TOKEN}
"""


def test_compose_services_are_targets() -> None:
    found = Definition()
    more = "services: {lib: {build: {target: last}}}"
    compose.define([("compose.yaml", COMPOSE), ("o.yaml", more)], found, {"TAG": "7", "FROM_ENV": "e"})
    assert found.groups["default"].targets == ("web_app", "lib")
    whole = printed(found)["target"]
    assert whole["lib"] == {"context": "./lib$dir", "dockerfile": "Dockerfile", "target": "last"}
    assert whole["web_app"] == {
        "attest": [{"mode": "max", "type": "provenance"}],
        "context": "./dir",
        "contexts": {"lib": "target:lib", "other": "../other"},
        "dockerfile": "Dockerfile.web",
        "args": {"A": "1", "FROM_ENV": "e"},
        "tags": ["reg/web:7", "reg/web:extra"],
        "cache-from": [{"src": "c", "type": "local"}, {"ref": "reg/cache", "type": "registry"}],
        "secret": [{"id": "token", "env": "TOKEN"}],
        "ssh": [{"id": "default"}],
        "platforms": ["linux/amd64", "linux/arm64"],
        "no-cache-filter": ["b", "a"],
        "ulimits": ["nproc=100", "nofile=20:40"],
        "entitlements": ["network.host"],
    }
    printed(found, "web.app")  # the service's own name, too


@pytest.mark.parametrize(
    ("build", "said"),
    [
        ("{contxt: .}", "unknown key 'contxt', did you mean context?"),
        ("{colour: red}", "unknown key 'colour'$"),
        ("{ulimits: {nofile: {soft: 1}}}", "ulimits: nofile needs soft and hard"),
        ("{ulimits: 5}", "number where an object is needed"),
        ("{x-mine: 1, privileged: true, context: [.]}", "a text is needed"),
    ],
)
def test_compose_mistakes(build: str, said: str) -> None:
    with pytest.raises(Invalid, match=rf"compose.yaml: services.app.build: {said}") as caught:
        compose.define([("compose.yaml", f"services: {{app: {{build: {build}}}}}")], Definition(), {})
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A-${A}", "a-a"),
        ("${X:-b}${E:-c}${E-d}", "bc"),
        ("${X:+b}${A:+${A}!}", "a!"),
        ("$$A", "$A"),
        ("${X:-${Y:-${A}}}", "a"),
    ],
)
def test_compose_interpolation(text: str, value: str) -> None:
    assert compose.interpolate(text, {"A": "a", "E": ""}) == value


def test_compose_interpolation_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="the variable X is needed: for this"):
        compose.interpolate("${X:?for this}", {})
    with pytest.raises(ValueError, match="without its }"):
        compose.interpolate("${X", {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('context = "-"', "standard input"),
        ('call = "outline"', "call=outline"),
    ],
)
def test_what_a_build_has_not_is_refused_by_name(text: str, said: str) -> None:
    selected = selection.select(defined(f'target "t" {{ {text} }}'), ["t"], [])
    with pytest.raises(LimpetError, match=said):
        request("t", selected.targets["t"])


def test_a_target_becomes_the_options_of_a_build() -> None:
    text = """
    target "t" {
      context = "dir"
      dockerfile = "sub/Dockerfile"
      output = [{ type = "local", dest = "a,b" }, "type=cacheonly"]
      ssh = ["default", "key=/path"]
      attest = ["type=provenance,disabled=true"]
      platforms = ["linux/amd64", "linux/arm64"]
    }
    """
    found = request("t", selection.select(defined(text), ["t"], []).targets["t"])
    assert (found.directory, found.file) == ("dir", "dir/sub/Dockerfile")
    assert found.outputs == ('type=local,"dest=a,b"',)
    assert found.agents == ("default", "key=/path")
    assert found.platform == "linux/amd64,linux/arm64"
    assert found.attests == Attests()
    text = text.replace('"type=provenance,disabled=true"', '{ type = "provenance", mode = "min" }, "type=sbom"')
    found = request("t", selection.select(defined(text), ["t"], []).targets["t"])
    assert found.attests == Attests(True, Provenance("min"))
