"""Python environments of runs: identified by the content of the request, built once by uv, shared, never changed.

environments        all environments of a home: the entry to this room
request             the request of a run, read and checked
requirement_lines   checks lines of requirement files
pip_conf            the user's pip settings
settings            the user's settings of pip and uv, as options and variables for uv
container_settings  the part of the user's settings and files that uv gets in a container
key                 computes the key of a request from its content
base                what an environment is built on (this machine or an image), and where its build runs
host                runs programs of a build on this machine
containers          runs programs of a build in containers
builder             one build
image_packages      lets an environment stand on the packages of its image
uv                  runs uv, and explains its errors
projects            projects in the code of a run: what a build reads of them
editables           brings what a build of projects has made to a run
torch_backend       chooses the build of torch
find_links          finds wheels that were replaced under the same name
lock                one builder for each key
installed           lists the installed packages
published           an environment on the disk
integrity           finds files of an environment that were changed
layer               the layer of a run, to which it may install packages
own_tools           the pip and the uv that were installed with spell
bytecode            byte code, linked from other environments or compiled in the background
uv_cache            the caches of uv that only builds of this home write, and their garbage collection
gc                  removes unused environments
orphans             removes what a killed server left of a build
"""

from orchestrator.environments.base import Base, Runner
from orchestrator.environments.containers import Container
from orchestrator.environments.editables import add_to_layer, is_lock, made_in, needs, with_needs
from orchestrator.environments.environments import Environments
from orchestrator.environments.gc import Limit
from orchestrator.environments.host import Host
from orchestrator.environments.image_packages import BASES_FILE
from orchestrator.environments.installed import site_folder
from orchestrator.environments.layer import installed_in, make_layer
from orchestrator.environments.own_tools import own_pip, own_uv, pip_works
from orchestrator.environments.projects import NO_VERSION, VERSION_VARIABLE, Projects, extras_of, projects_of
from orchestrator.environments.published import Environment
from orchestrator.environments.request import EnvironmentRequest, check_request, check_requirement
from orchestrator.environments.requirement_lines import refuse_repositories
from orchestrator.environments.uv import BuildCancelled

__all__ = [
    "BASES_FILE",
    "NO_VERSION",
    "VERSION_VARIABLE",
    "Base",
    "BuildCancelled",
    "Container",
    "Environment",
    "EnvironmentRequest",
    "Environments",
    "Host",
    "Limit",
    "Projects",
    "Runner",
    "add_to_layer",
    "check_request",
    "check_requirement",
    "extras_of",
    "installed_in",
    "is_lock",
    "made_in",
    "make_layer",
    "needs",
    "own_pip",
    "own_uv",
    "pip_works",
    "projects_of",
    "refuse_repositories",
    "site_folder",
    "with_needs",
]
