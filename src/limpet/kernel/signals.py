"""Signals by name and number. `import signal` builds enums (5 ms); the interpreter's own `_signal` does not."""

from __future__ import annotations

from limpet.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal

SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGPIPE, SIGTERM, SIGCHLD = 1, 2, 3, 9, 13, 15, 17
SIGCONT, SIGSTOP, SIGURG, SIGXFSZ, SIGWINCH = 18, 19, 23, 25, 28
SIGRTMIN, SIGRTMAX = 34, 64
DEADLY = (SIGHUP, SIGINT, SIGQUIT, SIGTERM)  # by which people and systems end a command

SIG_DFL, SIG_IGN = _signal.SIG_DFL, _signal.SIG_IGN

NAMES = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP "
    "TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
).split()
"""`NAMES[n - 1]` is signal n's, without SIG (x86 and ARM, signal(7))."""

_ALIASES = {"CLD": 17, "POLL": 29, "IOT": 6, "UNUSED": 31}


def number(text: str) -> int:
    """15 for "15", "TERM", "SIGTERM", "sigterm"; real-time ones as "RTMIN+3", "RTMAX-1". Raises Invalid."""
    upper = text.strip().upper().removeprefix("SIG")
    if upper.isascii() and upper.isdigit():
        value = int(upper[:4])
        if 1 <= value <= SIGRTMAX:
            return value
    elif upper in NAMES:
        return NAMES.index(upper) + 1
    elif upper in _ALIASES:
        return _ALIASES[upper]
    elif upper[:5] in ("RTMIN", "RTMAX"):
        base, rest = (SIGRTMIN if upper[:5] == "RTMIN" else SIGRTMAX), upper[5:]
        if not rest:
            return base
        if rest[0] in "+-" and rest[1:].isascii() and rest[1:].isdigit():
            value = base + int(rest[:4])
            if SIGRTMIN <= value <= SIGRTMAX:
                return value
    raise Invalid(f"invalid signal: {text}", "a name like TERM or a number from 1 to 64")


def name(signal: int) -> str:
    """ "SIGTERM" for 15, "SIGRTMIN+2" for 36; a number as text for what is no signal."""
    if 1 <= signal <= len(NAMES):
        return f"SIG{NAMES[signal - 1]}"
    if not SIGRTMIN <= signal <= SIGRTMAX:
        return str(signal)
    return "SIGRTMIN" if signal == SIGRTMIN else f"SIGRTMIN+{signal - SIGRTMIN}"


set_handler = _signal.signal


def reset(*, but: tuple[int, ...] = ()) -> None:
    """Every signal acts as it does by default, also what whoever started us ignored (`nohup`, a shell's `&`)."""
    for number in range(1, SIGRTMAX + 1):
        if number not in (SIGKILL, SIGSTOP, 32, 33, *but):  # 32 and 33 are the C library's own
            set_handler(number, SIG_DFL)


set_wakeup_fd = _signal.set_wakeup_fd
block = _signal.pthread_sigmask
valid = _signal.valid_signals
SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK = _signal.SIG_BLOCK, _signal.SIG_UNBLOCK, _signal.SIG_SETMASK
