"""An ssh agent for one build, for `--ssh NAME=KEY`: it has the keys of the files that are named.

It is the machine's `ssh-agent`, and ends with the build. Its socket lies in the store's directory for temporary files,
and is called by a descriptor of that, since a socket's path can't be longer than 107 bytes.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from limpet.errors import Invalid, NotFound
from limpet.store.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from limpet.store.store import Store

_PATIENCE = 10.0


@contextmanager
def agent(store: Store, name: str, keys: Sequence[str]) -> Iterator[str]:
    """The path of its socket. Raises NotFound without OpenSSH, Invalid for what is no key or has a passphrase."""
    programs = [shutil.which(program) for program in ("ssh-agent", "ssh-add")]
    if None in programs:
        raise NotFound(f"--ssh {name}={keys[0]}: ssh-agent is not installed", "apt install openssh-client")
    with ExitStack() as stack:
        directory = store.temporary("agent")
        os.mkdir(directory, 0o700)
        stack.callback(remove_tree, directory)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        socket = f"/proc/{os.getpid()}/fd/{fd}/socket"
        setpriv = shutil.which("setpriv")
        prefix = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        process = subprocess.Popen(
            [*prefix, str(programs[0]), "-D", "-a", socket],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        stack.callback(_end, process)
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], _PATIENCE)[0] or not process.stdout.read(1):
            raise Invalid(f"--ssh {name}={keys[0]}: ssh-agent does not start")
        for key in keys:
            done = subprocess.run(
                [str(programs[1]), "-q", key],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env={"PATH": os.environ.get("PATH", ""), "SSH_AUTH_SOCK": socket, "SSH_ASKPASS_REQUIRE": "never"},
            )
            if done.returncode:
                words = " ".join(done.stderr.split())[:200] or "it has a passphrase, or is no key"
                hint = f"a key with a passphrase goes into an agent of yours: ssh-add {key}, and --ssh {name}"
                raise Invalid(f"--ssh {name}={key}: {words}", hint)
        yield socket


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
