"""What a registry is told by its command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from limpet.serving.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.registry.server.source import Images


@dataclass(frozen=True)
class Config:
    """What is not plain from the names:

    `sparse`: an index may come before its images, or without some of them.
    `rate`, `quota`: requests a second for each client, bytes of a repository; 0 for no limit.
    `gc_seconds`: between collections, 0 for none; `grace_seconds`, `upload_seconds`: the age of what they may take;
    `unused_seconds`: after which a cache drops what nobody asks for, 0 for never.
    `passwords`, `access`: the files of `users.py`, "" for a registry without users.
    `url`: how clients call us, if not as they do; `secure`: with TLS.
    `proxy`: the domain of a registry to be a cache of, `proxy_seconds`: how long one of its tags is believed.
    `images` opens an engine's images in a worker, to serve those.
    """

    storage: str
    read_only: bool = False
    delete: bool = True
    sparse: bool = False
    rate: float = 0
    quota: int = 0
    gc_seconds: float = 24 * 3600
    grace_seconds: float = 3600
    upload_seconds: float = 24 * 3600
    unused_seconds: float = 0
    access_log: str = ""
    audit_log: str = ""
    passwords: str = ""
    access: str = ""
    url: str = ""
    secure: bool = False
    proxy: str = ""
    proxy_seconds: float = 60
    images: Callable[[], Images] | None = None
    workers: int = 1
    limits: Limits = field(default_factory=Limits)
