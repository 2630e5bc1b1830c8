"""From requests to answers: every request that an agent takes is answered once."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from academy.action_run import ActionRun, RunKey, run_key
from academy.answer import (
    ACTION_CANCELLED,
    ACTION_INVALID_STATE,
    PING_CANCELLED,
    SUCCESS,
    damage_body,
    error_body,
    exception_strategy,
)
from academy.authorization import SHUTDOWN, Authorization
from academy.deadline import Deadlines, deadline_body
from academy.exception import (
    ExchangeError,
    MessageTooLargeError,
)
from academy.exchange.client import AgentExchangeClient
from academy.message import (
    AcademyErrorResponse,
    ActionRequest,
    CancelRequest,
    Message,
    PingRequest,
    Response,
    ShutdownRequest,
)
from academy.responder import Invoke, Responder
from academy.task import Tasks
from academy.trace import continue_trace

logger = logging.getLogger(__name__)

ACTION_GRACE = 5.0
"""Seconds that a cancelled action has to end before it is answered for."""
ANSWER_GRACE = 5.0
"""Seconds that the last answers have to be sent."""
EARLY_CANCELS = 1000
"""How many cancel requests without a request are kept in mind."""

_Admitted: TypeAlias = ActionRequest | PingRequest


class Dispatcher:
    """Runs the actions of one agent and answers its requests.

    1. From the beginning it takes requests (`receive`), and keeps actions and pings
       for later. Shutdown requests are passed on at once.
    2. `bind` gives it the client to answer with.
    3. `open` starts what was kept, in order. From now on each action is started, in
       a task of its own, when its request comes.
    4. Once `shutdown` is set, actions and pings are refused.
    5. `close` ends what still runs, and answers it.

    A call that has a deadline is answered with a `TimeoutError` when it passes: an
    action that runs is cancelled, one that has not begun never begins. The time
    counts from the arrival of the request, and before that while it waits in a queue.

    Args:
        name: Name of the agent, for logs and tasks.
        invoke: Runs an action.
        shutdown: Set when the agent is to end.
        on_shutdown: Called with the `terminate` of a shutdown request.
        on_failure: Called when an action raised what must end the agent.
        authorization: Asked before an action runs or the agent ends; `None` permits
            everything.
    """

    def __init__(
        self,
        name: str,
        invoke: Invoke,
        *,
        shutdown: asyncio.Event,
        on_shutdown: Callable[[bool | None], None],
        on_failure: Callable[[Exception], None],
        authorization: Authorization | None = None,
    ) -> None:
        self._name = name
        self._shutdown = shutdown
        self._on_shutdown = on_shutdown
        self._responder = Responder(name, invoke, on_failure, authorization)
        self._authorization = authorization
        self._tasks = Tasks(name)
        self._client: AgentExchangeClient[Any, Any] | None = None
        self._context: contextvars.Context | None = None
        self._kept: dict[RunKey, Message[Any]] = {}
        self._running: dict[RunKey, ActionRun] = {}
        self._unfinished: set[ActionRun] = set()
        self._cancelled_early: dict[RunKey, None] = {}
        self._deadlines: Deadlines[RunKey] = Deadlines(self._expire)
        self._unanswered = 0
        self._progress: asyncio.Event | None = None
        self._refusal: AcademyErrorResponse | None = None

    def bind(self, client: AgentExchangeClient[Any, Any]) -> None:
        """Answer with this client from now on."""
        self._client = client
        if self._progress is not None:
            self._progress.set()

    def open(self) -> None:
        """Start actions from now on, in copies of the current context.

        Each belongs to the trace of its caller, and not to the one of this call.
        """
        self._context = contextvars.copy_context()
        self._context.run(continue_trace, None)
        self._create_task = asyncio.get_running_loop().create_task
        kept, self._kept = self._kept, {}
        for key, message in kept.items():
            self._start(key, message, message.get_body())

    def refuse_with(self, response: AcademyErrorResponse | None) -> None:
        """Refuse requests with this answer; `None` for the usual ones."""
        self._refusal = response

    def receive(self, message: Message[Any]) -> None:
        """Take a request; it is answered later."""
        self._unanswered += 1
        try:
            body = message.get_body()
        except Exception as e:
            # Whatever strangers may send, they get an answer.
            self._answer(message, damage_body(e))
            return
        if type(body) is ActionRequest or type(body) is PingRequest:
            self._admit(message, body)
        elif isinstance(body, CancelRequest):
            self._cancel_for(message, body.target_tag)
        elif isinstance(body, ShutdownRequest):
            hook = self._authorization
            if hook is None:
                self._shut_down(message, body)
            else:
                self._tasks.spawn(
                    self._ask_to_shut_down(hook, message, body), name="shutdown"
                )
        else:
            wrong = ValueError(f"A {body.kind} was sent as a request.")
            self._answer(message, damage_body(wrong))

    def _shut_down(self, message: Message[Any], request: ShutdownRequest) -> None:
        self._answer(message, SUCCESS)
        self._on_shutdown(request.terminate)

    async def _ask_to_shut_down(
        self, hook: Authorization, message: Message[Any], request: ShutdownRequest
    ) -> None:
        refusal = await hook.refusal(SHUTDOWN, message)
        if refusal is None:
            self._shut_down(message, request)
        else:
            self._answer(message, refusal)

    async def finish_actions(self) -> None:
        """Wait until no action runs, however long that takes."""
        await self._until(lambda: not self._running, None)

    async def close(self) -> None:
        """Cancel what runs, answer all that is unanswered, and end the tasks.

        It takes at most a few seconds: an action that outlasts its cancellation is
        answered as cancelled. Calling it again is harmless.
        """
        kept, self._kept = self._kept, {}
        self._deadlines.clear()
        for message in kept.values():
            self._refuse(message)
        for run in list(self._running.values()):
            self._cancel(run)
        await self._until(lambda: not self._running, ACTION_GRACE)
        for run in self._running.values():
            action = run.message.get_body().action
            logger.warning("%s: action %r ignores its cancellation", self._name, action)
            run.abandoned = True
            self._answer(run.message, ACTION_CANCELLED)
        if self._client is not None:
            await self._until(lambda: not self._unanswered, ANSWER_GRACE)
        for run in self._unfinished:
            self._tasks.hold(run.task, name=run.task.get_name())
        await self._tasks.cancel()

    async def _until(self, done: Callable[[], bool], timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not done():
                    # Made when needed: most agents never wait, and there are many.
                    if self._progress is None:
                        self._progress = asyncio.Event()
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            return

    def _admit(self, message: Message[Any], body: _Admitted) -> None:
        header = message.header
        key = run_key(header)
        if key in self._running or key in self._kept:
            # Its answer answers both.
            self._unanswered -= 1
            logger.warning("%s dropped a duplicate request %s", self._name, message.tag)
        elif self._shutdown.is_set():
            self._refuse(message)
        elif key in self._cancelled_early:
            del self._cancelled_early[key]
            self._answer(message, ACTION_CANCELLED)
        else:
            if header.deadline is not None and type(body) is ActionRequest:
                self._deadlines.start(key, header.deadline)
            if self._context is None:
                self._kept[key] = message
            else:
                self._start(key, message, body)

    def _refuse(self, message: Message[Any]) -> None:
        is_ping = isinstance(message.get_body(), PingRequest)
        refusal = PING_CANCELLED if is_ping else ACTION_CANCELLED
        self._answer(message, self._refusal or refusal)

    def _start(self, key: RunKey, message: Message[Any], body: _Admitted) -> None:
        if type(body) is PingRequest:
            self._answer(message, SUCCESS)
            return
        assert self._context is not None
        assert isinstance(body, ActionRequest)
        run = self._running[key] = ActionRun(key, message)
        # A copy, for a context cannot be entered again while it is entered.
        context = self._context.copy()
        if message.header.traceparent is not None:
            context.run(continue_trace, message.header.traceparent)
        # Not by `Tasks`, whose callback costs a turn of the event loop per call.
        self._unfinished.add(run)
        work, name = self._run(run, body), f"{self._name}/{body.action}"
        run.task = self._create_task(work, name=name, context=context)

    async def _run(self, run: ActionRun, request: ActionRequest) -> None:
        body: Response
        try:
            try:
                deadline = run.message.header.deadline
                if deadline is not None and self._deadlines.passed(run.key):
                    body = deadline_body(run.message, "no")
                else:
                    body = await self._responder.respond(run.message, request)
                if run.expired and body is ACTION_CANCELLED:
                    body = deadline_body(run.message, "maybe")
            finally:
                self._forget(run)
            if not run.abandoned:
                sending = self._submit(run.message, body)
                if sending is not None:
                    await self._finish(run.message, body, sending)
        finally:
            self._unfinished.discard(run)

    def _cancel_for(self, message: Message[Any], tag: uuid.UUID) -> None:
        """Cancel, for the sender of a cancel request, an action of its own."""
        key = run_key(message.header, tag)
        run = self._running.get(key)
        kept = self._kept.get(key)
        if run is not None:
            self._cancel(run)
        elif kept is not None and isinstance(kept.get_body(), ActionRequest):
            del self._kept[key]
            self._deadlines.stop(key)
            self._answer(kept, ACTION_CANCELLED)
        else:
            self._note_early(key)
            self._answer(message, ACTION_INVALID_STATE)
            return
        self._answer(message, SUCCESS)

    def _note_early(self, key: RunKey) -> None:
        """Keep a cancel in mind: those that wait in queues may overtake requests."""
        self._cancelled_early[key] = None
        if len(self._cancelled_early) > EARLY_CANCELS:
            del self._cancelled_early[next(iter(self._cancelled_early))]

    def _expire(self, key: RunKey) -> None:
        """End a call whose deadline has passed."""
        run = self._running.get(key)
        if run is not None:
            run.expired = True
            self._cancel(run)
            return
        self._deadlines.stop(key)
        message = self._kept.pop(key)
        self._answer(message, deadline_body(message, "no"))

    def _cancel(self, run: ActionRun) -> None:
        run.task.add_done_callback(functools.partial(self._ended_cancelled, run))
        run.task.cancel()

    def _ended_cancelled(self, run: ActionRun, task: asyncio.Task[None]) -> None:
        """Answer for an action that was cancelled before its task had begun."""
        self._unfinished.discard(run)
        if self._running.get(run.key) is run:
            self._forget(run)
            expired = deadline_body(run.message, "no") if run.expired else None
            self._answer(run.message, expired or ACTION_CANCELLED)

    def _forget(self, run: ActionRun) -> None:
        self._running.pop(run.key, None)
        if run.message.header.deadline is not None:
            self._deadlines.stop(run.key)
        if self._progress is not None:
            self._progress.set()

    def _answer(self, message: Message[Any], body: Response) -> None:
        self._tasks.spawn(self._send(message, body), name="answer")

    async def _send(self, message: Message[Any], body: Response) -> None:
        """Send an answer."""
        if self._client is None:
            await self._until(lambda: self._client is not None, None)
        sending = self._submit(message, body)
        if sending is not None:
            await self._finish(message, body, sending)

    def _submit(self, message: Message[Any], body: Response) -> Awaitable[None] | None:
        """Begin to send an answer; return how to go on, unless it is accepted."""
        assert self._client is not None
        response = message.create_response(body)
        try:
            sending = self._client.submit(response)
        except Exception:
            # It is met again, and dealt with, where the answer is waited for.
            return self._client.send(response)
        if sending is None:
            self._answered()
        return sending

    async def _finish(
        self, message: Message[Any], body: Response, sending: Awaitable[None]
    ) -> None:
        """Wait for an answer. Nobody is left to hear of it when that fails."""
        assert self._client is not None
        try:
            try:
                await sending
            except MessageTooLargeError as e:
                smaller = error_body(e, exception_strategy(message.get_body()))
                await self._client.send(message.create_response(smaller))
        except ExchangeError as e:
            logger.info("%s could not answer %s: %s", self._name, message.src, e)
        except Exception as e:
            what = f"{type(e).__name__}: {e}"
            logger.warning("%s could not answer %s: %s", self._name, message.src, what)
        finally:
            self._answered()

    def _answered(self) -> None:
        self._unanswered -= 1
        if self._progress is not None:
            self._progress.set()
