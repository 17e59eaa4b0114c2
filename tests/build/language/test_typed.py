"""Instructions as what they mean: arguments, flags, stages, and the messages for what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.build.language import flags, mounts
from limpet.build.language.dockerfile import INSTRUCTIONS, parse
from limpet.build.language.instructions import Copy, Device, Healthcheck, Onbuild, Program, Run, Volume
from limpet.build.language.mounts import Mount
from limpet.build.language.program import program
from limpet.errors import Invalid, LimpetError


def read(text: str) -> Program:
    return program(parse(text))


def one(text: str) -> object:
    [stage] = read(f"FROM scratch\n{text}").stages
    [found] = stage.instructions
    return found


def test_stages_and_the_arguments_before_them() -> None:
    found = read(
        "# V is the version\nARG V=1 OTHER\nFROM --platform=$BUILDPLATFORM a:$V as Base\nRUN x\nFROM base\nCMD y\n"
    )
    [arg] = found.arguments
    assert [(each.key.text, each.value and each.value.text, each.description) for each in arg.arguments] == [
        ("V", "1", "is the version"),
        ("OTHER", None, ""),
    ]
    first, second = found.stages
    assert (first.begin.image.text, first.begin.name, first.begin.platform) == ("a:$V", "base", "$BUILDPLATFORM")
    assert (second.begin.image.text, second.begin.name) == ("base", "")
    assert [len(stage.instructions) for stage in found.stages] == [1, 1]


def test_copy_and_add() -> None:
    copy = one("COPY --from=base --chown=a:b --chmod=0755 --link --parents=true --exclude=x --exclude=*.o a b/ /c/")
    assert isinstance(copy, Copy)
    assert (copy.origin, copy.chown, copy.chmod, copy.link, copy.parents) == ("base", "a:b", "0755", True, True)
    assert copy.excludes == ("x", "*.o")
    assert ([each.text for each in copy.sources], copy.target.text) == (["a", "b/"], "/c/")
    add = one("ADD --checksum=sha256:00 --keep-git-dir --unpack=false --link=false http://x/y z")
    assert isinstance(add, Copy)
    assert (add.is_add, add.checksum, add.keep_git, add.unpack, add.link) == (True, "sha256:00", True, False, False)
    files = one("COPY plain <<A <<-'B' /x/\n1\nA\n\t2\nB\n")
    assert isinstance(files, Copy)
    assert [each.text for each in files.sources] == ["plain"]
    assert [(each.name, each.text, each.expand) for each in files.files] == [("A", "1\n", True), ("B", "2\n", False)]
    listed = one('COPY ["<<A", "/x"]')
    assert isinstance(listed, Copy)
    assert ([each.text for each in listed.sources], listed.files) == (["<<A"], ())


def test_run() -> None:
    run = one("RUN --mount=type=cache,target=/c --network=none --security=insecure --device=gpu,required a b")
    assert isinstance(run, Run)
    assert (run.network, run.security, run.devices) == ("none", "insecure", (Device("gpu", required=True),))
    assert (run.command.words, run.command.shell) == (("a b",), True)
    executed = one('RUN ["a", "b"]')
    assert isinstance(executed, Run)
    assert (executed.command.words, executed.command.shell) == (("a", "b"), False)


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/a", Mount(target="/a")),
        ("type=bind,from=x,src=/s,dst=/d,rw", Mount(origin="x", source="/s", target="/d", read_only=False)),
        ("type=bind,target=/d,readonly=false", Mount(target="/d", read_only=False)),
        (
            "type=cache,id=i,destination=/d,sharing=LOCKED,mode=0700,uid=5,gid=6",
            Mount("cache", "", "", "/d", False, "i", "locked", mode=0o700, uid=5, gid=6),
        ),
        ("type=tmpfs,target=/t,size=1.5m", Mount("tmpfs", target="/t", read_only=False, size=3 << 19)),
        ("type=secret,id=s,env=E,required", Mount("secret", id="s", env="E", required=True)),
        ('type=secret,"source=a,b",mode=400', Mount("secret", source="a,b", mode=0o400)),
        ("type=ssh", Mount("ssh")),
        ("TYPE=SSH,required=true", Mount("ssh", required=True)),
    ],
)
def test_mounts(text: str, mount: Mount) -> None:
    assert mounts.parse(text, str) == mount


def test_variables_in_mounts() -> None:
    assert mounts.parse("type=cache,target=$X", lambda text: text.replace("$X", "/x")).target == "/x"
    assert mounts.origin("from=base,target=$X") == "base"


def test_health_checks() -> None:
    full = one(
        "HEALTHCHECK --interval=1m30s --timeout=1.5h --start-period=50ms --start-interval=2s --retries=3 CMD x y"
    )
    assert isinstance(full, Healthcheck)
    assert full.test == ("CMD-SHELL", "x y")
    assert (full.interval, full.timeout, full.start_period) == (90 * 10**9, 5400 * 10**9, 50 * 10**6)
    assert (full.start_interval, full.retries) == (2 * 10**9, 3)
    listed, none = one('HEALTHCHECK CMD ["x", "y"]'), one("HEALTHCHECK none")
    assert isinstance(listed, Healthcheck)
    assert isinstance(none, Healthcheck)
    assert (listed.test, none.test) == (("CMD", "x", "y"), ("NONE",))


def test_triggers_keep_their_text_and_heredocs() -> None:
    found = one("ONBUILD  RUN cat <<E >x\n a\nE\n")
    assert isinstance(found, Onbuild)
    assert found.text == "RUN cat <<E >x\n a\nE"


def test_volumes_in_both_forms() -> None:
    for text in ("VOLUME /a /b", 'VOLUME ["/a", "/b"]'):
        found = one(text)
        assert isinstance(found, Volume)
        assert [each.text for each in found.paths] == ["/a", "/b"]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("COPPY a b", "2:1", "unknown instruction: COPPY >>> COPPY a b; did you mean COPY?"),
        ("RUN", "2:1", "RUN requires at least one argument >>> RUN; as in RUN COMMAND"),
        ("RUN --mout=x y", "2:5", "unknown flag: --mout >>> RUN --mout=x y; did you mean --mount?"),
        ("USER --x y", "2:6", "unknown flag: --x >>> USER --x y; USER has no flags"),
        ("COPY --from=a --from=b c d", "2:15", "duplicate flag specified: --from"),
        ("COPY --from a b", "2:6", "missing a value on flag: --from >>> COPY --from a b; write --from=VALUE"),
        ("COPY --link=yes a b", "2:6", "expecting boolean value for flag --link, not: yes"),
        ("COPY --link= a b", "2:6", "missing a value on flag: --link"),
        ("COPY --from=$X a b", "2:6", "variable expansion is not supported for --from"),
        ("COPY a", "2:1", "COPY requires at least two arguments, but only one was provided. Destination could"),
        ("COPY a <<E\nE", "2:8", "COPY cannot accept a heredoc as a destination"),
        ("ADD --from=x a b", "2:5", "unknown flag: --from"),
        ("ENV", "2:1", "ENV requires at least one argument"),
        ("ENV =x", "2:5", "ENV names can not be blank"),
        ("ARG =x", "2:5", "ARG names can not be blank"),
        ("WORKDIR", "2:1", "WORKDIR requires exactly one argument >>> WORKDIR; as in WORKDIR /srv"),
        ("EXPOSE", "2:1", "EXPOSE requires at least one argument"),
        ('VOLUME [""]', "2:9", "VOLUME specified can not be an empty string"),
        ("SHELL bash", "2:1", "SHELL requires the arguments to be in JSON form"),
        ("SHELL []", "2:1", "SHELL requires at least one argument"),
        ("HEALTHCHECK", "2:1", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "2:18", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "2:1", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK curl x", "2:13", 'Unknown type "CURL" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK --interval=5 CMD x", "2:13", 'time: invalid duration "5"'),
        ("HEALTHCHECK --interval=5us CMD x", "2:13", 'Interval "interval" cannot be less than 1ms'),
        ("HEALTHCHECK --retries=-1 CMD x", "2:13", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --retries=x CMD x", "2:13", "--retries=x is not a number"),
        ("ONBUILD", "2:1", "ONBUILD requires at least one argument"),
        ("ONBUILD FROM x", "2:9", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD ONBUILD RUN x", "2:9", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD RUNN x", "2:9", "unknown instruction: RUNN"),
        ("RUN --network=hosts x", "2:5", 'invalid network mode "hosts" >>> RUN --network=hosts x; did you mean host?'),
        ("RUN --security=no x", "2:5", 'security "no" is not valid'),
        ("RUN --mount=type=cach,target=/x y", "2:5", 'unsupported mount type "cach"'),
        ("RUN --mount=from=$X y", "2:5", "'from' doesn't support variable expansion, define alias stage instead"),
        ("RUN --mount=type=bind,mode=1,target=/x y", "2:5", 'mode not allowed for "bind" type mounts'),
        ("RUN --mount=type=cache,sharing=all,target=/x y", "2:5", 'unsupported sharing value "all"'),
        (
            "RUN --mount=targt=/x y",
            "2:5",
            "unexpected key 'targt' in 'targt=/x' >>> RUN --mount=targt=/x y; did you mean",
        ),
        ("RUN --mount=target y", "2:5", "invalid field 'target' must be a key=value pair"),
        ("RUN --mount=type=secret y", "2:5", "invalid secret mount. one of source, target required"),
        ("RUN --mount=type=tmpfs,target=/x,size=big y", "2:5", "invalid value for size: big"),
        ("RUN --mount=size=1,target=/x y", "2:5", "unexpected key 'size' for mount type 'bind'"),
        ('RUN --mount=\\"a y', "2:5", "failed to parse csv mounts"),
        ("RUN --device=a,b y", "2:5", "invalid field 'b' must be a key=value pair"),
        ("FROM a b c", "2:8", "FROM requires either one or three arguments >>> FROM a b c; FROM IMAGE, or FROM"),
        ("FROM a AS 1x", "2:11", 'invalid name for build stage: "1x", name can\'t start with a number or contain'),
    ],
)
def test_mistakes_say_where_and_what_to_do(text: str, place: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(f"FROM scratch\n{text}")
    assert str(caught.value).startswith(f"Dockerfile:{place}: {message}")


def test_what_stands_before_the_first_stage() -> None:
    with pytest.raises(Invalid, match=r"Dockerfile:2:1: no build stage in current context >>> RUN x; FROM comes first"):
        read("ARG A\nRUN x\nFROM y")
    with pytest.raises(Invalid, match=r"Dockerfile:1:1: dockerfile contains no stages to build"):
        read("ARG A")


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("1h2m3s", 3723 * 10**9), (".5s", 5 * 10**8), ("1.s", 10**9), ("-1s", -(10**9)), ("3µs", 3000)],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert flags.duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "1", "s", ".s", "1x", "1s2", "99999999999h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        flags.duration(text)


@pytest.mark.parametrize("text", ["0x10", "-1", "", "1_0", "8", "9" * 50])
def test_what_is_no_octal_number(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        flags.number(text, 8, 32)


@given(st.sampled_from(sorted(INSTRUCTIONS)), st.text("ab=-,/ \"'[]<\\$1", max_size=40))
def test_any_arguments_give_an_instruction_or_one_error(name: str, text: str) -> None:
    try:
        found, message = len(read(f"FROM scratch\n{name} {text}\n").stages), ""
    except LimpetError as e:
        found, message = 0, e.message
    assert bool(found) != bool(message)
    assert "\n" not in message
