"""Instructions to a plan."""

from __future__ import annotations

import pytest

from limpet.build import plan
from limpet.build.dockerfile import parse
from limpet.errors import Invalid

EMPTY = plan.Config(env=(("PATH", "/bin"),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM a\nCOPPY a b", "Dockerfile:2:1: unknown instruction: COPPY >>> COPPY a b; did you mean COPY?"),
        ("FROM a\nRUN", "Dockerfile:2:1: RUN needs a value >>> RUN"),
        ("FROM a\nADD a b", "Dockerfile:2:1: ADD is not supported yet >>> ADD a b"),
        ("FROM a\nCOPY --from=x a b", "Dockerfile:2:6: COPY --from is not supported yet >>> COPY --from=x a b"),
        ("RUN x", "Dockerfile:1:1: the first instruction must be FROM >>> RUN x"),
        ("FROM a b c", "Dockerfile:1:1: FROM takes one image >>> FROM a b c; FROM IMAGE [AS NAME]"),
        ("FROM a\nFROM b", "Dockerfile:2:1: more than one stage is not supported yet >>> FROM b"),
        ("FROM a\nCOPY x", "Dockerfile:2:1: COPY needs a source and a destination >>> COPY x"),
        ("FROM a\nCOPY ../x /", "Dockerfile:2:1: ../x lies outside the build context"),
        ("FROM a\nEXPOSE http", "Dockerfile:2:1: EXPOSE: 'http' is not a port"),
        ("FROM a\nENV =x", "Dockerfile:2:1: ENV names can not be blank"),
    ],
)
def test_mistakes_name_line_and_way_out(text: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        plan.make(parse(text), EMPTY)
    assert str(caught.value).startswith(message)
