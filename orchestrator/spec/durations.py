"""Durations as people write them: `90s`, `30m`, `1h`, `1h30m`, `2 days`, `1:30:00`, or a plain number in the unit of its place."""

from __future__ import annotations

import math
import re

from orchestrator.errors import InvalidConfig

UNITS_S = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 7 * 86400}
_PART = r"(\d{1,12}(?:\.\d{1,9})?)\s*(seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|w)"
_CLOCK = r"(\d{1,6}):([0-5]\d):([0-5]\d)"
_FORMS = "Write it as 90s, 30m, 2h, 1h30m or 3d"


def seconds(text: str, unit: str = "") -> float:
    """The seconds in a duration.

    Args:
        text: what was written.
        unit: of a plain number, a key of `UNITS_S`; "" if it must have a unit.

    Raises:
        InvalidConfig: it is no duration.
    """
    plain = text.strip().lower()
    if re.fullmatch(rf"(?:{_PART}[\s,]*)+", plain):
        return sum(float(count) * _unit_s(name) for count, name in re.findall(_PART, plain))
    if clock := re.fullmatch(_CLOCK, plain):
        return int(clock[1]) * 3600 + int(clock[2]) * 60 + int(clock[3])
    try:
        number = float(plain) if unit else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        also = f"; a number alone counts {unit}" if unit else ""
        raise InvalidConfig(f"{text!r} is not a duration.", f"{_FORMS}{also}.")
    return number * UNITS_S[unit]


def _unit_s(name: str) -> int:
    return next(seconds for unit, seconds in UNITS_S.items() if unit[0] == name[0])
