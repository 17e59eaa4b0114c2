"""`./check --vm`, or `python -m tests.vm.run [GUEST] [pytest's options]`: boots guests, and merges their reports."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from tests.vm import machine
from tests.vm.recipe import GUESTS, Guest

_REBOOT_SECONDS = 600.0


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./check --vm", description=__doc__, allow_abbrev=False)
    parser.add_argument("guest", nargs="?", metavar="GUEST", help=f"{', '.join(GUESTS)}; without one, all of them")
    parser.add_argument("--junit-xml", type=Path, metavar="FILE", help="where the merged report goes")
    parser.add_argument("--shell", metavar="SCRIPT", help="run this as root in /checkout, and no tests")
    parser.add_argument("--reboot", action="store_true", help="only what shows over a reboot")
    parser.add_argument("--seconds", type=float, help="the time limit (default: that of the guest)")
    options, arguments = parser.parse_known_args(words)
    if options.guest is not None and options.guest not in GUESTS:
        parser.error(f"{options.guest}: there is no such guest; there are: {', '.join(GUESTS)}")
    chosen = [GUESTS[options.guest]] if options.guest else list(GUESTS.values())
    if options.shell is not None:
        return max(_shell(guest, options.shell, options.seconds or guest.seconds) for guest in chosen)
    suites = ElementTree.Element("testsuites")
    worst = 0
    for guest in chosen:
        seconds = options.seconds or guest.seconds
        runs = [] if options.reboot else [(arguments or ["-n", "2", *guest.part], "")]
        if guest.quick and not (arguments or options.reboot):
            runs.append((["-n", "2", "-m", "not slow", *guest.quick], ""))
        if options.reboot or (not arguments and guest.reboot):
            runs.append((["tests/vm/inside/before_reboot.py"], "tests/vm/inside/after_reboot.py"))
        for first, second in runs:
            worst = max(worst, _tests(guest, first, second, seconds, suites))
    if options.junit_xml:
        ElementTree.ElementTree(suites).write(options.junit_xml, encoding="utf-8", xml_declaration=True)
    return worst


def _shell(guest: Guest, script: str, seconds: float) -> int:
    outcome = machine.boot(guest, [script], seconds)
    if problem := outcome.problem(1):
        print(f"vm: {problem}", file=sys.stderr)
        return 1
    return outcome.codes[0]


def _tests(guest: Guest, first: list[str], second: str, seconds: float, suites: ElementTree.Element) -> int:
    """Adds the reports of a boot, or of two with a reboot between them, to the suites; the exit code."""
    print(f"vm: {guest.name}: {' '.join([*first, second]).strip()}", flush=True)
    stages = [machine.pytest_script(first, "report-1.xml")]
    if second:
        # Without conftest: it watches over the host, and here the store is the host's own and stays.
        stages = [machine.pytest_script(["--noconftest", *first], "report-1.xml")]
        stages.append(machine.pytest_script(["--noconftest", second], "report-2.xml"))
    outcome = machine.boot(guest, stages, seconds)
    merge(suites, guest.name, [outcome.files.get(f"report-{n}.xml") for n in range(1, len(stages) + 1)])
    problem = outcome.problem(len(stages))
    if problem:
        print(f"vm: {guest.name}: {problem}", flush=True)
        suite = ElementTree.SubElement(suites, "testsuite", name=guest.name, tests="1", errors="1")
        case = ElementTree.SubElement(suite, "testcase", classname=guest.name, name="the guest")
        ElementTree.SubElement(case, "error", message=problem.splitlines()[0]).text = problem
    print(f"vm: {guest.name}: {outcome.seconds:.0f} s with the boot", flush=True)
    return 1 if problem else max(outcome.codes)


def merge(suites: ElementTree.Element, guest: str, reports: list[bytes | None]) -> None:
    """Adds pytest's reports; each test is named after its guest. What a guest wrote by half counts as an error."""
    for report in reports:
        if report is None:
            continue  # it did not get that far, which is told by the guest's own error
        try:
            found = list(ElementTree.fromstring(report).iter("testsuite"))
        except ElementTree.ParseError as e:
            suite = ElementTree.SubElement(suites, "testsuite", name=guest, tests="1", errors="1")
            case = ElementTree.SubElement(suite, "testcase", classname=guest, name="the report")
            ElementTree.SubElement(case, "error", message=f"the report can't be read: {e}")
            continue
        for suite in found:
            suite.set("name", guest)
            for case in suite.iter("testcase"):
                case.set("classname", f"{guest}.{case.get('classname', '')}")
            suites.append(suite)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the guest and its directory go, as by Control-C
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as e:
        said = e.stderr.decode(errors="replace") if isinstance(e.stderr, bytes) else ""
        print(
            f"vm: {' '.join(map(str, e.cmd[:1]))} failed ({e.returncode}): the guest can't be made\n{said}",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
