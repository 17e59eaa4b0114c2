"""Who is asking, and whether they may: Basic credentials, our own Bearer tokens, challenges, the token endpoint."""

from __future__ import annotations

import base64
import binascii
import json
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from aiohttp.web import Response

from limpet.registry.server import routes, tokens
from limpet.registry.server.errors import RegistryError
from limpet.registry.server.tokens import Identity, Tokens
from limpet.registry.server.users import Users
from limpet.serving import bodies
from limpet.serving.limits import Bucket

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest, StreamResponse

    from limpet.registry.server.config import Config
    from limpet.registry.server.routes import Route

_NOBODY = Identity("", {})
_MOST_MISTAKES = 10_000


class Guard:
    """With `--auth`. Wrong passwords are slowed down by address: five at once, then one in ten seconds.

    A right one makes up for the wrong ones of the same user, and of nobody else: who has a user of their own must not
    get more tries at another's.
    """

    def __init__(self, config: Config, root: str) -> None:
        self._config = config
        self.users = Users(config.passwords, config.access)
        self._tokens = Tokens(tokens.key_of(root))
        self._wrong = Bucket(0.1, burst=5)
        self._mistakes: dict[tuple[str, str], int] = {}  # by address and user, since the last right one

    async def identify(self, request: BaseRequest, client: str) -> Identity:
        """Raises UNAUTHORIZED for credentials that are wrong; none at all are nobody's."""
        header = request.headers.get("Authorization", "")
        scheme, _, value = header.partition(" ")
        if not header:
            return _NOBODY
        if scheme.lower() == "bearer":
            found = self._tokens.read(value.strip())
            if found is None:
                raise self._challenge(request, "", "invalid_token")
            return found
        if scheme.lower() == "basic":
            return await self._basic(request, value.strip(), client)
        raise self._challenge(request, "", "")

    async def _basic(self, request: BaseRequest, value: str, client: str) -> Identity:
        try:
            name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise self._challenge(request, "", "") from None
        await self._check(request, name, password, client)
        return Identity(name)

    async def _check(self, request: BaseRequest, name: str, password: str, client: str) -> None:
        wait = self._wrong.look(client)
        if wait:
            seconds = int(wait) + 1
            raise RegistryError(
                429,
                "TOOMANYREQUESTS",
                f"too many wrong passwords from this address: wait {seconds} s",
                headers={"Retry-After": str(seconds)},
            )
        if not await self.users.check(name, password):
            self._wrong.wait(client)
            if len(self._mistakes) >= _MOST_MISTAKES:
                self._mistakes.clear()
            self._mistakes[client, name] = self._mistakes.get((client, name), 0) + 1
            raise self._challenge(request, "", "")
        mistakes = self._mistakes.pop((client, name), 0)
        if mistakes:
            self._wrong.give_back(client, mistakes)

    def judge(self, request: BaseRequest, identity: Identity, route: Route) -> None:
        """Raises UNAUTHORIZED, or DENIED for a user who has shown who they are."""
        if route.kind == "base":
            if not identity.name and not request.headers.get("Authorization"):
                raise self._challenge(request, "", "")
            return
        if route.kind == "catalog":
            return  # lists only what its reader may pull
        wanted = [routes.PULL, route.action] if route.action == routes.PUSH else [route.action]
        if all(self.allows(identity, route.repository, one) for one in wanted):
            return
        if identity.name and identity.access is None:
            raise RegistryError(403, "DENIED", f"{identity.name} may not {route.action} {route.repository}")
        problem = "insufficient_scope" if identity.access else ""
        raise self._challenge(request, f"repository:{route.repository}:{','.join(wanted)}", problem)

    def allows(self, identity: Identity, repository: str, action: str) -> bool:
        if identity.access is None:
            return action in self.users.allowed(identity.name, repository)
        if action in identity.access.get(repository, ()):
            return True
        # Whoever shows nothing may still do what is open to all.
        return not identity.name and action in self.users.allowed("", repository)

    def shows(self, identity: Identity, repository: str) -> bool:
        """Whether the catalogue has this repository for its reader."""
        if identity.lists:
            return routes.PULL in self.users.allowed(identity.name, repository)
        return self.allows(identity, repository, routes.PULL)

    def _challenge(self, request: BaseRequest, scope: str, problem: str) -> RegistryError:
        parts = [f'Bearer realm="{self._base(request)}/token"', f'service="{tokens.SERVICE}"']
        if scope:
            parts.append(f'scope="{scope}"')
        if problem:
            parts.append(f'error="{problem}"')
        return RegistryError(401, "UNAUTHORIZED", headers={"Www-Authenticate": ",".join(parts)})

    def challenge_basic(self) -> RegistryError:
        """For people with a browser, and for Prometheus."""
        return RegistryError(401, "UNAUTHORIZED", headers={"Www-Authenticate": 'Basic realm="limpet"'})

    def _base(self, request: BaseRequest) -> str:
        """Where the client has us: what it was told to call us, or what it called."""
        if self._config.url:
            return self._config.url.rstrip("/")
        host = "".join(c for c in request.headers.get("Host", "localhost") if c.isalnum() or c in ".-:[]_")
        return f"{'https' if self._config.secure else 'http'}://{host[:255]}"

    async def token(self, request: BaseRequest, client: str) -> StreamResponse:
        """GET with Basic credentials or without; POST with a form, as OAuth2 has it (grant_type=password)."""
        if request.method == "POST":
            form = parse_qs(
                (await bodies.whole(request, 1 << 16, self._config.limits.silence)).decode("utf-8", "replace")
            )
            if form.get("grant_type") != ["password"]:
                return _json({"error": "unsupported_grant_type"}, 400)
            name, password = form.get("username", [""])[0], form.get("password", [""])[0]
            await self._check(request, name, password, client)
            scopes = form.get("scope", [])
        elif request.method == "GET":
            header = request.headers.get("Authorization", "")
            name = (await self.identify(request, client)).name if header.lower().startswith("basic ") else ""
            scopes = request.query.getall("scope", [])
        else:
            raise RegistryError(405, "UNSUPPORTED", headers={"Allow": "GET, POST"})
        token = self._tokens.issue(name, scopes, self.users)
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return _json({"token": token, "access_token": token, "expires_in": tokens.LIFETIME, "issued_at": issued}, 200)


def _json(value: object, status: int) -> Response:
    return Response(
        status=status,
        body=json.dumps(value).encode(),
        headers={"Content-Type": "application/json", "Cache-Control": "no-store"},
    )
