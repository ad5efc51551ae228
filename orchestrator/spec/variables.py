"""Variables of a run that mean something to spell, or to the engine, before its command starts.

docs/usage.md, "Variables of a run", says whose value of each variable counts. A value that could have no effect is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.errors import InvalidConfig

CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"
_VISIBLE, _ORDER, _OF_ENGINE = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES"
MADE = frozenset(
    {"PATH", "PYTHONPATH", "PYTHONPYCACHEPREFIX", "VIRTUAL_ENV", _VISIBLE, _ORDER, _OF_ENGINE, CAPABILITIES}
)
"""Variables that cannot get the value of a secret."""
_NONE = ("", "-1", "void", "none", "NoDevFiles")
_USUAL = ("compute", "utility")
_ALL = ("compute", "compat32", "display", "graphics", "utility", "video")
_CURE = "Ask for GPUs by a machine type, for example -t gpu. To use fewer of them, set it inside the command: '{}=0 python …'."


def check_given(env: Mapping[str, str], *, is_host: bool) -> None:
    """Check the variables of a spec.

    Args:
        is_host: whether the run sees all GPUs of this machine, and only variables name its own.

    Raises:
        InvalidConfig: a value cannot be used.
    """
    for name in (_VISIBLE, _OF_ENGINE):
        if name in env and env[name] not in _NONE:
            raise InvalidConfig(
                f"{name}={env[name]} cannot be given: spell sets it to the GPUs that the run gets.",
                _CURE.format(_VISIBLE),
            )
    if is_host and env.get(_ORDER, "PCI_BUS_ID") != "PCI_BUS_ID":
        raise InvalidConfig(
            f"{_ORDER}={env[_ORDER]} cannot be given: GPUs are assigned by their order on the bus, so the run would take "
            "those of others.",
            "Leave it out: it is PCI_BUS_ID. In containers (--executor docker) any order can be given.",
        )
    if unknown := set(env.get(CAPABILITIES, "").split(",")) - {"", "all", *_ALL}:
        raise InvalidConfig(
            f"{CAPABILITIES} has no {', '.join(map(repr, sorted(unknown)))}.", f"There are: all, {', '.join(_ALL)}."
        )


def capabilities(given: str) -> tuple[str, ...]:
    """Return what of the driver a container gets, by the value of NVIDIA_DRIVER_CAPABILITIES; "" for the usual.

    https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html
    """
    names = [name for name in given.split(",") if name]
    return _ALL if "all" in names else tuple(dict.fromkeys((*names, "utility"))) if names else _USUAL
