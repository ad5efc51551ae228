"""The Docker engine, through the docker SDK: https://docker-py.readthedocs.io"""

from __future__ import annotations

import contextlib
import functools
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
    from docker import APIClient

_TRUST_S = 5.0  # how long an answered ping is trusted
_DOUBT_S = 0.05  # how long an unanswered ping is trusted: about one cast, as a user may just have started the engine
CALL_LIMIT_S = 60.0


class EngineError(ExecutorFailed):
    """The engine refused, failed or did not answer. `status` is its HTTP status, 0 when it gave none."""

    def __init__(self, message: str, cure: str = "", status: int = 0) -> None:
        super().__init__(message, cure)
        self.status = status


class Engine:
    """The engine that a home's server uses.

    Args:
        home: the home.
        host: the configured address; "" to look for one.
        env: the server's environment variables.
        reach: network options of all our containers: `dns` and the like, by the SDK's names.
        key: names the home on our containers and images; its path if "".
    """

    def __init__(
        self,
        home: Home,
        host: str = "",
        env: Mapping[str, str] = os.environ,
        reach: Mapping[str, Any] | None = None,
        key: str = "",
    ) -> None:
        self.home, self.reach, self.key = home, dict(reach or {}), key or str(home.root)
        self._find = functools.partial(find.find_host, host, env)
        self.host, self.is_named = self._find()
        self._asked_at, self._answered = float("-inf"), False
        self._asking = threading.Lock()

    def lacks(self) -> str:
        """Return why no container can be run now; "" when one can. Usually costs nothing."""
        if sys.platform != "linux":
            return "Containers are supported only on Linux."
        # All callers wait for the first answer. Later one caller asks again, and the others take the last answer.
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
        if not self.host:  # the engine may have been started after us
            self.host, self.is_named = self._find()
        is_first = self._asked_at < 0
        limit_s = find.PING_LIMIT_S if is_first or self._answered else find.AGAIN_LIMIT_S
        self._answered = self.host.startswith("unix://") and find.answers(self.host, limit_s)
        if not self._answered:  # the next one to answer may be another engine
            self.__dict__.pop("api", None)
            self.__dict__.pop("info", None)
        self._asked_at = time.monotonic()

    @functools.cached_property
    def api(self) -> APIClient:
        """The SDK's low-level client."""
        from docker import APIClient  # 117 ms: requests; a server without an engine never needs it

        with self.translated_errors():
            client = APIClient(base_url=self.host, version="auto", timeout=CALL_LIMIT_S)
            client.trust_env = False  # else it looks for web proxies and passwords at each request
            return client

    @functools.cached_property
    def info(self) -> dict[str, Any]:
        """The engine's description of itself: `docker info`."""
        with self.translated_errors():
            return dict(self.api.info())

    @property
    def holds_cores(self) -> bool:
        """Whether it holds a container to some of our cores. An engine in a virtual machine counts cores of its own."""
        return bool(self.info.get("CPUSet")) and self.info.get("KernelVersion") == os.uname().release

    @property
    def is_rootless(self) -> bool:
        """Whether root in a container is the user who runs the engine."""
        return any("rootless" in option for option in self.info.get("SecurityOptions") or ())

    @property
    def user(self) -> str:
        """UID:GID, in a container, of the user who runs this server, so that the user owns the files made there."""
        return "0:0" if self.is_rootless else f"{os.getuid()}:{os.getgid()}"

    @property
    def user_namespace(self) -> str | None:
        """The user namespace of all our containers: "host" if the engine remaps users (userns-remap), because a remapped
        user could not read the user's files."""
        return "host" if "name=userns" in (self.info.get("SecurityOptions") or ()) else None

    @property
    def security_options(self) -> tuple[str, ...]:
        """Security options of all our containers. SELinux would deny them files that are not labelled for containers."""
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
        """Return the labels of things of this home: its path for people, its key for us, and `spell.NAME` for each of `more`."""
        named = {"spell.home": str(self.home.root), "spell.key": self.key}
        if self.key.startswith("/"):  # of a version whose only name of the home was its path
            named = {"spell.home": self.key}
        return named | {f"spell.{name}": str(value) for name, value in more.items()}

    def ours(self, role: str) -> list[str]:
        """Return the filter by labels for things of this home with this role. Its path may have been another one."""
        labels = self.labels(role=role)
        if "spell.key" in labels:
            del labels["spell.home"]
        return [f"{name}={value}" for name, value in labels.items()]

    @contextlib.contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Raise errors of the SDK and of its connection as `EngineError`."""
        # 117 ms: as in `api`; urllib3 raises for answers in pieces, which the SDK reads itself
        from docker.errors import APIError, DockerException
        from requests import RequestException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except APIError as error:
            words = str(error.explanation or error).strip()
            raise EngineError(words, status=error.response.status_code if error.response is not None else 0) from error
        except (DockerException, RequestException, HTTPError, OSError) as error:
            raise EngineError(f"the Docker engine at {self.host} does not answer: {error}") from error

    def remove(self, container: str, *, again: bool = False) -> None:
        """Remove a container with its anonymous volumes, running or not. No error when it does not exist.

        Raises:
            EngineError: when it still exists.
        """
        try:
            with self.translated_errors():
                self.api.remove_container(container, v=True, force=True)
        except EngineError as error:
            if error.status == 409:  # another client is removing it: wait until it is gone
                self._await_removal(container)
            elif "is not running" in error.message and not again:  # it ended just before it was killed
                self.remove(container, again=True)
            elif error.status != 404:
                raise

    def _await_removal(self, container: str) -> None:
        try:
            with self.translated_errors():
                self.api.wait(container, condition="removed", timeout=CALL_LIMIT_S)
        except EngineError as error:
            if error.status != 404:
                raise
