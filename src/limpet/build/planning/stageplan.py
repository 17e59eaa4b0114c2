"""One stage: its instructions become steps and an image config, with the variables as they stand at each of them.

The rules of each instruction are BuildKit's (Dockerfile reference; where it is silent, dockerfile2llb's behaviour).
"""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from limpet.build.language import instructions as kinds
from limpet.build.language import mounts, ports, variables
from limpet.build.language import words as shell
from limpet.build.language.dockerfile import error, parse_heredoc
from limpet.build.language.lines import Word
from limpet.build.language.scope import Scope
from limpet.build.planning import plan
from limpet.build.planning.copyplan import absolute, plan_copy, without_login
from limpet.errors import Invalid
from limpet.kernel import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from limpet.build.language.dockerfile import Instruction
    from limpet.build.language.ignore import Ignore
    from limpet.build.language.notes import Notes
    from limpet.build.planning.planner import Base

DEFAULT_SHELL = ("/bin/sh", "-c")
SCRIPTS = "/dev/pipes"
"""Where RUN finds a heredoc that begins with `#!`, as in BuildKit."""

_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)


def sounds_secret(key: str) -> bool:
    """Whether a variable of this name should not be an ARG or ENV (BuildKit's rule SecretsUsedInArgOrEnv)."""
    return bool(_SECRET.search(key)) and not _NO_SECRET.search(key)


class StagePlanner:
    """Takes instructions in order; `result` is the stage. `parent` is the stage that it stands on."""

    def __init__(
        self,
        *,
        number: int,
        begin: kinds.From,
        parent: StagePlanner | None,
        image: str,
        found: Base | None,
        platform: str,
        escape: str,
        globals: Mapping[str, str],
        given: Mapping[str, str],
        notes: Notes,
        ignored: Ignore | None,
        origin: Callable[[str, kinds.Copy | kinds.Run, str], plan.Origin],
    ) -> None:
        self.scope: Scope = Scope(escape, notes, parent.scope if parent else None, unknown=found is None)
        self.number = number
        self.begin = begin
        self.platform: str = platform or (parent.platform if parent else "")
        self.escape = escape
        self.globals = globals
        self.given = given
        self.notes = notes
        self.ignored = ignored
        self.origin = origin
        self.steps: list[plan.Step] = []
        self._set: dict[str, Instruction] = {}
        self._at = begin.source.keyword
        if parent is not None:
            self.base: plan.Origin = plan.Origin("stage", stage=parent.number)
            self.config: dict[str, Any] = copy.deepcopy(parent.config)
            self.author: str = parent.author
            self.workdir_set: bool = parent.workdir_set
        else:
            whole = found.config if found else {}
            known = found is not None and not found.id
            self.base = (
                plan.Origin("scratch") if known else plan.Origin("image", image=image, id=found.id if found else "")
            )
            self.config = copy.deepcopy(whole.get("config") or ({"WorkingDir": "/"} if known else {}))
            self.author = str(whole.get("author") or "")
            self.workdir_set = False
        self.config.pop("OnBuild", None)
        env = self.config.setdefault("Env", [])
        if not any(each.partition("=")[0] == "PATH" for each in env):
            env.append(f"PATH={plan.DEFAULT_PATH}")
        if parent is None:
            self.scope.env.update((key, value) for key, _, value in (each.partition("=") for each in env))

    def result(self) -> plan.Stage:
        return plan.Stage(
            self.number, self.begin.name, self.base, self.platform, tuple(self.steps), _clean(self.config), self.author
        )

    def add_files(self, context: str) -> None:
        """The stage begins with the files of a named context."""
        place = self._place(self.begin.source)
        origin = plan.Origin("context", context=context)
        self.steps.append(plan.Copy(place, origin, ("",), (), (), "/", created_by=f"FROM {context}"))

    def take(self, each: kinds.Typed, *, trigger: bool = False) -> None:
        """`trigger`: it comes from the base's ONBUILD, so that it stands where FROM does. Raises Invalid."""
        self._at = self.begin.source.keyword if trigger else each.source.keyword
        if isinstance(each, kinds.Copy):
            self.steps.append(self._copy(each))
        elif isinstance(each, kinds.Run):
            self.steps.append(self._run(each))
        elif isinstance(each, kinds.Workdir):
            self._workdir(each)
        else:
            self.steps.append(plan.Note(self._place(each.source), self._change(each)))

    def _change(self, each: kinds.Typed) -> str:
        """An instruction that changes the config: the line of the history."""
        config = self.config
        source = each.source
        if isinstance(each, kinds.Arg):
            return self._arg(each)
        if isinstance(each, kinds.Env | kinds.Label):
            return self._pairs(each)
        if isinstance(each, kinds.Cmd | kinds.Entrypoint):
            return self._command(each)
        if isinstance(each, kinds.Expose):
            return self._expose(each)
        if isinstance(each, kinds.User):
            config["User"] = self.scope.expand(source, each.user)
            return f"USER {config['User']}"
        if isinstance(each, kinds.Volume):
            paths = [self.scope.expand(source, Word(w.text.strip(), w.line, w.column)) for w in each.paths]
            if not all(paths):
                raise error(source, "VOLUME specified can not be an empty string", "name a directory")
            config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}
            return f"VOLUME [{' '.join(paths)}]"
        if isinstance(each, kinds.Stopsignal):
            signal = self.scope.expand(source, each.signal)
            try:
                signals.number(signal)
            except Invalid as e:
                raise error(source, e.message, e.hint, at=each.signal) from None
            config["StopSignal"] = signal
            return f"STOPSIGNAL {signal}"
        if isinstance(each, kinds.Shell):
            config["Shell"] = list(each.words)
            return f"SHELL [{' '.join(each.words)}]"
        if isinstance(each, kinds.Healthcheck):
            self._once("HEALTHCHECK", source)
            config["Healthcheck"] = _health(each)
            return f"HEALTHCHECK {source.text}"
        if isinstance(each, kinds.Maintainer):
            self.author = each.name
            return f"MAINTAINER {each.name}"
        assert isinstance(each, kinds.Onbuild)
        config["OnBuild"] = [*(config.get("OnBuild") or []), each.text]
        return f"ONBUILD {each.text}"

    def _arg(self, each: kinds.Arg) -> str:
        texts = []
        for one in each.arguments:
            key = self.scope.expand(each.source, one.key)
            self._no_secret("ARG", key, each.source, one.key)
            # A default is not looked at when a value is given: it may need what isn't there.
            written = None if one.value is None or key in self.given else self.scope.expand(each.source, one.value)
            value = self.scope.declare(key, written, self.given, self.globals)
            texts.append(key if value is None else f"{key}={value}")
        return f"ARG {' '.join(texts)}"

    def _pairs(self, each: kinds.Env | kinds.Label) -> str:
        name = each.source.name
        pairs = []
        for pair in each.pairs:
            if pair.old:
                message = f'"{name} key=value" should be used instead of legacy "{name} key value" format'
                self.notes.add("LegacyKeyValueFormat", message, each.source, pair.key)
            key, value = self.scope.expand(each.source, pair.key), self.scope.expand(each.source, pair.value)
            if name == "ENV":
                self._no_secret("ENV", key, each.source, pair.key)
            pairs.append((key, value))
        if isinstance(each, kinds.Label):
            self.config["Labels"] = {**(self.config.get("Labels") or {}), **dict(pairs)}
        else:
            for key, value in pairs:
                if "\0" in key + value:
                    raise error(each.source, f"{name} {key}: a value can't have a zero byte")
                self.scope.env[key] = value
                _put(self.config["Env"], key, value)
        return f"{name} {' '.join(f'{key}={value}' for key, value in pairs)}"

    def _command(self, each: kinds.Cmd | kinds.Entrypoint) -> str:
        name = each.source.name
        self._once(name, each.source)
        argv = list(each.command.words)
        if each.command.shell:
            if not self.config.get("Shell"):
                message = (
                    f"JSON arguments recommended for {each.source.keyword.text} "
                    "to prevent unintended behavior related to OS signals"
                )
                self.notes.add("JSONArgsRecommended", message, each.source)
            argv = [*self._shell(), " ".join(argv)]
        self.config["Cmd" if name == "CMD" else "Entrypoint"] = argv
        if name == "ENTRYPOINT" and "CMD" not in self._set:
            # The base's CMD belonged to its own entry point (Dockerfile reference, "CMD and ENTRYPOINT interact").
            self.config.pop("Cmd", None)
        return f"{name} {_list(argv)}"

    def _expose(self, each: kinds.Expose) -> str:
        found: dict[str, dict[str, str]] = dict(self.config.get("ExposedPorts") or {})
        for word in each.ports:
            try:
                texts = shell.split(word.text, self.scope.env, self.escape)
            except shell.WordError as e:
                raise error(each.source, f'failed to process "{word.text}": {e.message}', at=word) from None
            for text in texts:
                try:
                    one, mapped, capitals = ports.parse(text)
                except ports.PortError as e:
                    raise error(each.source, str(e), "as in EXPOSE 8080 or EXPOSE 53/udp", at=word) from None
                if capitals:
                    message = f"Defined protocol '{text}' in EXPOSE instruction should be lowercase"
                    self.notes.add("ExposeProtoCasing", message, each.source, word)
                if mapped:
                    message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'"
                    self.notes.add("ExposeInvalidFormat", message, each.source, word)
                found.update((port, {}) for port in one)
        self.config["ExposedPorts"] = found
        return f"EXPOSE {each.source.text}"

    def _workdir(self, each: kinds.Workdir) -> None:
        path = self.scope.expand(each.source, each.path)
        if not self.workdir_set and not path.startswith("/"):
            message = f'Relative workdir "{path}" can have unexpected results if the base image changes'
            self.notes.add("WorkdirRelativePath", message, each.source, each.path)
        self.workdir_set = True
        whole = self._absolute(path)
        self.config["WorkingDir"] = whole
        place, created_by = self._place(each.source), f"WORKDIR {whole}"
        if whole == "/":
            self.steps.append(plan.Note(place, created_by))
        else:
            self.steps.append(plan.Directory(place, whole, str(self.config.get("User") or ""), created_by))

    def _copy(self, each: kinds.Copy) -> plan.Copy:
        origin = self.origin(each.origin, each, "cannot copy from stage")
        workdir = str(self.config.get("WorkingDir") or "/")
        place = self._place(each.source)
        place = replace(place, text=without_login(place.text))
        return plan_copy(each, self.scope, origin, workdir, place, self.ignored)

    def _run(self, each: kinds.Run) -> plan.Run:
        source, command = each.source, each.command
        argv = list(command.words)
        scripts: tuple[plan.File, ...] = ()
        if command.heredocs:
            text = argv[0]
            alone = _opens_heredoc(text)
            first = command.heredocs[0]
            if alone and first.text.startswith("#!"):
                scripts = (plan.File(first.name, first.text),)
                argv = [f"{SCRIPTS}/{first.name}"]
            elif alone:
                argv = [first.text]
            else:
                argv = [text + "".join(f"\n{one.content}{one.name}" for one in command.heredocs)]
        if command.shell:
            argv = [*self._shell(), " ".join(argv)]
        return plan.Run(
            place=self._place(source),
            argv=tuple(argv),
            env=tuple(self.scope.env.items()),
            proxies=variables.proxies(self.given),
            workdir=str(self.config.get("WorkingDir") or "/"),
            user=str(self.config.get("User") or ""),
            mounts=tuple(self._mount(each, word) for word in each.mounts),
            scripts=scripts,
            network=each.network,
            security=each.security,
            devices=each.devices,
            created_by=f"RUN {self.scope.shown()}{' '.join(argv)}",
        )

    def _mount(self, each: kinds.Run, word: Word) -> plan.MountFrom:
        text = word.text.partition("=")[2]
        try:
            found = mounts.parse(
                text, lambda value: self.scope.expand(each.source, Word(value, word.line, word.column))
            )
        except mounts.MountError as e:
            raise error(each.source, e.message, e.hint, at=word) from None
        if found.type not in ("secret", "ssh") or found.target:
            target = self._absolute(found.target) if found.target else ""
            if target in ("", "/"):
                raise error(
                    each.source, f'invalid mount target "{found.target}"', "name a directory: target=/path", at=word
                )
            found = replace(found, target=target)
        origin = plan.Origin("scratch")
        if found.type == "bind" or (found.type == "cache" and found.origin):
            origin = self.origin(found.origin, each, "cannot mount from stage")
        if found.type == "cache" and not found.id:
            found = replace(found, id=found.target)
        return plan.MountFrom(found, origin)

    def _no_secret(self, what: str, key: str, source: Instruction, at: Word) -> None:
        if sounds_secret(key):
            message = f'Do not use ARG or ENV instructions for sensitive data ({what} "{key}")'
            self.notes.add("SecretsUsedInArgOrEnv", message, source, at)

    def _once(self, name: str, source: Instruction) -> None:
        before = self._set.get(name)
        if before is not None:
            message = (
                f"Multiple {before.keyword.text} instructions should not be used in the same stage "
                "because only the last one will be used"
            )
            self.notes.add("MultipleInstructionsDisallowed", message, before)
        self._set[name] = source

    def _shell(self) -> list[str]:
        return list(self.config.get("Shell") or DEFAULT_SHELL)

    def _absolute(self, path: str) -> str:
        return absolute(str(self.config.get("WorkingDir") or "/"), path)

    def _place(self, source: Instruction) -> plan.Place:
        text = f"{source.name}{source.original[len(source.keyword.text) :]}"
        return plan.Place(text, self._at.line, self._at.column)


def _opens_heredoc(text: str) -> bool:
    try:
        return parse_heredoc(text) is not None
    except shell.WordError:
        return False


def _health(each: kinds.Healthcheck) -> dict[str, Any]:
    times = {
        "Interval": each.interval,
        "Timeout": each.timeout,
        "StartPeriod": each.start_period,
        "StartInterval": each.start_interval,
        "Retries": each.retries,
    }
    return {"Test": list(each.test), **{key: value for key, value in times.items() if value}}


def _put(env: list[str], key: str, value: str) -> None:
    """Replaces the variable where it stands, or adds it."""
    for index, each in enumerate(env):
        if each.partition("=")[0] == key:
            env[index] = f"{key}={value}"
            return
    env.append(f"{key}={value}")


def _list(argv: list[str]) -> str:
    import json

    return json.dumps(argv, ensure_ascii=False, separators=(" ", ": "))


def _clean(config: dict[str, Any]) -> dict[str, Any]:
    """Without the fields that say nothing."""
    return {key: value for key, value in copy.deepcopy(config).items() if value not in ("", None, [], {})}
