"""The routes of the comparison of two tested files."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from lora_trainer.evaluation.compare import pairs, side, sides, tally, vote
from lora_trainer.ui.answers import Handler, Json, aside, read_body
from lora_trainer.ui.job import Job
from lora_trainer.ui.request import refuse_unknown
from lora_trainer.ui.status import file_url


def compare_table(job: Job) -> list[tuple[str, str, Handler]]:
    """Methods, addresses and handlers."""
    routes = _CompareRoutes(job)
    return [("GET", "/compare", routes.compare), ("POST", "/compare", routes.vote)]


class _CompareRoutes:
    def __init__(self, job: Job) -> None:
        self.job = job

    async def compare(self, request: Request) -> Response:
        """What can be compared; with ``one`` and ``two`` their pictures and votes."""
        asked = [request.query_params.get(name, "") for name in ("one", "two")]
        return Json(await aside(self._pairs, *asked) if any(asked) else await aside(self._choices))

    def _choices(self) -> dict[str, Any]:
        return {"choices": [{"side": str(one), "label": one.label} for one in sides(self.job.output)]}

    def _pairs(self, first: str, second: str) -> dict[str, Any]:
        output = self.job.output
        one, two = side(output, first), side(output, second)
        found = [
            {**asdict(pair), "one": file_url(one.run, output / one.run / pair.one, output),
             "two": file_url(two.run, output / two.run / pair.two, output)}
            for pair in pairs(one, two)
        ]  # fmt: skip
        return {"one": one.label, "two": two.label, "pairs": found, "votes": tally(output, one, two)}

    async def vote(self, request: Request) -> Response:
        """Keep a vote; the answer is how it stands."""
        return Json(await aside(self._vote, await read_body(request)))

    def _vote(self, values: dict[str, Any]) -> dict[str, Any]:
        refuse_unknown(values, ("one", "two", "winner", "blind", "prompt"), "compare")
        kept = vote(self.job.output, values)
        return {"votes": tally(self.job.output, side(self.job.output, kept.one), side(self.job.output, kept.two))}
