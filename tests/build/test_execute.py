"""Building: what comes out, what is run again, and that the same inputs give the same image."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    return directory


def build(limpet: Any, context: Path, dockerfile: str, *options: str, check: bool = True) -> Any:
    (context / "Dockerfile").write_text(dockerfile)
    return limpet("build", "-t", "made:1", *options, context, check=check)


def run(limpet: Any, *command: str) -> str:
    return str(limpet("run", "--rm", "made:1", *command).stdout)


def test_every_instruction_has_its_effect(limpet: Any, busybox: str, context: Path) -> None:
    (context / "file").write_text("content\n")
    (context / "tree/below").mkdir(parents=True)
    (context / "tree/below/script").write_text("#!/bin/sh\necho from the script\n")
    (context / "tree/below/script").chmod(0o755)
    (context / "tree/link").symlink_to("below/script")
    build(
        limpet,
        context,
        f"""
        FROM {busybox}
        ENV GREETING="hello there" PORT=80
        WORKDIR /srv/app
        COPY file renamed
        COPY tree .
        COPY file tree/link /several/
        RUN echo $GREETING > made && mkdir d && touch d/x
        RUN ["rm", "d/x"]
        EXPOSE $PORT
        CMD ["/srv/app/link"]
        """,
    )
    assert run(limpet) == "from the script\n"
    assert run(limpet, "cat", "/srv/app/renamed", "made", "/several/file") == "content\nhello there\ncontent\n"
    assert run(limpet, "ls", "d") == ""
    assert run(limpet, "stat", "-c", "%u:%g %a %Y %n", "renamed", "below/script") == (
        "0:0 644 0 renamed\n0:0 755 0 below/script\n"
    )
    config = json.loads(limpet("image", "inspect", "made:1").stdout)[0]["Config"]
    assert config["ExposedPorts"] == {"80/tcp": {}}
    assert config["WorkingDir"] == "/srv/app"
    assert "GREETING=hello there" in config["Env"]
    history = limpet("history", "--no-trunc", "--format", "{{.CreatedBy}}", "made:1").stdout
    assert history.splitlines()[0] == 'CMD ["/srv/app/link"]'


def test_a_copy_into_a_linked_directory_and_into_one_with_a_mode(limpet: Any, busybox: str, context: Path) -> None:
    (context / "tool").write_text("#!/bin/sh\necho tool\n")
    (context / "tool").chmod(0o755)
    build(
        limpet,
        context,
        f"FROM {busybox}\nRUN mkdir -p /usr/lib && ln -s usr/lib /lib\nCOPY tool /lib/\nCOPY tool /tmp/x\nCMD tool\n",
    )
    assert run(limpet, "/lib/tool") == "tool\n"
    assert run(limpet, "readlink", "/lib") == "usr/lib\n"
    assert run(limpet, "ls", "/usr/lib") == "tool\n"
    assert run(limpet, "stat", "-c", "%a", "/tmp") == "1777\n"


def test_steps_are_cached_by_what_they_depend_on(limpet: Any, busybox: str, context: Path) -> None:
    (context / "a").write_text("1")
    (context / "b").write_text("1")
    text = f"FROM {busybox}\nCOPY a /a\nRUN cat /a > /made\nCOPY b /b\n"
    first = build(limpet, context, text)
    assert first.stderr.count(": cached") == 0
    second = build(limpet, context, text)
    assert second.stderr.count(": cached") == 3
    assert second.stdout == first.stdout

    os.utime(context / "a", (1, 1))  # times are no input
    assert build(limpet, context, text).stderr.count(": cached") == 3
    (context / "b").write_text("2")
    assert build(limpet, context, text).stderr.count(": cached") == 2
    (context / "a").chmod(0o700)  # modes are
    assert build(limpet, context, text).stderr.count(": cached") == 0
    assert build(limpet, context, text, "--no-cache").stderr.count(": cached") == 0


def test_the_same_inputs_give_the_same_image(limpet: Any, busybox: str, context: Path) -> None:
    (context / "a").write_text("1")
    text = f"FROM {busybox}\nCOPY a /a\nRUN mkdir /d && echo x > /d/x && ln /d/x /d/y && ln -s x /d/z\n"
    first = build(limpet, context, text).stdout
    os.utime(context / "a", (1, 1))
    assert build(limpet, context, text, "--no-cache").stdout == first


def test_the_time_of_everything(limpet: Any, busybox: str, context: Path) -> None:
    (context / "a").write_text("1")
    text = f"FROM {busybox}\nCOPY a /a\nRUN echo x >/b\n"
    first = build(limpet, context, text).stdout
    second = build(limpet, context, text, "--build-arg", "SOURCE_DATE_EPOCH=86400")
    assert second.stdout != first
    assert ": cached" not in second.stderr
    assert run(limpet, "stat", "-c", "%Y", "/a", "/b") == "86400\n86400\n"
    assert limpet("image", "inspect", "--format", "{{.Created}}", "made:1").stdout == "1970-01-02T00:00:00Z\n"
    wrong = build(limpet, context, text, "--build-arg", "SOURCE_DATE_EPOCH=now", check=False)
    assert wrong.stderr.splitlines()[0] == "limpet: SOURCE_DATE_EPOCH=now is no time"


def test_a_step_that_fails_ends_the_build_and_leaves_nothing(limpet: Any, busybox: str, context: Path) -> None:
    result = build(limpet, context, f"FROM {busybox}\nRUN echo going; exit 3\n", check=False)
    assert result.returncode == 1
    assert "going" in result.stderr
    path = os.path.relpath(context / "Dockerfile")
    message = f"limpet: {path}:2:1: the command failed with exit code 3 >>> RUN echo going; exit 3"
    assert result.stderr.splitlines()[-1] == message
    assert limpet("ps", "-aq").stdout == ""
    assert limpet("system", "check").returncode == 0
    assert "made" not in limpet("images").stdout


def test_a_shell_that_is_not_there(limpet: Any, busybox: str, context: Path) -> None:
    result = build(limpet, context, f'FROM {busybox}\nSHELL ["/bin/none", "-c"]\nRUN env\n', check=False)
    path = os.path.relpath(context / "Dockerfile")
    message = f'limpet: {path}:3:1: exec: "/bin/none": no such file or directory >>> RUN env'
    assert result.stderr.splitlines()[-1] == message
    assert result.returncode == 127


def test_files_that_are_not_there_or_lead_out(limpet: Any, busybox: str, context: Path) -> None:
    (context / "docker").mkdir()
    (context / "docker/entry.sh").write_text("")
    (context / "out").symlink_to("/etc/passwd")
    path = os.path.relpath(context / "Dockerfile")
    missing = build(limpet, context, f"FROM {busybox}\nCOPY entry.sh /\n", check=False)
    assert missing.stderr.splitlines()[-2:] == [
        f"limpet: {path}:2:1: entry.sh: not in the context {context} >>> COPY entry.sh /",
        "did you mean docker/entry.sh?",
    ]
    out = build(limpet, context, f"FROM {busybox}\nCOPY out /\n", check=False)
    assert out.stderr.splitlines()[-1].startswith(f"limpet: {path}:2:1: out: leads out of the context")
    nowhere = limpet("build", context / "nope", check=False)
    assert "no such directory" in nowhere.stderr


def test_a_build_leaves_the_caller_s_standard_output_to_the_image_id(limpet: Any, busybox: str, context: Path) -> None:
    result = build(limpet, context, f"FROM {busybox}\nRUN echo to standard output\n")
    assert result.stdout.startswith("sha256:")
    assert result.stdout.count("\n") == 1
    assert "to standard output" in result.stderr


def config(limpet: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(limpet("image", "inspect", "made:1").stdout)[0]["Config"]
    return found


def test_what_only_changes_the_config(limpet: Any, busybox: str, context: Path) -> None:
    build(
        limpet,
        context,
        f"""
        ARG BASE={busybox}
        FROM $BASE
        MAINTAINER Me
        ARG WHO=me
        ARG UNSET
        LABEL a=1 b="$WHO and $UNSET"
        ENV OLD style
        VOLUME /data
        STOPSIGNAL SIGQUIT
        HEALTHCHECK --interval=5s CMD true
        USER user
        SHELL ["/bin/busybox", "sh", "-c"]
        ONBUILD RUN echo triggered >/tmp/triggered
        CMD echo hello
        """,
        "--build-arg",
        "WHO=you",
        "--label",
        "c=3",
    )
    found = config(limpet)
    assert found["Labels"] == {"a": "1", "b": "you and ", "c": "3"}
    assert "OLD=style" in found["Env"]
    assert not any(each.startswith("WHO") for each in found["Env"])
    assert (found["User"], found["StopSignal"], found["Volumes"]) == ("user", "SIGQUIT", {"/data": {}})
    assert found["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5 * 10**9}
    assert found["Cmd"] == ["/bin/busybox", "sh", "-c", "echo hello"]
    assert run(limpet) == "hello\n"
    (context / "child").mkdir()
    (context / "child/Dockerfile").write_text("FROM made:1\n")
    limpet("build", "-t", "made:1", context / "child")
    assert run(limpet, "cat", "/tmp/triggered") == "triggered\n"
    assert not config(limpet).get("OnBuild")


def test_run_with_users_shells_heredocs_and_arguments(limpet: Any, busybox: str, context: Path) -> None:
    build(
        limpet,
        context,
        f"""\
FROM {busybox}
ARG SECOND=2
ENV FIRST=1
WORKDIR /work
RUN <<EOF
echo "$FIRST $SECOND $(pwd)" >>out
id -u >>out
EOF
RUN chown user:user . out
USER user
RUN <<-'SCRIPT'
	#!/bin/awk -f
	BEGIN {{ print "from awk, " ENVIRON["FIRST"] >>"out" }}
	SCRIPT
RUN cat <<ONE - <<TWO >>out
one
ONE
two
TWO
SHELL ["/bin/busybox", "env", "WRAPPED=yes", "sh", "-c"]
RUN echo "$WRAPPED $(id -u)" >>out
RUN --mount=type=tmpfs,target=/scratch --network=none touch /scratch/x && ls /sys/class/net | wc -l >>out
VOLUME /work/volume
RUN mkdir -p volume && touch volume/stays
""",
        "--build-arg",
        "http_proxy=http://proxy.invalid",
    )
    lines = run(limpet, "cat", "out").splitlines()
    assert lines == ["1 2 /work", "0", "from awk, 1", "two", "yes 1000", "1"]
    assert run(limpet, "sh", "-c", "ls -d /scratch; ls volume") == "stays\n"
    assert "proxy" not in limpet("history", "--no-trunc", "made:1").stdout
    assert any(each.startswith("RUN |1 SECOND=2 /bin/sh -c") for each in history(limpet))


def history(limpet: Any) -> list[str]:
    return str(limpet("history", "--no-trunc", "--format", "{{.CreatedBy}}", "made:1").stdout).splitlines()


def test_a_working_directory_is_made_once_and_is_its_user_s(limpet: Any, busybox: str, context: Path) -> None:
    build(limpet, context, f"FROM {busybox}\nUSER user\nWORKDIR /a/b\nWORKDIR /a\nWORKDIR /tmp\n")
    assert run(limpet, "stat", "-c", "%U %n", "/a", "/a/b", "/tmp") == "user /a\nuser /a/b\nroot /tmp\n"
    kept = json.loads(limpet("image", "inspect", "made:1").stdout)[0]["RootFS"]["Layers"]
    assert len(kept) == 2


def test_every_number_is_shown(limpet: Any, busybox: str, context: Path) -> None:
    """Steps that only change the config are neither counted nor shown; a directory that is there is."""
    text = f"FROM {busybox}\nENV A=1\nWORKDIR /tmp\nLABEL a=b\nWORKDIR /new\nCOPY . .\nRUN true\nCMD true\n"
    first = build(limpet, context, text).stderr
    shown = [line for line in first.splitlines() if line.startswith("[") and " ran in " not in line]
    assert shown == [
        "[1/4] WORKDIR /tmp: is there already",
        "[2/4] WORKDIR /new",
        "[3/4] COPY . .",
        "[4/4] RUN true",
    ]
    again = build(limpet, context, text).stderr.splitlines()
    assert [line for line in again if line.startswith("[")] == [shown[0], *[f"{line}: cached" for line in shown[1:]]]


def test_stages_and_targets(limpet: Any, busybox: str, context: Path) -> None:
    text = f"""
        FROM {busybox} AS one
        RUN echo 1 >/one
        FROM {busybox} AS unused
        RUN exit 1
        FROM scratch AS two
        COPY --from=one /one /two
        FROM one
        COPY --from=two /two /
        COPY --from=0 /one /again
    """
    result = build(limpet, context, text)
    assert "[1/4] one: RUN echo 1 >/one" in result.stderr
    assert run(limpet, "cat", "/one", "/two", "/again") == "1\n1\n1\n"
    build(limpet, context, text, "--target", "two")
    archive = limpet("image", "inspect", "made:1").stdout
    assert len(json.loads(archive)[0]["RootFS"]["Layers"]) == 1
    failed = build(limpet, context, text, "--target", "unused", check=False)
    assert failed.stderr.splitlines()[-1].endswith(":5:9: the command failed with exit code 1 >>> RUN exit 1")


def test_from_scratch_with_a_root_file_system_that_is_added(
    limpet: Any, busybox_tar: Path, context: Path, tmp_path: Path
) -> None:
    (context / "rootfs.tar").write_bytes(busybox_tar.read_bytes())
    build(limpet, context, 'FROM scratch\nADD rootfs.tar /\nRUN echo made >/made\nCMD ["cat", "/made"]\n')
    assert run(limpet) == "made\n"
    assert limpet("system", "check").returncode == 0


def test_a_dockerfile_on_standard_input_and_several_names(limpet: Any, busybox: str, context: Path) -> None:
    ids = context / "ids"
    text = f"FROM {busybox}\nCMD echo from standard input\n"
    result = limpet("build", "-f", "-", "-t", "made:1", "-t", "made:2", "--iidfile", ids, context, input=text)
    assert ids.read_text() == result.stdout.strip()
    assert run(limpet) == "from standard input\n"
    assert limpet("image", "inspect", "--format", "{{.Id}}", "made:2").stdout == result.stdout


def test_which_file_is_the_dockerfile(limpet: Any, busybox: str, context: Path) -> None:
    (context / "Dockerfile.dev").write_text(f"FROM {busybox}\nCMD echo dev\n")
    missing = limpet("build", context, check=False)
    assert missing.stderr.splitlines() == [
        f"limpet: {context}/Dockerfile: no such Dockerfile",
        "there is Dockerfile.dev: name it with -f",
    ]
    (context / "dockerfile").write_text(f"FROM {busybox}\nCMD echo small\n")
    limpet("build", "-t", "made:1", context)
    assert run(limpet) == "small\n"
    limpet("build", "-t", "made:1", "-f", context / "Dockerfile.dev", context)
    assert run(limpet) == "dev\n"


def test_a_build_argument_that_nobody_takes(limpet: Any, busybox: str, context: Path) -> None:
    result = build(
        limpet,
        context,
        f"FROM {busybox}\nARG VERSION\n",
        "--build-arg",
        "VERSON=1",
        "--build-arg",
        "TARGETARCH=x",
        "--build-arg",
        "NO_PROXY=x",
    )
    assert [line for line in result.stderr.splitlines() if line.startswith("warning")] == [
        "warning: --build-arg VERSON: no ARG takes it; did you mean VERSION?"
    ]


def test_the_plan_is_printed_and_nothing_is_built(limpet: Any, busybox: str, context: Path) -> None:
    (context / "Dockerfile").write_text(f"FROM {busybox}\nRUN exit 1\n")
    made = json.loads(limpet("build", "--print", "plan", context).stdout)
    assert [step["argv"] for step in made["stages"][0]["steps"]] == [["/bin/sh", "-c", "exit 1"]]


def test_the_checks_of_a_file(limpet: Any, busybox: str, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM not.here/at/all\nCMD x\n")
    result = limpet("build", "--check", context)
    assert result.stdout.splitlines() == [
        f"{os.path.relpath(context)}/Dockerfile:2:1: JSON arguments recommended for CMD to prevent unintended behavior "
        "related to OS signals >>> CMD x",
        '  JSONArgsRecommended: write it as a JSON list: ["program", "argument"]; '
        "or say with SHELL that a shell is meant",
        "  https://docs.docker.com/go/dockerfile/rule/json-args-recommended/",
        "Check complete, 1 warning found",
    ]
    (context / "Dockerfile").write_text("# check=error=true\nFROM not.here/at/all\nCMD x\n")
    assert limpet("build", "--check", context, check=False).returncode == 1
    (context / "Dockerfile").write_text(f"# check=error=true\nFROM {busybox}\nCMD x\n")
    failed = limpet("build", context, check=False)
    assert "lint violation found for rules: JSONArgsRecommended" in failed.stderr
    option = "BUILDKIT_DOCKERFILE_CHECK=skip=all"
    assert "warning" not in limpet("build", "--build-arg", option, context).stderr
    (context / "Dockerfile").write_text(f"# check=skip=all;error=true\nFROM {busybox}\nCMD x\n")
    assert "warning" not in limpet("build", context).stderr


def test_what_is_found_before_a_mistake_is_said_too(limpet: Any, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM a AS Name\nMAINTAINER me\nBADCMD\nCMD x\n")
    place = f"{os.path.relpath(context)}/Dockerfile"
    result = limpet("build", "--check", context, check=False)
    assert [line.partition(" >>>")[0] for line in result.stdout.splitlines() if line.startswith(place)] == [
        f"{place}:1:11: Stage name 'Name' should be lowercase",
        f"{place}:2:1: Maintainer instruction is deprecated in favor of using label",
    ]
    assert result.stderr == f"limpet: {place}:3:1: unknown instruction: BADCMD >>> BADCMD\n"


def test_a_stage_that_is_written_wrong(limpet: Any, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox} AS build\nFROM scratch\nCOPY --from=localhost/buidl /x /y\n")
    assert "did you mean" not in limpet("build", tmp_path, check=False).stderr
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox} AS build\nFROM scratch\nCOPY --from=buidl /x /y\n")
    said = limpet("build", tmp_path, check=False).stderr
    assert "there is no stage buidl" in said
    assert "did you mean the stage build?" in said


def test_what_a_mount_held_is_not_in_the_stage(limpet: Any, busybox: str, tmp_path: Path) -> None:
    run = "RUN --mount=type=cache,target=/c touch /c/x"
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox} AS build\n{run}\nFROM scratch\nCOPY --from=build /c/x /\n")
    assert "copy it elsewhere in that RUN" in limpet("build", tmp_path, check=False).stderr


def test_files_that_can_not_be_written_are_told_before_the_build(limpet: Any, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox}\nRUN echo ran >&2\n")
    for option in ("--iidfile", "--metadata-file"):
        result = limpet("build", option, tmp_path / "nodir" / "x", tmp_path, check=False)
        assert result.returncode == 1
        assert result.stderr == f"limpet: {tmp_path}/nodir/x: there is no directory {tmp_path}/nodir\nmake it first\n"


def test_call_check_is_check(limpet: Any, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox}\n")
    assert limpet("build", "--call=check", tmp_path).stdout == limpet("build", "--check", tmp_path).stdout
