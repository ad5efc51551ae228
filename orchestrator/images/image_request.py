"""What a run asks of an image."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.spec.run import RunSpec


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """A request for the image of a container.

    Attributes:
        reference: the name or ID of an image; "" for the configured one.
        apt: packages to install into it.
        python: the wanted version ("3.12"); "" for any.
        gpu: whether the run has GPUs.
    """

    reference: str = ""
    apt: tuple[str, ...] = ()
    python: str = ""
    gpu: bool = False

    @classmethod
    def of(cls, spec: RunSpec, gpus: int) -> ImageRequest:
        """Return the request of a spec, for a run with this number of GPUs."""
        return cls(spec.image, spec.apt, spec.python, gpus > 0)
