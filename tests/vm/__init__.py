"""Guests: a Debian with another kernel and another set-up than this host, booted under QEMU's emulation, to test in.

    ./check --vm                                              every guest with its part of the tests
    ./check --vm trixie                                       one of them
    ./check --vm trixie tests/containers/test_limits.py -x    any part of the tests, with pytest's options
    ./check --vm trixie --reboot                              only what shows over a reboot
    python -m tests.vm.run trixie --shell 'uname -r; findmnt' anything else (needs .venv-check's Python, as root)

The checkout is shared in as it is, uncommitted changes too. What the guest prints is streamed, and its JUnit report is
brought out. The guest's disk is thrown away at its end. A guest that hangs is ended by a time limit, and the last lines
of its console are shown.

`recipe`: what a guest is made of. `guest`: makes it, once, in `~/.cache/limpet/vm` (or `LIMPET_VM_CACHE`), by the
digest of the recipe. `machine`: boots it. `run`: the command line. `inside`: what only runs in a guest.

There is no network in a guest, and no udev; systemd, D-Bus and journald are as Debian has them.
"""
