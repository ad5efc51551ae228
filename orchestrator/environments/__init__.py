"""Python environments of runs: identified by the content of what was asked, built once by uv, shared, never changed.

request     what is asked, checked
pip_conf    the user's pip settings
settings    those and uv's, as uv is started with
key         content to key
find_links  wheels that were replaced
lock        one builder for each key
base        what an environment stands on: this machine or an image, and where programs of its build run
here        on this machine
containers  in containers of an image
inside      what uv is given there of the user's settings and files
uv          runs uv
installed   what uv has installed
bytecode    byte code, taken over or compiled in the background
published   an environment on the disk
builder     one build
uv_cache    that of builds in containers, and what of it goes
orphans     what a killed server leaves of one
unused      environments that go
environments  all of it together
"""

from orchestrator.environments.base import Base, Place
from orchestrator.environments.containers import Container
from orchestrator.environments.environments import Environments
from orchestrator.environments.host import Host
from orchestrator.environments.published import Environment
from orchestrator.environments.request import EnvironmentRequest, check_request, check_requirement
from orchestrator.environments.unused import Limit
from orchestrator.environments.uv import BuildCancelled

__all__ = [
    "Base",
    "BuildCancelled",
    "Container",
    "Environment",
    "EnvironmentRequest",
    "Environments",
    "Host",
    "Limit",
    "Place",
    "check_request",
    "check_requirement",
]
