"""Which log drivers there are, and the `--log-opt` of each: what is wrong is said when the container is made."""

from __future__ import annotations

from limpet.containers.logging import logfile
from limpet.containers.options import parse_size
from limpet.errors import Invalid
from limpet.nearest import near

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.containers.options import Options

DEFAULT = "json-file"
BUFFER = 1 << 20  # bytes, of max-buffer-size (Docker's default)
LOCAL_SIZE, LOCAL_FILES = 20_000_000, 5  # of the driver local, and of the copy for `logs` (moby `logger/local`)
FACILITIES = tuple(
    (
        "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp security console solaris-cron"
        " local0 local1 local2 local3 local4 local5 local6 local7"
    ).split()
)
"""By number (RFC 5424, 6.2.1, with the names of syslog(3))."""
FORMATS = ("rfc3164", "rfc5424", "rfc5424micro")
SCHEMES = ("udp", "tcp", "tcp+tls", "unix", "unixgram")

_ALL = ("mode", "max-buffer-size")
_ATTRIBUTES = ("tag", "labels", "labels-regex", "env", "env-regex")
_FILES = ("max-size", "max-file", "compress")
_SYSLOG = ("address", "facility", "format", "tls-ca-cert", "tls-cert", "tls-key", "tls-skip-verify")
_CACHE = ("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
KEYS: dict[str, tuple[str, ...]] = {
    DEFAULT: (*_FILES, *_ATTRIBUTES, *_ALL),
    "local": (*_FILES, *_ALL),
    "k8s-file": (*_FILES, *_ALL),
    "journald": (*_ATTRIBUTES, *_ALL),
    "syslog": (*(f"syslog-{name}" for name in _SYSLOG), *_ATTRIBUTES, *_CACHE, *_ALL),
    "none": (),
}
_ELSEWHERE = ("awslogs", "fluentd", "gcplogs", "gelf", "splunk", "etwlogs", "passthrough", "passthrough-tty")


def check(options: Options) -> None:
    """Raises Invalid."""
    driver, given = options.log_driver, options.log_opts
    if driver not in KEYS:
        others = near(driver, list(KEYS))
        hint = f"did you mean {' or '.join(others)}?" if others and driver not in _ELSEWHERE else ""
        raise Invalid(f"log driver '{driver}' is not there", hint or f"there are {', '.join(KEYS)}")
    if driver == "none" and given:
        raise Invalid("--log-opt with --log-driver none: there is no log", "leave out one of the two")
    for key in given:
        if key not in KEYS[driver]:
            others = near(key, list(KEYS[driver]))
            known = f"did you mean {' or '.join(others)}?" if others else f"it takes {', '.join(KEYS[driver])}"
            raise Invalid(f"unknown log opt '{key}' for the {driver} log driver", known)
    logfile.limits(given)
    buffer_size(given)
    compressed(given, driver)
    _one_of(given, "mode", ("blocking", "non-blocking"))
    if "max-buffer-size" in given and given.get("mode") != "non-blocking":
        raise Invalid("log opt max-buffer-size needs mode=non-blocking", "in blocking mode nothing is dropped")
    if any(given.get(key) for key in _ATTRIBUTES):
        from limpet.containers.logging.logdrivers import attributes

        attributes.check(given)
    if driver == "syslog":
        _check_syslog(given)


def buffer_size(options: dict[str, str]) -> int:
    """Of max-buffer-size, in bytes. Raises Invalid."""
    text = options.get("max-buffer-size", "")
    if not text:
        return BUFFER
    size = parse_size(text, "max-buffer-size")
    if not 1 << 16 <= size <= 1 << 30:
        raise Invalid(f"log opt max-buffer-size '{text}' is out of range", "64k to 1g")
    return size


def compressed(options: dict[str, str], driver: str) -> bool:
    """Whether rotated files are. Raises Invalid."""
    return flag(options, "compress", default=driver == "local")


def cache(options: dict[str, str]) -> tuple[int, int, bool] | None:
    """Of the copy beside a driver that can't be read: bytes, files, compressed; None for no copy. Raises Invalid."""
    if flag(options, "cache-disabled", default=False):
        return None
    given = {key.removeprefix("cache-"): value for key, value in options.items() if key.startswith("cache-")}
    size, files = logfile.limits(given, LOCAL_SIZE, LOCAL_FILES)
    return size, files, flag(given, "compress", default=True)


def address(options: dict[str, str]) -> tuple[str, str, int]:
    """syslog-address → (scheme, host or path, port); ("", "", 0) for the host's own. Raises Invalid."""
    text = options.get("syslog-address", "")
    if not text:
        return "", "", 0
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in SCHEMES:
        raise Invalid(f"syslog-address '{text}' is invalid", f"write {'://, '.join(SCHEMES)}:// and where")
    if scheme.startswith("unix"):
        if not rest.startswith("/"):
            raise Invalid(f"syslog-address '{text}': the path must be absolute", f"write {scheme}:///dev/log")
        return scheme, rest, 0
    host, colon, port = rest.rpartition(":")
    if not colon or rest.endswith("]"):
        host, port = rest, "6514" if scheme == "tcp+tls" else "514"
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Invalid(f"syslog-address '{text}' is invalid", f"write {scheme}://HOST:PORT")
    return scheme, host, int(port)


def facility(options: dict[str, str]) -> int:
    """Its number; daemon's if none is given. Raises Invalid."""
    text = options.get("syslog-facility", "") or "daemon"
    if text.isdecimal() and int(text) < len(FACILITIES):
        return int(text)
    if text not in FACILITIES:
        raise Invalid(f"syslog-facility '{text}' is unknown", f"it is one of {', '.join(FACILITIES)}, or its number")
    return FACILITIES.index(text)


def _check_syslog(options: dict[str, str]) -> None:
    scheme, _, _ = address(options)
    facility(options)
    cache(options)
    _one_of(options, "syslog-format", FORMATS)
    for key in options:
        if key.startswith("syslog-tls-") and scheme != "tcp+tls":
            raise Invalid(f"log opt {key} needs syslog-address=tcp+tls://HOST", "other addresses have no TLS")
    if bool(options.get("syslog-tls-cert")) != bool(options.get("syslog-tls-key")):
        raise Invalid("log opts syslog-tls-cert and syslog-tls-key need each other", "give both")
    flag(options, "syslog-tls-skip-verify", default=False)


def _one_of(options: dict[str, str], key: str, values: tuple[str, ...]) -> None:
    text = options.get(key, "")
    if text and text not in values:
        raise Invalid(f"log opt {key} '{text}' is invalid", f"it is one of {', '.join(values)}")


def flag(options: dict[str, str], key: str, *, default: bool) -> bool:
    """Of an option that is true or false. Raises Invalid."""
    text = options.get(key, "").lower()
    if text in ("true", "1", "t"):
        return True
    if text in ("false", "0", "f"):
        return False
    if text:
        raise Invalid(f"log opt {key} '{options[key]}' is invalid", "it is true or false")
    return default
