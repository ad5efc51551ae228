"""Python environments of runs: identified by the content of what was asked, built once by uv, shared, never changed.

request     what is asked, checked
pip_conf    the user's pip settings
settings    those and uv's, as uv is started with
key         content to key
find_links  wheels that were replaced
lock        one builder for each key
uv          runs uv
installed   what uv has installed
bytecode    byte code, taken over or compiled in the background
published   an environment on the disk
builder     one build
environments  all of it together
"""

from orchestrator.environments.environments import Environments
from orchestrator.environments.published import Environment
from orchestrator.environments.request import EnvironmentRequest, check_request, check_requirement
from orchestrator.environments.uv import BuildCancelled

__all__ = [
    "BuildCancelled",
    "Environment",
    "EnvironmentRequest",
    "Environments",
    "check_request",
    "check_requirement",
]
