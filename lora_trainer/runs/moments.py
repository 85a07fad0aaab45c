"""Times as people say them."""

from __future__ import annotations

from datetime import datetime


def moment(when: float, now: datetime | None = None) -> str:
    """``today 09:05``, ``yesterday 23:10``, ``Monday 23:10``, ``3 May 23:10`` or ``3 May 2025``, in local time.

    Args:
        when: seconds since 1970.
    """
    try:
        then = datetime.fromtimestamp(when)
    except (OverflowError, OSError, ValueError):  # a file's time can be anything
        return "at an unknown time"
    now = now or datetime.now()
    days = (now.date() - then.date()).days
    clock = f"{then:%H:%M}"
    if days in (0, 1):
        return f"{'yesterday' if days else 'today'} {clock}"
    if 1 < days < 7:
        return f"{WEEKDAYS[then.weekday()]} {clock}"
    date = f"{then.day} {MONTHS[then.month - 1]}"
    return f"{date} {clock}" if then.year == now.year else f"{date} {then.year}"


# not strftime's, which speak the system's language
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
