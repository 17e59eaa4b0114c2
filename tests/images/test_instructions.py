"""`--change`: instructions that only touch the config."""

from __future__ import annotations

from typing import Any

import pytest

from limpet.errors import Invalid
from limpet.images import instructions


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (['CMD ["a", "b c"]'], {"Cmd": ["a", "b c"]}),
        (["CMD echo $HOME"], {"Cmd": ["/bin/sh", "-c", "echo $HOME"]}),
        (['SHELL ["/bin/bash", "-lc"]', "CMD x"], {"Shell": ["/bin/bash", "-lc"], "Cmd": ["/bin/bash", "-lc", "x"]}),
        (['ENTRYPOINT ["x"]', 'CMD ["y"]'], {"Entrypoint": ["x"], "Cmd": ["y"]}),
        (['CMD ["y"]', 'ENTRYPOINT ["x"]'], {"Entrypoint": ["x"], "Cmd": ["y"]}),
        (["ENV A=1 B='two words' C=\\ d", "ENV A=2"], {"Env": ["B=two words", "C= d", "A=2"]}),
        (["env KEY the rest  of it"], {"Env": ["KEY=the rest  of it"]}),
        (
            ["EXPOSE 80 53/udp 8000-8001"],
            {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}}},
        ),
        (["WORKDIR /a", "WORKDIR b/../c"], {"WorkingDir": "/a/c"}),
        (["USER www:www"], {"User": "www:www"}),
        (['LABEL a=1 "b c"="d e"'], {"Labels": {"a": "1", "b c": "d e"}}),
        (['VOLUME ["/a b"]', "VOLUME /c /d"], {"Volumes": {"/a b": {}, "/c": {}, "/d": {}}}),
        (["STOPSIGNAL SIGINT", "ONBUILD RUN x"], {"StopSignal": "SIGINT", "OnBuild": ["RUN x"]}),
    ],
)
def test_changes(changes: list[str], expected: dict[str, Any]) -> None:
    config: dict[str, Any] = {}
    instructions.apply(config, changes)
    assert config == expected


def test_an_entrypoint_forgets_an_inherited_command() -> None:
    config: dict[str, Any] = {"Cmd": ["old"]}
    instructions.apply(config, ['ENTRYPOINT ["x"]'])
    assert config == {"Entrypoint": ["x"]}


_PORTS = ["EXPOSE 9-8", "EXPOSE 80/foo", "EXPOSE 70000"]


@pytest.mark.parametrize(
    "change",
    [
        "",
        "CMD",
        "RUN x",
        "COPY a b",
        "ENV A",
        "ENV A=1 B",
        "ENV =1",
        "LABEL a='b",
        "EXPOSE x",
        "EXPOSE 0",
        *_PORTS,
        "SHELL x",
    ],
)
def test_what_cannot_be_is_named(change: str) -> None:
    with pytest.raises(Invalid, match="--change"):
        instructions.apply({}, [change])


def test_health_checks() -> None:
    config: dict[str, Any] = {}
    instructions.apply(config, ["HEALTHCHECK --interval=1m30s --retries=2 CMD test -e /ready"])
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "test -e /ready"], "Interval": 90 * 10**9, "Retries": 2}
    instructions.apply(config, ['HEALTHCHECK --timeout=500ms CMD ["/check", "x"]'])
    assert config["Healthcheck"] == {"Test": ["CMD", "/check", "x"], "Timeout": 5 * 10**8}
    instructions.apply(config, ["HEALTHCHECK NONE"])
    assert config["Healthcheck"] == {"Test": ["NONE"]}
    for bad in ("CMD", "FOO x", "--interval=x CMD true", "--interval=1us CMD true", "--retries=-1 CMD true", "NONE x"):
        with pytest.raises(Invalid):
            instructions.apply(config, [f"HEALTHCHECK {bad}"])
