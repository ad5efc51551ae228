"""The engine, over the docker SDK: https://docker-py.readthedocs.io"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.engine import find
from orchestrator.errors import ExecutorFailed
from orchestrator.home import Home

if TYPE_CHECKING:
    import docker

_TRUST_S = 5.0  # how long an answer to a ping is good
_DOUBT_S = 0.05  # how long none is: for one cast; who has just started the engine does not want to hear of it
CALL_LIMIT_S = 60.0


class EngineError(ExecutorFailed):
    """The engine refused, failed or did not answer. `status` is its HTTP status, 0 when it gave none."""

    def __init__(self, message: str, cure: str = "", status: int = 0) -> None:
        super().__init__(message, cure)
        self.status = status


class Engine:
    """The engine that a home's server uses.

    Args:
        home: whose containers and images are ours, by label.
        host: the configured address; "" looks for one.
        env: the server's environment variables.
        reach: how every container of ours finds others: `dns` and the like, in the SDK's names.
    """

    def __init__(
        self, home: Home, host: str = "", env: Mapping[str, str] = os.environ, reach: Mapping[str, Any] | None = None
    ) -> None:
        self.home, self.reach = home, dict(reach or {})
        self._find = functools.partial(find.find_host, host, env)
        self.host, self.is_named = self._find()
        self._asked_at, self._answered = float("-inf"), False
        self._asking = threading.Lock()

    def lacks(self) -> str:
        """Why no container can be run now, in words; "" when one can. Costs nothing most of the time."""
        if sys.platform != "linux":
            return "Containers are supported on Linux only."
        # The first answer is waited for. Later one caller asks again, and the others take what was said last.
        if self._is_old() and self._asking.acquire(blocking=self._asked_at < 0):
            try:
                if self._is_old():
                    self._ask()
            finally:
                self._asking.release()
        if not self.host:
            return "No Docker engine was found."
        if not self.host.startswith("unix://"):
            return f"The Docker engine at {self.host} is not on this machine."
        return "" if self._answered else f"No Docker engine answers at {self.host}."

    def _is_old(self) -> bool:
        return time.monotonic() - self._asked_at > (_TRUST_S if self._answered else _DOUBT_S)

    def _ask(self) -> None:
        if not self.host:  # it may have been started after us
            self.host, self.is_named = self._find()
        is_first = self._asked_at < 0
        limit_s = find.PING_LIMIT_S if is_first or self._answered else find.AGAIN_LIMIT_S
        self._answered = self.host.startswith("unix://") and find.answers(self.host, limit_s)
        if not self._answered:  # whoever answers next may be another engine
            self.__dict__.pop("api", None)
            self.__dict__.pop("info", None)
        self._asked_at = time.monotonic()

    @functools.cached_property
    def api(self) -> docker.APIClient:
        """The SDK's low-level client. It takes a while to load, hence not before it is used."""
        sdk: Any = importlib.import_module("docker")
        with self.told():
            client: docker.APIClient = sdk.APIClient(base_url=self.host, version="auto", timeout=CALL_LIMIT_S)
            client.trust_env = False  # it would look for proxies and passwords of the web at each request
            return client

    @functools.cached_property
    def info(self) -> dict[str, Any]:
        """What the engine says about itself: `docker info`."""
        with self.told():
            return dict(self.api.info())

    @property
    def is_rootless(self) -> bool:
        """Whether root in a container is the person who runs the engine."""
        return any("rootless" in option for option in self.info.get("SecurityOptions") or ())

    @property
    def user(self) -> str:
        """UID:GID in a container of the person who runs this server, so that files made there are theirs."""
        return "0:0" if self.is_rootless else f"{os.getuid()}:{os.getgid()}"

    @property
    def user_namespace(self) -> str | None:
        """What every container of ours is started with: "host" where users would else be others inside (userns-remap),
        and could not read what is theirs."""
        return "host" if "name=userns" in (self.info.get("SecurityOptions") or ()) else None

    @property
    def security_options(self) -> tuple[str, ...]:
        """What every container of ours is started with. SELinux would keep it from files that are not labelled for it."""
        has_selinux = any("selinux" in option for option in self.info.get("SecurityOptions") or ())
        return ("no-new-privileges", *(["label=disable"] if has_selinux else []))

    def confinement(self, pids: int | None = None, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What holds every container of ours, be it a run's, a build's or a probe's, as arguments of the SDK's
        `create_host_config`: no capabilities, no way to get any, and no more processes than `pids`.

        Args:
            options: more arguments, as the configuration has them. Of what is ours they may set the user namespace, and
                add to the security options.
        """
        more = options or {}
        return {
            "userns_mode": self.user_namespace,
            **more,
            "cap_drop": ["ALL"],
            "security_opt": [*self.security_options, *more.get("security_opt", ())],
            "pids_limit": pids,
        }

    def labels(self, **more: str | int) -> dict[str, str]:
        """The labels of what belongs to this home: `spell.home`, and `spell.NAME` for each of `more`."""
        return {"spell.home": str(self.home.root)} | {f"spell.{name}": str(value) for name, value in more.items()}

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Errors of the SDK and of its connection, as `EngineError`."""
        errors: Any = importlib.import_module("docker.errors")
        requests: Any = importlib.import_module("requests")
        urllib3: Any = importlib.import_module("urllib3.exceptions")  # of answers in pieces, which the SDK reads itself
        try:
            yield
        except errors.APIError as error:
            words = str(error.explanation or error).strip()
            raise EngineError(words, status=error.response.status_code if error.response is not None else 0) from error
        except (errors.DockerException, requests.RequestException, urllib3.HTTPError, OSError) as error:
            raise EngineError(f"the Docker engine at {self.host} does not answer: {error}") from error

    def remove(self, container: str, *, again: bool = False) -> None:
        """Remove a container with its anonymous volumes, running or not. No error when it is not there.

        Raises:
            EngineError: when it is still there.
        """
        try:
            with self.told():
                self.api.remove_container(container, v=True, force=True)
        except EngineError as error:
            if error.status == 409:  # somebody is at it: wait until it is gone
                self._await_removal(container)
            elif "is not running" in error.message and not again:  # it ended just when it was to be killed
                self.remove(container, again=True)
            elif error.status != 404:
                raise

    def _await_removal(self, container: str) -> None:
        try:
            with self.told():
                self.api.wait(container, condition="removed", timeout=CALL_LIMIT_S)
        except EngineError as error:
            if error.status != 404:
                raise
