"""``flask ailimit batch``: the requests of a file, sent through an upstream of the app."""

import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryFile
from types import FrameType
from typing import IO, Any, Final

import click
import flask
from flask.cli import with_appcontext

from .app_state import AppState
from .app_upstream import AppUpstream
from .engine import ConfigurationError
from .extension import AILimiter
from .tokens import Usage, estimate_request, read_usage
from .upstream.asking import CREDENTIALS
from .upstream.batch import Failed, Work
from .upstream.batch_answers import Answers
from .upstream.batch_file import (
    NO_ANSWER,
    NOT_SENT,
    Answer,
    BadLine,
    Request,
    address,
    answer_line,
    body_to_send,
    failure_line,
    read_answer,
    unanswered_line,
)
from .upstream.batch_index import Index, JobError, Standing
from .upstream.batch_progress import shown
from .upstream.calling import calling, calling_now
from .upstream.refusing import LIMITED_BY, OWN
from .upstream.spending import Budget, Spending, parse_budget

_STDIN: Final = "-"
_ANSWER_SECONDS: Final = 600.0
"""How long a provider may take for an answer: as long as in OpenAI's SDK."""

_PARTIAL, _OVER_BUDGET, _INTERRUPTED = 3, 4, 130
_EMBEDDINGS: Final = "/embeddings"


class _WrongError(click.ClickException):
    """What was typed, or the input, is wrong."""

    exit_code = click.UsageError.exit_code


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path())
@click.option("-o", "--output", required=True, metavar="FILE", help="Where the answers go.", type=click.Path())
@click.option("--upstream", "name", required=True, metavar="NAME", help="The upstream of the app to send them through.")
@click.option("--workers", type=click.IntRange(1, 256), default=5, show_default=True, help="Calls at once.")
@click.option("--budget", metavar="AMOUNT", help="The most to spend, such as '20 USD' or '100000 tokens'.")
@click.option("--retry-failed", is_flag=True, help="Send again what failed and may go well another time.")
@click.option("--no-progress", is_flag=True, help="Don't show how far it is.")
@click.option("--base-url", metavar="URL", help="Where the provider is. Default: the base_url of the upstream.")
@click.pass_context
@with_appcontext
def batch(
    ctx: click.Context,
    source: str,
    output: str,
    name: str,
    *,
    workers: int,
    budget: str | None,
    retry_failed: bool,
    no_progress: bool,
    base_url: str | None,
) -> None:
    """Send the requests of INPUT and write the answers to FILE, both in the form of OpenAI's batches.

    If INPUT is -, it is read from the standard input. The same command goes on where one before it was ended. The
    status is 0 if all is answered, 3 if some failed, 4 if the budget is used up and 130 after Ctrl-C.
    """
    limiter, upstream = _upstream_named(name)
    if limiter.state_of_calls is None:
        raise click.ClickException("Limits are switched off in this app (RATELIMIT_ENABLED), so nothing paces calls.")
    run = _Run(limiter.app_state, upstream, base_url, _budget(budget))
    place = _place(output)
    with ExitStack() as at_the_end, _terminated_as_interrupted():
        try:
            index = _index(at_the_end.enter_context(_input(source, place)), run, source)
            at_the_end.callback(index.close)
            answers = _answers(index, run, place)
            at_the_end.callback(answers.close)
            begun = answers.standing()
            done = begun.answered + begun.failed - (begun.may_change if retry_failed else 0)
            with shown(not no_progress, run.spending, begun.lines, done) as show:
                run.work(index.open_requests(retry_failed=retry_failed), answers, workers, show)
            ctx.exit(_end(run, answers, output))
        except JobError as error:
            raise click.ClickException(f"{source}: {error}") from None
        except KeyboardInterrupt:
            click.echo("Interrupted. What is answered is kept, and the same command goes on.", err=True)
            ctx.exit(_INTERRUPTED)
        except OSError as error:
            raise click.ClickException(f"{output}: {error.strerror or type(error).__name__}.") from error


class _Run:
    """The requests of one run, and what they cost."""

    def __init__(self, app_state: AppState, upstream: AppUpstream, base_url: str | None, budget: Budget | None) -> None:
        base = base_url or upstream.settings.base_url or os.environ.get("OPENAI_BASE_URL")
        if not base or not base.startswith(("http://", "https://")):
            raise _WrongError(
                "--base-url: an http or https URL is needed here, as base_url of the upstream, or in OPENAI_BASE_URL."
            )
        self._base = base
        self._headers = {"content-type": "application/json", **_headers(upstream)}
        self._app_state = app_state
        self._upstream = upstream
        self._budget = budget
        self.spending = Spending(app_state.prices, budget)
        self.is_budget_used = False

    def check(self, request: Request) -> None:
        """Refuse a request whose cost can't be told, if money is limited."""
        if self.spending.of(request.model, Usage()) is None:
            raise BadLine("nobody knows in the budget's currency what its model costs. See AILIMIT_PRICES")

    def seen_in(self, index: Index) -> Callable[[Answer], None]:
        """Counts what an answer cost that was there before."""
        return lambda answer: self._tell(answer, lambda: index.request_of(answer.custom_id))

    def work(self, requests: Iterator[Request], answers: Answers, workers: int, show: Callable[[bool], None]) -> None:
        """Send requests until there are no more or the budget is used up.

        Raises:
            KeyboardInterrupt: It was interrupted, and no call runs any longer.
            OSError: An answer could not be written.
        """
        with self._upstream.http_client(timeout=_ANSWER_SECONDS) as client:

            def ask(affordable: tuple[Request, int]) -> bool:
                request, most = affordable
                told: list[tuple[str, str, Usage]] = []
                try:
                    with calling(wait=calling_now().wait, tally=lambda *call: told.append(call)):
                        line = _answer(client, address(self._base, request.url), self._headers, request)
                    answer = read_answer(line)
                    for call in told:
                        self.spending.tell(*call)
                    if not told:
                        self._tell(answer, lambda: request)
                finally:
                    self.spending.end(most)
                if answer.is_good or not work.stopped.is_set():  # What an interrupt made fail is asked again.
                    answers.write(line)
                return not answer.is_good

            with Work(ask, self._affordable(requests), workers=workers) as work:
                try:
                    for _, failed in work:
                        if isinstance(failed, Failed):
                            raise failed.error
                        show(failed)
                except KeyboardInterrupt:
                    click.echo("The calls that run are waited for. Ctrl-C again leaves them.", err=True)
                    deque(work.rest(), maxlen=0)
                    raise

    def _affordable(self, requests: Iterator[Request]) -> Iterator[tuple[Request, int]]:
        """The requests that the budget has room for, each with what it may use of it."""
        for request in requests:
            most = 0
            if self._budget is not None:
                most = self.spending.of(request.model, *self._estimate(request)) or 0
            if not self.spending.begin(most):
                self.is_budget_used = True
                return
            yield request, most

    def _estimate(self, request: Request) -> tuple[Usage, int]:
        default = 0 if request.url.endswith(_EMBEDDINGS) else self._app_state.settings.default_output_tokens
        counter = self._app_state.counter
        estimate = estimate_request(request.body, counter=counter, default_output_tokens=default)
        return estimate.usage, estimate.answers

    def _tell(self, answer: Answer, request: Callable[[], Request]) -> None:
        """Count what an answer says that it cost; if it doesn't say so and may have cost something, the estimate."""
        usage = read_usage(answer.body)
        if usage is None and (answer.is_good or answer.error == NO_ANSWER):
            usage, _ = self._estimate(request())
        if usage is not None:
            # By the name that was sent, because prices are found by that; it is looked up only if there are some.
            model = "" if self._app_state.prices is None else request().model
            self.spending.tell("", model, usage)


def _answer(client: Any, url: str, headers: Mapping[str, str], request: Request) -> bytes:
    """Send a request, and return the line with the answer."""
    try:
        answer = client.post(url, content=body_to_send(request), headers=headers)
    except Exception as error:  # noqa: BLE001  any: the line says that there is no answer
        return failure_line(request.custom_id, error)
    if (
        answer.is_error and answer.headers.get(LIMITED_BY) == OWN
    ):  # Our transport's words, because the provider has said nothing.
        code = NO_ANSWER if answer.status_code == HTTPStatus.GATEWAY_TIMEOUT else NOT_SENT
        return unanswered_line(request.custom_id, code, answer.json()["error"]["code"])
    request_id = answer.headers.get("x-request-id") or answer.headers.get("request-id")
    return answer_line(request.custom_id, answer.status_code, request_id, answer.content)


def _end(run: _Run, answers: Answers, output: str) -> int:
    """Say how it ended, and return the status."""
    standing = answers.standing()
    spent = run.spending.in_words()
    if run.is_budget_used:
        left = standing.lines - standing.answered - standing.failed
        click.echo(f"{answers.part.name}: {_in_words(standing)}, {left} not sent. {spent}.")
        click.echo("The budget is used up. With a larger one, the same command goes on.", err=True)
        return _OVER_BUDGET
    answers.finish()
    click.echo(f"{output}: {_in_words(standing)}. {spent}.")
    if standing.may_change:
        click.echo(f"{standing.may_change} of them may go well another time: --retry-failed.", err=True)
    return _PARTIAL if standing.failed else 0


def _in_words(standing: Standing) -> str:
    words = f"{standing.answered} of {standing.lines} answered"
    if not standing.failed:
        return words
    why = ", ".join(f"{count} {failure}" for failure, count in standing.failures.items())
    return f"{words}, {standing.failed} failed ({why})"


def _upstream_named(name: str) -> tuple[AILimiter, AppUpstream]:
    every: list[AILimiter] = flask.current_app.extensions.get("ailimit", [])
    of_each = [(limiter, limiter.upstreams) for limiter in every]
    found = [(limiter, upstreams[name]) for limiter, upstreams in of_each if name in upstreams]
    if len(found) == 1:
        return found[0]
    names = sorted({each for _, upstreams in of_each for each in upstreams})
    if found:
        raise _WrongError("--upstream: several limiters of this app have one of this name.")
    known = f"They are {', '.join(names)}." if names else "It has none: see limiter.upstream()."
    raise _WrongError(f"--upstream: this app has no upstream of this name. {known}")


def _budget(text: str | None) -> Budget | None:
    try:
        return None if text is None else parse_budget(text)
    except ConfigurationError as error:
        raise _WrongError(f"--budget: {error}") from None


def _place(output: str) -> Path:
    path = Path(output)
    try:
        if path.exists() and not path.is_file():
            raise _WrongError("--output: the name of a file is needed, because what is answered is read from it again.")
        return path.resolve()
    except OSError as error:
        raise _WrongError(f"--output: {error.strerror or type(error).__name__}.") from error


def _index(source: IO[bytes], run: _Run, name: str) -> Index:
    try:
        return Index(source, run.check)
    except JobError as error:
        raise _WrongError(f"{'standard input' if name == _STDIN else name}: {error}") from None


def _answers(index: Index, run: _Run, place: Path) -> Answers:
    try:
        return Answers(index, place, run.seen_in(index))
    except JobError as error:
        raise _WrongError(str(error)) from None


@contextmanager
def _input(name: str, output: Path) -> Iterator[IO[bytes]]:
    """The input, which is read more than once: what comes from the standard input is copied to a temporary file."""
    if name == _STDIN:
        if sys.stdin is None:
            raise _WrongError("The standard input is closed.")
        with TemporaryFile() as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
            file.seek(0)
            yield file
        return
    try:
        opened = Path(name).open("rb")  # noqa: SIM115  below; the block's own errors are not the input's
    except OSError as error:
        raise _WrongError(f"{name} can't be read: {error.strerror or type(error).__name__}.") from error
    with opened as file:
        if output.exists() and output.samefile(name):
            raise _WrongError("--output: this is the input.")
        if not file.seekable():
            raise _WrongError(f"{name}: this is no file. Give it to the standard input, and - as INPUT.")
        yield file


def _headers(upstream: AppUpstream) -> dict[str, str]:
    """The upstream's headers. If no credential is among them, the key is added that OpenAI's SDK would take."""
    try:
        headers = {name.lower(): value for name, value in upstream.settings.headers.items()}
    except ConfigurationError as error:
        raise _WrongError(f"--upstream: {error}") from None
    key = os.environ.get("OPENAI_API_KEY")
    if key and not headers.keys() & set(CREDENTIALS):
        headers["authorization"] = f"Bearer {key}"
    return headers


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C: what stops containers must not leave calls half done either."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
