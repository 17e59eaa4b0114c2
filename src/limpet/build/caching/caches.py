"""The caches of one build from its begin to its end: opened when a step needs them, written when the image is there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from limpet.build.caching.steps import StepCache
from limpet.errors import LimpetError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from limpet.build.caching.specs import Caching, To
    from limpet.build.reporting.report import Report
    from limpet.store.store import Store


class Caches:
    """`with Caches(…) as cache:` gives `cache.steps` to the solver, and tells `built` of the image. Holds no lease."""

    def __init__(
        self,
        store: Store,
        wanted: Caching | None,
        epoch: int,
        *,
        no_cache: bool,
        platform: str,
        report: Report,
    ) -> None:
        self._store = store
        self._targets = wanted.targets if wanted is not None else ()
        self._epoch = epoch
        self._report = report
        self._image_id = ""
        found = []
        if wanted is not None and wanted.sources and not no_cache:
            from limpet.build.caching.sources import sources

            found = sources(store, wanted.sources, platform, report, self._warn)
        self.steps = StepCache(
            store,
            no_cache=no_cache,
            skip=wanted.skip if wanted is not None else (),
            sources=found,
            warn=self._warn,
        )

    def __enter__(self) -> Caches:
        return self

    def carried(self, config: bytes, layers: Sequence[str]) -> bytes:
        """The config of an image, with the cache that it is to carry, if any."""
        if not any(each.type == "inline" for each in self._targets):
            return config
        from limpet.build.caching import export, records

        inline = export.inline(self.steps.used, layers, self._epoch)
        if not inline:
            return config
        return json.dumps(
            {**json.loads(config), records.INLINE: inline}, sort_keys=True, separators=(",", ":")
        ).encode()

    def built(self, stacks: Sequence[Sequence[str]], image_id: str) -> None:
        """Writes the caches. `stacks`: the layers of each platform's image; `image_id` is "" if none is in the store.

        Raises LimpetError.
        """
        self._image_id = image_id
        for target in self._targets:
            if target.type == "inline":
                continue
            try:
                self._export(target, stacks)
            except LimpetError as e:
                if not target.ignore_error:
                    raise type(e)(f"--cache-to {target.title}: {e.message}", e.hint, exit_code=1) from e
                self._warn(f"--cache-to {target.title}: {e}")

    def _export(self, target: To, stacks: Sequence[Sequence[str]]) -> None:
        from limpet.build.caching.export import export

        count = export(self._store, target, self.steps.used, stacks, self._epoch, self._report)
        if count:
            self._report.say(f"Cache of {count} steps written to {target.title}")
        else:
            self._warn(f"--cache-to {target.title}: no step made a layer: nothing was written")

    def _warn(self, text: str) -> None:
        self._report.say(text, warning=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.steps.close()
        if error is None or isinstance(error, LimpetError):
            self.steps.finish(self._image_id)
