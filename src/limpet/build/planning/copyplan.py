"""COPY and ADD of a stage: what is copied from where to where, everything expanded."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from limpet.build.language.dockerfile import error
from limpet.build.language.lines import Word
from limpet.build.planning import plan
from limpet.build.sources import reference
from limpet.build.sources.reference import remote_kind
from limpet.errors import Invalid

if TYPE_CHECKING:
    from limpet.build.language import instructions as kinds
    from limpet.build.language.dockerfile import Instruction
    from limpet.build.language.ignore import Ignore
    from limpet.build.language.scope import Scope

_PASSWORD = re.compile(r"(\b(?:https?|git|ssh)://[^\s/@:]*:)[^\s/@]+@", re.IGNORECASE)
_OCTAL = re.compile(r"[0-7]+\Z")
_SYMBOLIC = re.compile(r"[ugoa]*([-+=]([rwxXst]*|[ugo]))+(,[ugoa]*([-+=]([rwxXst]*|[ugo]))+)*\Z")


def plan_copy(
    each: kinds.Copy, scope: Scope, origin: plan.Origin, workdir: str, place: plan.Place, ignored: Ignore | None
) -> plan.Copy:
    """Raises Invalid."""
    source = each.source
    words = [scope.expand(source, word) for word in each.sources]
    target = scope.expand(source, each.target)
    chown, chmod = (
        scope.expand(source, _flag(source, name, text)) for name, text in (("chown", each.chown), ("chmod", each.chmod))
    )
    checksum = scope.expand(source, _flag(source, "checksum", each.checksum))
    _check_mode(source, chmod)
    plain: list[str] = []
    remotes: list[plan.Remote] = []
    for word, text in zip(each.sources, words, strict=True):
        kind = remote_kind(text)
        if kind:
            if not each.is_add:
                what = "a git ref" if kind == "git" else "a URL"
                raise error(source, f"source can't be {what} for COPY", "ADD can fetch it", at=word)
            remotes.append(_remote(each, word, kind, text, checksum))
        else:
            plain.append(_source(each, word, text, origin, scope, ignored))
    if checksum and (len(words) != 1 or not remotes):
        what = "requires HTTP(S) or Git sources" if len(words) == 1 else "can't be specified for multiple sources"
        raise error(source, f"checksum {what}", "one --checksum goes with one URL")
    files = tuple(plan.File(one.name, scope.content(source, one)) for one in each.files)
    slash = target.endswith(("/", "/.")) or target in (".", "..", "") or len(words) + len(files) > 1
    whole = absolute(workdir, target)
    whole = whole + "/" if slash and whole != "/" else whole
    unpack = each.is_add if each.unpack is None else each.unpack
    return plan.Copy(
        place=place,
        origin=origin,
        sources=tuple(plain),
        files=files,
        remotes=tuple(remotes),
        target=whole,
        chown=chown,
        chmod=chmod,
        link=each.link,
        parents=each.parents,
        excludes=each.excludes,
        unpack=unpack,
        created_by=_copied(source.name, each, chown, chmod, words, target),
    )


def _remote(each: kinds.Copy, word: Word, kind: str, text: str, checksum: str) -> plan.Remote:
    """Raises Invalid for what can't be fetched as it is written."""
    if kind == "http":
        if checksum and not reference.is_sha256(checksum):
            hint = "write sha256: and 64 hexadecimal digits"
            raise error(each.source, f"invalid checksum {checksum[:100]}", hint, at=_flag(each.source, "checksum", ""))
        return plan.Remote(kind, text, checksum, each.keep_git, unpack=bool(each.unpack))
    try:
        found = reference.with_checksum(reference.repository(text), checksum)
    except Invalid as e:
        raise error(each.source, without_login(e.message), e.hint, at=word) from None
    if each.keep_git is not None and found.keep_git is not None and each.keep_git != found.keep_git:
        raise error(each.source, "inconsistent keep-git-dir configuration", "say it once", at=word)
    keep = found.keep_git if each.keep_git is None else each.keep_git
    return plan.Remote(kind, text, found.checksum, keep)


def _source(each: kinds.Copy, word: Word, text: str, origin: plan.Origin, scope: Scope, ignored: Ignore | None) -> str:
    """A source relative to the context or the root, `..` taken out of the way."""
    pivot = each.parents and "/./" in text
    clean = text.lstrip("/") if pivot else posixpath.normpath(text.lstrip("/") or ".")
    if clean.startswith("../") or clean == "..":
        if origin.kind == "context":
            raise error(
                each.source, f"{text} lies outside the build context", "copy it into the directory first", at=word
            )
        clean = posixpath.normpath("/" + clean).lstrip("/") or "."
    if origin.kind == "context" and not origin.context and ignored is not None and not ignored.has_exceptions:
        _check_ignored(each, word, text, clean, scope, ignored)
    return "" if clean == "." else clean


def _check_ignored(each: kinds.Copy, word: Word, text: str, clean: str, scope: Scope, ignored: Ignore) -> None:
    everything = any(one.text in ("*", "**", "**/*") for one in ignored.patterns)
    if everything if clean == "." else ignored.ignores(clean):
        what = "Add" if each.is_add else "Copy"
        shown = posixpath.normpath(text)
        message = f'Attempting to {what} file "{shown}" that is excluded by .dockerignore'
        scope.notes.add("CopyIgnoredFile", message, each.source, word)


def absolute(workdir: str, path: str) -> str:
    """A path of the image."""
    return "/" + posixpath.normpath(posixpath.join(workdir, path)).lstrip("/")


def _flag(source: Instruction, name: str, text: str) -> Word:
    at = next((word for word in source.flags if word.text.startswith(f"--{name}=")), source.keyword)
    return Word(text, at.line, at.column)


def _check_mode(source: Instruction, mode: str) -> None:
    if not mode:
        return
    if _OCTAL.match(mode) and int(mode, 8) <= 0o7777:
        return
    if not mode[0].isdigit() and _SYMBOLIC.match(mode):
        return
    message = f"invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777"
    at = next((word for word in source.flags if word.text.startswith("--chmod")), None)
    raise error(source, message, "as in --chmod=755, or --chmod=u=rwX,go=rX", at=at)


def _copied(name: str, each: kinds.Copy, chown: str, chmod: str, words: list[str], target: str) -> str:
    flags = ["--parents"] if each.parents else []
    flags += [f"--chown={chown}"] if chown else []
    flags += [f"--chmod={chmod}"] if chmod else []
    shown = [without_login(word) if remote_kind(word) else word for word in words]
    return " ".join([name, *flags, *shown, *(f"<<{one.name}" for one in each.files), target])


def without_login(text: str) -> str:
    """An instruction's text with no password in its addresses: it is printed, and kept in the image's history."""
    return _PASSWORD.sub(r"\1***@", text)
