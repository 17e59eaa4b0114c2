"""A command as data: from one declaration come its parser, its help, its completion and its reference page."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from limpet.store.store import Store


class Option:
    """`kind`: bool, string, int, list (repeatable), optional (a string, its value may be left out: `--x`, `--x=v`).

    `aliases`: other long names for the same option, which the help does not show. `choices`: all values that there are;
    `offers`: some, for the shell.
    """

    __slots__ = ("aliases", "choices", "default", "help", "hidden", "kind", "metavar", "name", "offers", "short")

    def __init__(
        self,
        name: str,
        short: str = "",
        kind: str = "bool",
        metavar: str = "",
        help: str = "",
        default: Any = None,
        hidden: bool = False,
        choices: Sequence[str] = (),
        aliases: Sequence[str] = (),
        offers: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.metavar = metavar
        self.help = help
        self.default = False if default is None and kind == "bool" else default
        self.hidden = hidden
        self.choices = choices
        self.aliases = aliases
        self.offers = offers or choices


class Command:
    """`interspersed`: options may follow arguments.

    `complete`: what the arguments are, for the shell: container, which may be `running`, `stopped` or `paused`,
    `container:` (as cp wants it), image, registry,
    network, volume, file, or words themselves; several are joined by "|".
    """

    __slots__ = (
        "complete",
        "examples",
        "handler",
        "interspersed",
        "max_args",
        "min_args",
        "name",
        "options",
        "summary",
        "usage",
    )

    def __init__(
        self,
        name: str,
        handler: Callable[[Call], int],
        usage: str = "",
        summary: str = "",
        options: Sequence[Option] = (),
        examples: Sequence[str] = (),
        interspersed: bool = True,
        min_args: int = 0,
        max_args: int | None = None,
        complete: str = "",
    ) -> None:
        self.name = name
        self.handler = handler
        self.usage = usage
        self.summary = summary
        self.options = options
        self.examples = examples
        self.interspersed = interspersed
        self.min_args = min_args
        self.max_args = max_args
        self.complete = complete


_LOOKERS = frozenset(
    "attach,commit,container inspect,container prune,cp,diff,down,exec,history,image inspect,image prune,images,"
    "info,inspect,kill,logs,network disconnect,network inspect,network ls,network prune,network rm,"
    "pause,pod exists,pod inspect,pod kill,pod logs,pod ls,pod pause,pod prune,pod restart,pod rm,pod start,pod stats,"
    "pod stop,pod top,pod unpause,port,ps,push,rename,restart,rm,rmi,save,start,stop,system check,system df,"
    "system prune,system recover,tag,top,unpause,update,volume inspect,volume ls,volume prune,volume rm,wait".split(",")
)
"""Commands that begin no store: where there is none they find it empty, so that a slip in --root makes nothing."""


class Call:
    """One use of a command: `call["name"]` is an option's value, `call.arguments` the rest, `call.store` the store."""

    __slots__ = ("_root", "_run", "_store", "arguments", "command", "options")

    def __init__(
        self, command: Command, options: dict[str, Any], arguments: list[str], root: str = "", run: str = ""
    ) -> None:
        self.command = command
        self.options = options
        self.arguments = arguments
        self._root = root
        self._run = run
        self._store: Store | None = None

    def __getitem__(self, name: str) -> Any:
        return self.options[name]

    def get(self, name: str, default: Any = None) -> Any:
        """For code that several commands share: not each of them has the option."""
        return self.options.get(name, default)

    @property
    def store(self) -> Store:
        """Opened on first use: `--help` and mistakes need none. A user without root is in his namespace from then on.

        Raises Refused where he can't have one.
        """
        if self._store is None:
            said = self._root
            self.enter()
            from limpet.store.store import Store

            self._store = Store(self._root, self._run, make=self._makes)
            if self._store.absent and said:
                import sys

                print(f"limpet: {self.root}: there is no store yet; nothing was made", file=sys.stderr)
        return self._store

    def enter(self) -> None:
        """For what has to come before the store is opened: from here on we have the rights that the store needs.

        There must be one thread.
        """
        import os

        if os.geteuid():
            from limpet.store import unprivileged

            self._root, self._run = unprivileged.places(self._root, self._run)
            unprivileged.enter(self._root, self._run, make=self._makes)
        elif os.path.exists(f"{self.root}/ids"):
            from limpet.store import unprivileged

            unprivileged.refuse_root(self.root)

    @property
    def _makes(self) -> bool:
        return self.command.name not in _LOOKERS

    @property
    def root(self) -> str:
        """Where the store is, or would be."""
        import os

        from limpet.store.store import DEFAULT_ROOT

        if os.geteuid() and not self._root:
            from limpet.store import unprivileged

            return unprivileged.places("", self._run)[0]
        return os.path.abspath(self._root or os.environ.get("LIMPET_ROOT") or DEFAULT_ROOT)

    def has_store(self) -> bool:
        """Whether there is one already: for those who only look."""
        import os

        return os.path.exists(f"{self.root}/state.db")
