"""A Dockerfile to a plan: stages, variables, and what each instruction comes to."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.build.language.dockerfile import parse
from limpet.build.language.program import program
from limpet.build.planning import graph, plan, planner
from limpet.build.planning.planner import Base, Request
from limpet.errors import Invalid, LimpetError, NotFound

PLATFORM = {"os": "linux", "architecture": "amd64"}


def bases(name: str, platform: str) -> Base:
    """`base` has an environment, `trigger` has ONBUILD, nothing else is there."""
    if name == "base":
        inner: dict[str, Any] = {"Env": ["PATH=/bin", "FROM_BASE=yes"], "Cmd": ["base-command"], "WorkingDir": "/home"}
    elif name == "trigger":
        inner = {"OnBuild": ["COPY --from=tools /tool /usr/bin/", "ENV TRIGGERED=1"]}
    else:
        raise NotFound(f"{name}: not found", "")
    return Base(f"sha256:{name}", {**PLATFORM, "config": inner})


def make(text: str, target: str = "", arguments: dict[str, str] | None = None, platform: str = "") -> plan.Plan:
    request = Request(target, arguments or {}, platform)
    return planner.make(program(parse(text)), bases, request)


def stage(text: str, **options: Any) -> plan.Stage:
    return make("FROM base\n" + text, **options).target


def copies(text: str) -> list[plan.Copy]:
    return [step for step in stage(text).steps if isinstance(step, plan.Copy)]


def runs(text: str, **options: Any) -> list[plan.Run]:
    return [step for step in stage(text, **options).steps if isinstance(step, plan.Run)]


def test_only_the_stages_that_the_target_needs() -> None:
    text = (
        "FROM base AS tools\nRUN tools\n"
        "FROM unknown AS unused\nRUN unused\n"
        "FROM base AS assets\nRUN assets\n"
        "FROM tools AS app\nCOPY --from=assets /a /a\n"
        "RUN --mount=from=assets,target=/x true\nCOPY --from=base:1 /b /b\n"
        "FROM app\n"
    )
    made = make(text)
    assert [each.number for each in made.stages] == [0, 2, 3, 4]
    assert [each.base.kind for each in made.stages] == ["image", "image", "stage", "stage"]
    app = made.stage(3)
    origins = [step.origin for step in app.steps if isinstance(step, plan.Copy)]
    assert [(each.kind, each.stage, each.image) for each in origins] == [("stage", 2, ""), ("image", -1, "base:1")]
    assert [each.title for each in make(text, "tools").stages] == ["tools"]
    assert [each.title for each in make(text, "ASSETS").stages] == ["assets"]
    assert [each.title for each in make(text, "0").stages] == ["tools"]
    with pytest.raises(NotFound, match=r"Dockerfile:3:6: unknown: not found"):
        make(text, "unused")


def test_arguments_of_the_global_scope_reach_from_and_by_name_a_stage() -> None:
    text = "ARG NAME=ba\nARG FULL=${NAME}se\nFROM $FULL\nARG NAME\nARG FULL=own\nENV A=$NAME-$FULL-$MISSING"
    made = make(text).target
    assert made.base.image == "base"
    assert made.config["Env"][-1] == "A=ba-own-"
    given = make(text, arguments={"FULL": "base", "NAME": "x"}).target
    assert given.config["Env"][-1] == "A=x-base-"


def test_the_last_of_env_and_arg_wins_and_only_env_stays() -> None:
    made = stage("ENV A=env\nARG A=arg\nRUN one\nENV A=again\nRUN two\nARG B=b\nRUN three", arguments={"A": "given"})
    environments = [dict(step.env) for step in made.steps if isinstance(step, plan.Run)]
    assert [each["A"] for each in environments] == ["given", "again", "again"]
    assert "B" in environments[2]
    assert made.config["Env"] == ["PATH=/bin", "FROM_BASE=yes", "A=again"]


def test_children_inherit_the_arguments_of_their_base_stage() -> None:
    made = make("FROM base AS a\nARG X=1\nENV Y=2\nFROM a\nRUN true\n")
    [run] = [step for step in made.target.steps if isinstance(step, plan.Run)]
    assert dict(run.env)["X"] == "1"
    assert run.created_by == "RUN |1 X=1 /bin/sh -c true"


def test_platform_arguments() -> None:
    text = (
        "FROM --platform=$BUILDPLATFORM base AS a\n"
        "ARG TARGETPLATFORM TARGETARCH TARGETVARIANT BUILDPLATFORM TARGETSTAGE\n"
        "LABEL at=$TARGETPLATFORM/$TARGETARCH/$TARGETVARIANT/$TARGETSTAGE\nENV U=$TARGETOS"
    )
    made = make(text, platform="linux/arm/v6").target
    assert made.config["Labels"] == {"at": "linux/arm/v6/arm/v6/a"}
    assert made.config["Env"][-1] == "U="
    assert make(text, platform="linux/arm/v6").platform == "linux/arm/v6"


def test_proxies_reach_run_and_nothing_else() -> None:
    [run] = runs("RUN x", arguments={"http_proxy": "http://p", "UNUSED": "1"})
    assert run.proxies == (("HTTP_PROXY", "http://p"), ("http_proxy", "http://p"))
    assert "http" not in str(run.env) + run.created_by


def test_the_config_of_each_instruction() -> None:
    made = stage(
        "LABEL a=1 b='two words'\nENV OLD style $FROM_BASE\nWORKDIR sub\nWORKDIR /abs\nWORKDIR ../up\nUSER me:us\n"
        'VOLUME /v1 /v2\nVOLUME ["/v 3"]\nEXPOSE 80 53/UDP 90-92 127.0.0.1:1:2\nSTOPSIGNAL SIGINT\n'
        'HEALTHCHECK --interval=5s --retries=2 CMD x y\nSHELL ["/bin/bash", "-ec"]\nONBUILD RUN z\n'
        'MAINTAINER Me <me@example.org>\nENTRYPOINT ["e"]\nCMD c d'
    )
    assert made.config == {
        "Cmd": ["/bin/bash", "-ec", "c d"],
        "Entrypoint": ["e"],
        "Env": ["PATH=/bin", "FROM_BASE=yes", "OLD=style yes"],
        "ExposedPorts": {port: {} for port in ("80/tcp", "53/udp", "90/tcp", "91/tcp", "92/tcp", "2/tcp")},
        "Healthcheck": {"Test": ["CMD-SHELL", "x y"], "Interval": 5 * 10**9, "Retries": 2},
        "Labels": {"a": "1", "b": "two words"},
        "OnBuild": ["RUN z"],
        "Shell": ["/bin/bash", "-ec"],
        "StopSignal": "SIGINT",
        "User": "me:us",
        "Volumes": {"/v1": {}, "/v2": {}, "/v 3": {}},
        "WorkingDir": "/up",
    }
    assert made.author == "Me <me@example.org>"
    directories = [(step.path, step.user) for step in made.steps if isinstance(step, plan.Directory)]
    assert directories == [("/home/sub", ""), ("/abs", ""), ("/up", "")]


def test_an_entry_point_forgets_the_command_of_the_base() -> None:
    assert "Cmd" not in stage('ENTRYPOINT ["x"]').config
    assert stage('CMD ["y"]\nENTRYPOINT ["x"]').config["Cmd"] == ["y"]
    assert stage("").config["Cmd"] == ["base-command"]


def test_commands_and_heredocs_of_run() -> None:
    found = runs(
        'RUN a $X\nRUN ["b", "$X"]\nRUN <<E\nc\nE\nRUN <<-E\n\td\n\tE\nRUN <<E\n#!/bin/x\ne\nE\n'
        'RUN cat <<E | f\nin\nE\nSHELL ["s"]\nRUN g\n'
    )
    shell = ("/bin/sh", "-c")
    assert [each.argv for each in found] == [
        (*shell, "a $X"),
        ("b", "$X"),
        (*shell, "c\n"),
        (*shell, "d\n"),
        (*shell, "/dev/pipes/E"),
        (*shell, "cat <<E | f\nin\nE"),
        ("s", "g"),
    ]
    assert found[4].scripts == (plan.File("E", "#!/bin/x\ne\n"),)


def test_the_options_of_run() -> None:
    [run] = runs(
        "ARG D=/data\nUSER u\nWORKDIR /w\n"
        "RUN --mount=type=cache,target=$D --mount=type=secret,id=s --mount=target=here,source=a --network=none x"
    )
    assert [(each.mount.type, each.mount.target, each.mount.id, each.origin.kind) for each in run.mounts] == [
        ("cache", "/data", "/data", "scratch"),
        ("secret", "", "s", "scratch"),
        ("bind", "/w/here", "", "context"),
    ]
    assert (run.user, run.workdir, run.network) == ("u", "/w", "none")


def test_sources_and_targets_of_copies() -> None:
    found = copies(
        'WORKDIR /srv\nENV D=x\nCOPY a b/*.txt ./\nCOPY ["one file", "two"]\nCOPY ./a/../b /$D/\nCOPY . .\n'
        "COPY --chown=$D:g --chmod=u+x --parents --exclude=*.o a/./b /\nADD c d\nADD --unpack=false e f/.\n"
    )
    assert [(step.sources, step.target, step.unpack) for step in found] == [
        (("a", "b/*.txt"), "/srv/", False),
        (("one file",), "/srv/two", False),
        (("b",), "/x/", False),
        (("",), "/srv/", False),
        (("a/./b",), "/", False),
        (("c",), "/srv/d", True),
        (("e",), "/srv/f/", False),
    ]
    assert (found[4].chown, found[4].chmod, found[4].parents, found[4].excludes) == ("x:g", "u+x", True, ("*.o",))


def test_files_of_heredocs() -> None:
    [copy] = copies("ENV A=1\nCOPY <<one <<'two' <<-three /d\na $A \"q\"\none\n$A\ntwo\n\tt\nthree\n")
    assert copy.files == (
        plan.File("one", 'a 1 "q"\n'),
        plan.File("two", "$A\n"),
        plan.File("three", "t\n"),
    )
    assert copy.target == "/d/"


def test_what_add_fetches() -> None:
    checksum = f"sha256:{'aa' * 32}"
    found = copies(
        f"ADD --checksum={checksum} https://example.org/x.tar.gz /\nADD --keep-git-dir https://h/r.git#v1:sub /\n"
        "ADD git@github.com:o/r.git /\nADD a https://h/x /d/\n"
    )
    assert [[(one.kind, one.url, one.checksum, one.keep_git) for one in step.remotes] for step in found] == [
        [("http", "https://example.org/x.tar.gz", checksum, None)],
        [("git", "https://h/r.git#v1:sub", "", True)],
        [("git", "git@github.com:o/r.git", "", None)],
        [("http", "https://h/x", "", None)],
    ]
    assert found[3].sources == ("a",)


def test_triggers_of_an_image_and_of_a_stage() -> None:
    made = make("FROM base AS tools\nFROM trigger\nRUN x")
    assert [each.title for each in made.stages] == ["tools", "stage-1"]
    copy, env, _ = made.target.steps
    assert isinstance(copy, plan.Copy)
    assert (copy.origin.stage, env.place.text) == (0, "ENV TRIGGERED=1")
    assert "OnBuild" not in made.target.config
    assert (copy.place.line, env.place.line) == (2, 2)
    child = make("FROM base AS a\nONBUILD ENV X=1\nFROM a AS b\nENV Y=$X\n")
    assert child.target.config["Env"][-2:] == ["X=1", "Y=1"]
    assert "OnBuild" not in child.target.config
    assert make("FROM base AS a\nONBUILD ENV X=1\n").target.config["OnBuild"] == ["ENV X=1"]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("COPY ../x /", "2:6", "../x lies outside the build context"),
        ("COPY a$X/../../x /", "2:6", "a/../../x lies outside the build context"),
        ("EXPOSE http", "2:8", "invalid containerPort: http >>> EXPOSE http; as in EXPOSE 8080"),
        ("EXPOSE 9-8", "2:8", "invalid containerPort: 9-8"),
        ("EXPOSE 80/x", "2:8", 'invalid port: "80/x": invalid proto: x'),
        ("EXPOSE 1:2:3", "2:8", "invalid IP address: 1"),
        ("ENV A='x", "2:7", 'failed to process "\'x": unexpected end of statement while looking for matching single-'),
        ("LABEL A=${B:?set_B}", "2:9", 'failed to process "${B:?set_B}": B: set_B'),
        ("USER ${}", "2:6", 'failed to process "${}": syntax error: bad substitution'),
        ("COPY --chmod=888 a b", "2:6", "invalid chmod parameter: '888'. it should be octal string and between 0 and"),
        ("COPY --chmod=u~x a b", "2:6", "invalid chmod parameter: 'u~x'"),
        ("COPY --from=9 a b", "2:6", "invalid stage index 9"),
        ("COPY --from=0 a b", "2:6", "circular dependency detected on stage: stage-0"),
        ("COPY --from=later a b\nFROM base AS later", "2:6", 'cannot copy from stage "later", it needs to be defined'),
        ("COPY --from=No!Image a b", "2:6", '"No!Image" is no stage and no image'),
        ("COPY https://h/x y", "2:6", "source can't be a URL for COPY >>> COPY https://h/x y; ADD can fetch it"),
        ("COPY git://h/x y", "2:6", "source can't be a git ref for COPY"),
        ("ADD --checksum=sha256:a x y", "2:1", "checksum requires HTTP(S) or Git sources"),
        ("RUN --mount=target=/ x", "2:5", 'invalid mount target "/"'),
        ("RUN --mount=type=$T,target=/x x", "2:5", 'unsupported mount type ""'),
        ("RUN --mount=from=later,target=/x x\nFROM base AS later", "2:5", "cannot mount from stage"),
        ("STOPSIGNAL SIGWHAT", "2:12", "invalid signal: SIGWHAT"),
        ("VOLUME $X", "2:1", "VOLUME specified can not be an empty string"),
    ],
)
def test_mistakes_say_where_and_what_to_do(text: str, place: str, message: str) -> None:
    target = "" if "later" not in text else "0"
    with pytest.raises(Invalid) as caught:
        stage(text, target=target)
    assert str(caught.value).startswith(f"Dockerfile:{place}: {message}")


def test_mistakes_in_from() -> None:
    for text, message in (
        ("FROM $X", "Dockerfile:1:6: base name ($X) should not be blank"),
        ("FROM --platform=$X base", "Dockerfile:1:6: empty platform value from expression $X"),
        ("FROM --platform=a/b/c/d base", "Dockerfile:1:6: failed to parse platform a/b/c/d"),
        (
            "FROM base AS build\nFROM biuld",
            "Dockerfile:2:6: biuld: not found >>> FROM biuld; did you mean the stage build?",
        ),
        ("FROM ${X", 'Dockerfile:1:6: failed to process "${X"'),
    ):
        with pytest.raises(LimpetError) as caught:
            make(text)
        assert str(caught.value).startswith(message)
    with pytest.raises(Invalid, match='target stage "biuld" could not be found; did you mean build'):
        make("FROM base AS build", "biuld")


def test_a_plan_prints_as_json() -> None:
    made = json.loads(plan.to_json(make("FROM base AS a\nCOPY x /\nRUN y\nFROM scratch\nCOPY --from=a /x /\nCMD z")))
    assert [[step["type"] for step in each["steps"]] for each in made["stages"]] == [["copy", "run"], ["copy", "note"]]
    assert made["stages"][1]["base"]["kind"] == "scratch"
    assert made["stages"][1]["steps"][0]["place"] == {"text": "COPY --from=a /x /", "line": 5, "column": 1}


def test_a_plan_as_a_picture() -> None:
    made = make(
        "FROM base AS tools\nRUN echo '<&>' \\\n  more\nFROM tools AS app\nCOPY --from=base:1 /b /b\nCOPY x /\n"
        "RUN --mount=from=tools,target=/t true\nFROM scratch\nCOPY --from=app / /\nCMD z"
    )
    picture = graph.to_svg(made)
    assert graph.to_svg(made) == picture
    root = ElementTree.fromstring(picture)
    texts = ["".join(each.itertext()) for each in root.iterfind(".//{*}text")]
    assert [text for text in texts if text in ("tools", "app", "stage-2", "base", "base:1", "the build context")] == [
        "base",
        "base:1",
        "the build context",
        "tools",
        "app",
        "stage-2",
    ]
    assert "RUN echo '<&>' more" in texts
    arrows = [each for each in root.iterfind(".//{*}path") if each.get("marker-end")]
    assert len(arrows) == 6  # tools←base, app←tools, app's three steps, the last stage's copy


WORDS = st.sampled_from(["a", "$A", "${A:-b}", "/x", "..", "--from=s", "80", '["a"]', "K=v", "'q", "*"])


@given(
    st.lists(
        st.tuples(st.sampled_from("COPY ADD RUN ENV ARG LABEL EXPOSE USER WORKDIR VOLUME CMD".split()), WORDS, WORDS)
    )
)
def test_any_instructions_give_a_plan_or_one_error(lines: list[tuple[str, str, str]]) -> None:
    text = "FROM base AS s\nFROM base\n" + "\n".join(" ".join(line) for line in lines)
    try:
        made, message = len(make(text).stages), ""
    except LimpetError as e:
        made, message = 0, e.message
    assert bool(made) != bool(message)
    assert "\n" not in message
