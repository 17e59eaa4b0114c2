"""Seccomp profiles (OCI `linux.seccomp`) → BPF programs.

A program decides as the program that runc and libseccomp 2.6 make of the same profile:

- the machine's own architecture is always part of it; calls of one that is not kill the thread; on x86-64 those of
  x32 (bit 30 of the number) are an architecture of their own;
- names that no table of ours has are ignored; a rule without arguments beats those with arguments, the first wins;
  conditions in one entry hold together, but are alternatives if two of them look at the same argument;
- on 32-bit architectures only the low half of an argument counts; on i386 a rule for a socket or System V IPC call
  goes for the same call through socketcall(2) and ipc(2) too;
- if the default denies, numbers above the highest that the profile names give ENOSYS instead, so that a C library
  falls back to what it used before (runc `patchbpf`).

Rules with different actions that match the same arguments are ordered as in libseccomp's trees: the higher argument
first, then equality before ranges. SCMP_ACT_NOTIFY and filter flags are refused by name.
"""

from __future__ import annotations

from limpet.errors import Invalid
from limpet.kernel import cbpf
from limpet.kernel.sys import MACHINE
from limpet.kernel.syscalls import X32_BIT, numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from limpet.kernel.cbpf import Code, Condition

    Profile = Mapping[str, Any]
    Verdict = int | list[tuple[tuple[Condition, ...], int]]
    """An action whatever the arguments, or rules."""
    Rule = tuple[list[str], int, list[tuple[Condition, ...]]]

ARCHITECTURES = {"x86_64": ("X86_64", "X86", "X32"), "aarch64": ("AARCH64", "ARM")}
"""By machine: whose programs it can run."""

_AUDIT = {"X86_64": 0xC000003E, "X86": 0x40000003, "AARCH64": 0xC00000B7, "ARM": 0x40000028}  # linux/audit.h
_WIDE = ("X86_64", "AARCH64")
_FOREIGN = (
    "MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X PARISC PARISC64 RISCV64 "
    "LOONGARCH64 M68K SH SHEB"
).split(" ")
_EPERM, _ENOSYS = 1, 38
_ALLOW, _LOG, _TRACE, _ERRNO, _TRAP = 0x7FFF0000, 0x7FFC0000, 0x7FF00000, 0x00050000, 0x00030000
_KILL_THREAD, _KILL_PROCESS = 0x00000000, 0x80000000
_ACTIONS = {
    "SCMP_ACT_ALLOW": _ALLOW,
    "SCMP_ACT_LOG": _LOG,
    "SCMP_ACT_TRACE": _TRACE,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_TRAP": _TRAP,
    "SCMP_ACT_KILL": _KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": _KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": _KILL_PROCESS,
}
_OPERATIONS = {  # and libseccomp's order of precedence
    "SCMP_CMP_EQ": 3,
    "SCMP_CMP_NE": 3,
    "SCMP_CMP_MASKED_EQ": 3,
    "SCMP_CMP_LE": 2,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_GE": 1,
    "SCMP_CMP_GT": 1,
}
# i386: name → number of the multiplexing call, its first argument (linux/net.h, linux/ipc.h).
_SOCKETCALL, _IPC = 102, 117
_MULTIPLEXED = {
    name: (_SOCKETCALL, number)
    for number, name in enumerate(
        (
            "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom shutdown "
            "setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg"
        ).split(" "),
        1,
    )
} | {
    name: (_IPC, first + number)
    for first, names in (
        (1, "semop semget semctl semtimedop"),
        (11, "msgsnd msgrcv msgget msgctl"),
        (21, "shmat shmdt shmget shmctl"),
    )
    for number, name in enumerate(names.split(" "))
}
_MAX_VALUE = 2**64 - 1


def compile(profile: Profile, arch: str = "") -> bytes:
    """The program for a machine, by its name in uname(2). Raises Invalid, naming what is wrong."""
    machine = arch or MACHINE
    if machine not in ARCHITECTURES:
        raise Invalid(f"seccomp: no table of system calls for {machine}", "--security-opt seccomp=unconfined")
    default = _action(profile, "defaultAction", "defaultErrnoRet", "the default action")
    stubbed = default not in (_ALLOW, _LOG) and default & 0xFFFF0000 != _TRACE
    stubbed = stubbed and profile.get("defaultErrnoRet") != _ENOSYS
    rules = [_rule(entry, at) for at, entry in enumerate(_list(profile, "syscalls", "the profile"))]
    architectures = _architectures(profile, machine)
    _refuse_flags(profile)
    ranges: dict[str, list[tuple[int, Verdict]]] = {}
    for name in architectures:
        table = numbers(name)
        verdicts = _verdicts(rules, table, default, name)
        last = _last(rules, table, name) if stubbed else 0
        ranges[name] = _ranges(verdicts, default, last, first=X32_BIT if name == "X32" else 0)
    if "X86_64" in ranges:  # one architecture to the kernel: bit 30 tells them apart
        foreign: list[tuple[int, Verdict]] = [(X32_BIT, _KILL_THREAD), (0xFFFFFFFF, default)]
        x32 = ranges.pop("X32", foreign)
        below = [(start, verdict) for start, verdict in ranges["X86_64"] if start < X32_BIT]
        # Number -1 is a tracer's "skip this call", and is in neither.
        ranges["X86_64"] = below + x32
    cases = [(_AUDIT[name], _body(found, default, name in _WIDE)) for name, found in ranges.items()]
    code = cbpf.load(cbpf.ARCHITECTURE) + cbpf.dispatch(cases, cbpf.leave(_KILL_THREAD))
    if len(code) > cbpf.MOST_INSTRUCTIONS:
        raise Invalid(
            f"the seccomp profile compiles to {len(code)} instructions; the kernel takes {cbpf.MOST_INSTRUCTIONS}",
            "leave out rules that look at arguments",
        )
    return cbpf.assemble(code)


def _architectures(profile: Profile, machine: str) -> list[str]:
    """Those that count on this machine; the machine's own is implied."""
    said = {ARCHITECTURES[machine][0]}
    for text in _list(profile, "architectures", "the profile"):
        name = text.removeprefix("SCMP_ARCH_") if isinstance(text, str) else ""
        if name not in _AUDIT and name not in _FOREIGN and name != "X32":
            raise Invalid(f"seccomp profile: architecture {text!r} is unknown", "they are called SCMP_ARCH_X86_64, …")
        said.add(name)
    return [name for name in ARCHITECTURES[machine] if name in said]


def _refuse_flags(profile: Profile) -> None:
    for flag in _list(profile, "flags", "the profile"):
        if flag != "SECCOMP_FILTER_FLAG_TSYNC":  # there is one thread when it is installed
            raise Invalid(f"seccomp profile: flag {flag!r} is not supported", "leave it out")


def _rule(entry: Any, at: int) -> Rule:
    """Names, action, and the alternatives: each a set of conditions that must all hold, () for whatever arguments."""
    where = f"rule {at + 1}"
    if not isinstance(entry, dict):
        raise Invalid(f"seccomp profile: {where} is not an object")
    names = _list(entry, "names", where)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise Invalid(f"seccomp profile: {where} has no names of system calls")
    where = f"{where} ({names[0]}{', …' if len(names) > 1 else ''})"
    action = _action(entry, "action", "errnoRet", where)
    conditions = [_condition(said, where) for said in _list(entry, "args", where)]
    indexes = [condition[0] for condition in conditions]
    if len(set(indexes)) < len(indexes):
        return names, action, [(condition,) for condition in conditions]
    return names, action, [tuple(sorted(conditions))]


def _action(said: Profile, key: str, errno_key: str, where: str) -> int:
    text = said.get(key)
    if text == "SCMP_ACT_NOTIFY":
        raise Invalid(f"seccomp profile: {where}: SCMP_ACT_NOTIFY needs an agent that answers, and is not supported")
    action = _ACTIONS.get(text) if isinstance(text, str) else None
    if action is None:
        raise Invalid(f"seccomp profile: {where}: {key} {text!r} is unknown", f"one of {', '.join(_ACTIONS)}")
    errno = said.get(errno_key)
    if errno is None:
        errno = _EPERM
    elif not _is_number(errno, 0xFFFF):
        raise Invalid(f"seccomp profile: {where}: {errno_key} {errno!r} is not an error number")
    return action | errno if action in (_ERRNO, _TRACE) else action


def _condition(said: Any, where: str) -> Condition:
    if not isinstance(said, dict):
        raise Invalid(f"seccomp profile: {where}: an argument's condition is not an object")
    index, operation = said.get("index", 0), said.get("op")
    value, second = said.get("value", 0), said.get("valueTwo", 0)
    if not _is_number(index, 5):
        raise Invalid(f"seccomp profile: {where}: there is no argument with index {index!r}")
    if not isinstance(operation, str) or operation not in _OPERATIONS:
        raise Invalid(f"seccomp profile: {where}: op {operation!r} is unknown", f"one of {', '.join(_OPERATIONS)}")
    if not _is_number(value, _MAX_VALUE) or not _is_number(second, _MAX_VALUE):
        raise Invalid(f"seccomp profile: {where}: values are numbers from 0 to {_MAX_VALUE}")
    return index, operation, value, second


def _list(said: Profile, key: str, where: str) -> list[Any]:
    found = said.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise Invalid(f"seccomp profile: {where}: {key} is not a list")
    return found


def _is_number(value: object, highest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= highest


def _verdicts(rules: Sequence[Rule], table: Mapping[str, int], default: int, architecture: str) -> dict[int, Verdict]:
    verdicts: dict[int, Verdict] = {}
    wide = architecture in _WIDE
    for names, action, alternatives in rules:
        if action == default:
            continue
        for conditions in alternatives:
            counting = tuple(condition for condition in conditions if not _is_always(condition, wide))
            for name in names:
                if architecture == "X86" and name in _MULTIPLEXED:
                    number, which = _MULTIPLEXED[name]
                    others = [condition for condition in counting if condition[0] != 0]
                    _add(verdicts, number, ((0, "SCMP_CMP_EQ", which, 0), *others), action)
                if name in table:
                    _add(verdicts, table[name], counting, action)
    return verdicts


def _is_always(condition: Condition, wide: bool) -> bool:
    """A mask without bits that count holds for every value."""
    return condition[1] == "SCMP_CMP_MASKED_EQ" and not condition[2] & (_MAX_VALUE if wide else 0xFFFFFFFF)


def _add(verdicts: dict[int, Verdict], number: int, conditions: tuple[Condition, ...], action: int) -> None:
    before = verdicts.get(number)
    if isinstance(before, int):
        return
    if not conditions:
        verdicts[number] = action
    elif before is None:
        verdicts[number] = [(conditions, action)]
    else:
        before.append((conditions, action))


def _last(rules: Sequence[Rule], table: Mapping[str, int], architecture: str) -> int:
    """The highest number that the profile names; 0 if none. libseccomp has no numbers for i386's multiplexed names."""
    skipped = _MULTIPLEXED if architecture == "X86" else {}
    return max((table.get(name, 0) for names, _, _ in rules for name in names if name not in skipped), default=0)


def _ranges(verdicts: Mapping[int, Verdict], default: int, last: int, first: int) -> list[tuple[int, Verdict]]:
    """From `first` on: each start with what holds until the next. Above `last`, if it is not 0, ENOSYS holds."""
    found: list[tuple[int, Verdict]] = [(first, default)]

    def begin(number: int, verdict: Verdict) -> None:
        if found[-1][0] == number:
            found.pop()
        if not found or found[-1][1] != verdict:
            found.append((number, verdict))

    for number in sorted(verdicts):
        if last and number > last:
            break  # only i386's multiplexed names, which do not count for `last`
        begin(number, verdicts[number])
        begin(number + 1, default)
    if last:
        begin(last + 1, _ERRNO | _ENOSYS)
    return found


def _body(ranges: Sequence[tuple[int, Verdict]], default: int, wide: bool) -> Code:
    leaves = [_leaf(verdict, default, wide and start < X32_BIT) for start, verdict in ranges]
    return cbpf.load(cbpf.NUMBER) + cbpf.search([start for start, _ in ranges], leaves)


def _leaf(verdict: Verdict, default: int, wide: bool) -> Code:
    if isinstance(verdict, int):
        return cbpf.leave(verdict)
    if len({action for _, action in verdict}) > 1:
        verdict = sorted(verdict, key=_precedence)
    code: Code = []
    for conditions, action in verdict:
        code += cbpf.rule(conditions, action, wide=wide)
    return code + cbpf.leave(default)


def _precedence(rule: tuple[tuple[Condition, ...], int]) -> list[tuple[int, int, int]]:
    """libseccomp's `_db_chain_lt`, with an entry for each condition."""
    keys = []
    for index, operation, value, second in rule[0]:
        datum = value & second if operation == "SCMP_CMP_MASKED_EQ" else value
        ascending = operation in ("SCMP_CMP_LT", "SCMP_CMP_LE")
        keys.append((-index, -_OPERATIONS[operation], datum if ascending else -datum))
    return keys
