"""A user with a program: submits, repeats what got no answer, cancels, and remembers what was promised."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import trio

from chaos.jobs import request_of
from chaos.plan import Job, Plan
from chaos.world import World

ANSWER_SECONDS = 8.0
PAUSE = 0.2


@dataclass
class Promised:
    """What the gateway answered."""

    tasks: dict[int, str] = field(default_factory=dict)
    """Task id by job number: who got 201 (or 200 for a repeat) has this."""
    canceled: set[int] = field(default_factory=set)
    """Jobs whose cancel was answered with canceled: true."""
    repeats: int = 0
    odd: list[str] = field(default_factory=list)


class Client:
    def __init__(self, world: World, http: httpx.AsyncClient) -> None:
        self._world = world
        self._http = http
        self._token = ""
        self._login = trio.Lock()
        self.promised = Promised()

    async def run(self, plan: Plan) -> None:
        """Until every job is submitted, and those to be canceled are."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for job in plan.jobs:
                nursery.start_soon(self._one, job, began)

    async def _one(self, job: Job, began: float) -> None:
        await trio.sleep_until(began + job.at)
        answer = await self.ask(
            "POST", "/v1/tasks", json=request_of(job, self._world.ledger), headers={"Idempotency-Key": job.key}
        )
        if answer.status_code not in (200, 201):
            self.promised.odd.append(f"{job.key}: submitting was answered {answer.status_code} {answer.text[:300]}")
            return
        self.promised.repeats += answer.status_code == 200
        task = self.promised.tasks[job.number] = answer.json()["task_id"]
        if job.kind == "canceled":
            await trio.sleep(job.cancel_after)
            answer = await self.ask("POST", f"/v1/tasks/{task}/cancel")
            if answer.status_code != 200:
                self.promised.odd.append(f"{job.key}: cancel was answered {answer.status_code} {answer.text[:300]}")
            elif answer.json()["canceled"]:
                self.promised.canceled.add(job.number)

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Repeats until there is an answer: no connection, a broken one, 401, 429 and 5xx are asked again."""
        while True:
            with trio.move_on_after(ANSWER_SECONDS):
                answer = await self._try(partial(self._http.request, method, path), more)
                if answer is not None:
                    return answer
            await trio.sleep(PAUSE)

    async def _try(self, request: Any, more: dict[str, Any]) -> httpx.Response | None:
        try:
            async with self._login:
                if not self._token:
                    await self._log_in()
            headers = {"Authorization": f"Bearer {self._token}", **more.get("headers", {})}
            answer: httpx.Response = await request(**{**more, "headers": headers})
        except httpx.HTTPError:
            return None
        if answer.status_code == 401:
            self._token = ""
        if answer.status_code in (401, 429) or answer.status_code >= 500:
            if answer.status_code == 500:
                self.promised.odd.append(f"{answer.request.url.path}: answered 500 {answer.text[:300]}")
            return None
        return answer

    async def _log_in(self) -> None:
        answer = await self._http.post("/v1/auth/login", json={"handle": "admin", "password": self._world.password})
        if answer.status_code == 200:
            self._token = answer.json()["access_token"]
