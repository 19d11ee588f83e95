"""``AILimiter``: Flask-Limiter's ``Limiter`` with one decision over limits on requests, tokens and calls in flight."""

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack
from weakref import WeakKeyDictionary

import flask
from flask import Flask, Request, Response
from flask_limiter import ApplicationLimit, Limit, Limiter, RequestLimit
from flask_limiter.constants import ConfigVars

from .app_state import DEFAULT_URI, TESTS_URI, AppState, is_switched_on, open_app_state
from .config import NAMES, Settings, require_output_tokens
from .current import current_app, current_request
from .engine import ConfigurationError, Decision, Engine, StoreError, open_store, system_clock
from .engine.charge import SUBJECT_BYTES
from .engine.clock import Clock
from .http.errors import LimiterUnavailable, NoSettlements, OwnAnswer, PastFlaskLimiter
from .http.responses import new_request_id
from .limits.checks import require_options
from .limits.decorated_names import DecoratedNames
from .limits.decorators import Decorators
from .limits.flask_limiter_access import FlaskLimiterAccess
from .limits.listed import listed_requests
from .limits.misconfigured import misconfigured
from .limits.phase import RuntimeLimit
from .limits.plans.admin import Admin
from .limits.plans.caller import ADDRESS, SERVICE, USER, Caller
from .limits.plans.change import PayerName
from .limits.plans.plan import Plans
from .limits.priced import require_price
from .limits.registry import LimitRegistry
from .limits.unit_limit import UnitLimit
from .money import Money
from .money.book import LONGEST_MODEL
from .observe.own_page import own_page
from .observe.settlements import Settlements
from .observe.usage_page import COMPLETIONS
from .observe.writer import Writer, write_settlements
from .request.charges import with_prefix
from .request.client_gone import ClientGone
from .request.client_watch import watch_client, watch_until_closed
from .request.decide import request_limit, request_limits
from .request.endpoint_limits import Named, PeekedDecision, peek
from .request.ledger import Ledger
from .request.lifecycle import (
    decide_addresses,
    decide_before_dispatch,
    decide_known_limits,
    decide_new_limits,
    open_ledger,
    respond,
    tear_down,
    turn_away,
)
from .request.metering import Metering, set_metering
from .request.outliving import OutlivingWork, note_of
from .request.payers import payers_of
from .request.recording import Tokens, record_of
from .request.usage import UsageReport, usage

if TYPE_CHECKING:
    from .app_upstream import AppUpstream, Upstreams

_View = TypeVar("_View", bound=Callable[..., Any])
_Identify = TypeVar("_Identify", bound=Callable[[], Caller | None])

_UNKNOWN_APP = "This AILimiter doesn't know the app. Call limiter.init_app(app), with it enabled."
_FLASK_LIMITER_S = {*inspect.signature(Limiter).parameters}


class AILimiter(Decorators):
    """Limits requests, tokens and calls in flight, in one decision over all of them.

    Everything of Flask-Limiter's ``Limiter`` works as documented there, with two deliberate differences: a refused
    request is charged nothing, and a request with an empty key counts by its address and does not pass unlimited.

    Args:
        key_func: Returns who sent the request, such as :func:`flask_ailimit.api_key`. With plans it may be left out:
            limits then count by the first payer, see :meth:`identify`.
        app: The app, if it exists already; else call :meth:`init_app`.
        storage_uri: ``local://`` (one machine, all workers), ``local:///a/directory``, ``memory://``
            (one process), or a Redis or Valkey, see docs/redis.md. Default: ``RATELIMIT_STORAGE_URI``, else ``local://``.
        clock: Returns integer microseconds since 1970. For tests.
        **options: Our settings, see :class:`flask_ailimit.config.Settings`, and Flask-Limiter's options.

    Raises:
        ConfigurationError: Also in ``init_app`` and decorators: a setting is wrong; the message says the fix.
        StoreError: In ``init_app``: the store can't be used.
    """

    def __init__(
        self,
        key_func: Callable[[], str] | None = None,
        *,
        app: Flask | None = None,
        storage_uri: str | None = None,
        storage_options: dict[str, Any] | None = None,
        clock: Clock = system_clock,
        **options: Any,
    ) -> None:
        known = {*NAMES, *inspect.signature(AILimiter).parameters, *_FLASK_LIMITER_S} - {"options"}
        with misconfigured():
            if not callable(key_func) and key_func is not None:
                raise ConfigurationError(
                    f"key_func: a callable is needed, such as api_key. Got {str(key_func)[:80]!r}."
                )
            for name, kind in (("application_limits", ApplicationLimit), ("default_limits", Limit)):
                if isinstance(options.get(name), list | tuple):
                    options[name] = listed_requests(name, options[name], kind)
            require_options(options, known)
        self._given = {name: options.pop(name) for name in NAMES if name in options}
        self._clock = clock
        self._states: WeakKeyDictionary[Flask, AppState] = WeakKeyDictionary()
        self._writers: WeakKeyDictionary[Flask, Writer] = WeakKeyDictionary()
        self._asked_storage = (storage_uri, storage_options)
        self._switched_on = True
        self._latest: AppState | None = None
        self._first_app: tuple[str, str] | None = None
        self._outbound: Upstreams | None = None
        self._engine_if_off: Engine | None = None
        self._is_off = False
        super().__init__(key_func or self._first_payer, app=None, **options)
        self.logger = logging.getLogger("flask_ailimit")  # Flask-Limiter's own is silent until an app sets up logging.
        self.limit_manager: LimitRegistry = LimitRegistry(
            self.limit_manager, clock, lambda: self.app_state.counting, self._listed_limits
        )
        self._access = FlaskLimiterAccess(self, self.limit_manager)
        self._access.payer_key = key_func
        self.limit_manager.money_limited = self._require_durability
        self.limit_manager.leave_unlimited(self.usage_view)
        self.limit_manager.leave_unlimited(self.usage_page_view)
        self._marked = self._marked_for_limiting = DecoratedNames(self._states)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the configuration, open the store, and register the app's hooks. A second call changes nothing."""
        if app in self._states:
            return
        switched_on = self._switched_on
        if app.config.setdefault(ConfigVars.ENABLED, switched_on):
            self._first_app = self._first_app or (app.import_name, app.name)
            state = open_app_state(
                self, self._access, app, self._given, self._asked_storage, self._clock, self._first_app
            )
            self._require_upstreams(state)
            self._states[app] = self._latest = state
            self._keep_settlements(app, state)
            self._access.join(
                app,
                super().init_app,
                uri=self._asked_storage[0] or app.config.get(ConfigVars.STORAGE_URI) or DEFAULT_URI,
                engine_now=lambda: self.engine,
                decision_now=lambda: self.decision,
                algorithm=state.algorithm,
                debt_periods=state.settings.max_debt_periods,
                clock=self._clock,
            )
            if state.address_limits:
                app.before_request_funcs.setdefault(None, []).insert(0, self._check_addresses)
            decide_before_dispatch(app, self._check_request_limit)
            app.after_request(self._after_request)
            app.teardown_request(self._teardown_request)
            self._marked.look_for_bypassed(app)
        else:
            super().init_app(app)
            self._switched_on = switched_on
            self._is_off = True
        in_order = app.extensions.setdefault("ailimit", [])
        if self not in in_order:
            in_order.append(self)

    def _require_upstreams(self, state: AppState) -> None:
        """Check the upstreams of an app that starts: of the code, and of its plan file."""
        if self._outbound is not None or (state.plans is not None and state.plans.upstreams):
            try:
                with misconfigured():
                    self._upstreams.require(state)
            except BaseException:
                state.opened.close()
                raise

    def _keep_settlements(self, app: Flask, state: AppState) -> None:
        try:
            writer = write_settlements(app, state.settings, self._clock)
        except BaseException:
            state.opened.close()
            raise
        if writer is not None:
            self._writers[app] = writer
            state.opened.at_close(writer.close)

    @property
    def settlements(self) -> Settlements | None:
        """The settlements of the current app; None if it keeps none (``AILIMIT_SETTLEMENTS``)."""
        writer = self._writers.get(current_app())
        return None if writer is None else writer.settlements

    @property
    def enabled(self) -> bool:
        """Whether the current app is limited: its ``RATELIMIT_ENABLED``. If this is set to False, no app is."""
        return self._switched_on and (not flask.has_app_context() or is_switched_on(current_app()))

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._switched_on = bool(value)

    def record_usage(
        self,
        *,
        units: Mapping[str, int] | None = None,
        cost: Money | str | None = None,
        **tokens: Unpack[Tokens],
    ) -> None:
        """Record what the current request really used. Recorded tokens replace the usage that the answer reports.

        Several calls add up. A call with ``units`` alone says nothing about tokens. In a stream, call it inside
        :func:`flask.stream_with_context`, if possible before the last event. Usage that is recorded after the last
        event is charged separately. After the answer is closed, usage is logged and not charged.

        Args:
            units: Amounts of units of the app's own, such as ``{"pages": 3}``; see :meth:`limit_units`.
            cost: What these tokens cost, such as ``"0.02 USD"``, if the app knows it better than any price. Without
                tokens beside it, it says that none were used.
            **tokens: ``input_tokens``, those from a cache included, ``output_tokens``, reasoning included,
                ``cached_input_tokens``, and the other attributes of a :class:`flask_ailimit.Usage`. Those that are not
                named are 0.

        Raises:
            ValueError: A number is not an integer from 0 to 2**53 - 1, parts are more than their whole, such as more
                cached input than input, the tier is no printable text of 0 to 32 characters, a unit has no name that
                :meth:`limit_units` takes, or the cost is no amount of money.
        """
        record = record_of(units, cost, **tokens)
        if self._active and not self.ledger.record(*record):
            self.logger.warning(
                "record_usage came after the answer was closed or its work handed over, and was not charged."
            )

    def upstream(self, name: str, **settings: Any) -> "AppUpstream":
        """An upstream: a provider of models that the app itself calls, at the pace of all its processes together.

        It may be called before :meth:`init_app`, such as where an SDK's client is made. Without settings it is the one
        that has them elsewhere: in the code, or as ``[upstreams.NAME]`` in the plan file. See docs/upstreams.md.

        Args:
            name: 1 to 64 characters of ``A-Za-z0-9_.-``.
            **settings: Those of :class:`flask_ailimit.upstream.UpstreamSettings`. ``fallback`` takes upstreams, too.

        Raises:
            ConfigurationError: A setting is wrong, or the upstream has other settings elsewhere or, without settings,
                none; or ``flask-ailimit[upstream]`` is not installed.
        """
        with misconfigured():
            return self._upstreams.define(name, settings, [*self._states.values()])

    @property
    def upstreams(self) -> Mapping[str, "AppUpstream"]:
        """The upstreams by their names: of the code, and of the current app's plan file."""
        with misconfigured():
            return self._upstreams

    @property
    def _upstreams(self) -> "Upstreams":
        if self._outbound is None:
            try:
                from .app_upstream import Upstreams  # noqa: PLC0415  it needs the extra
            except ImportError as error:
                raise ConfigurationError(
                    f"upstream: {error.name} is not installed. Install it: pip install 'flask-ailimit[upstream]'."
                ) from error
            self._outbound = Upstreams(self, self._clock)
        return self._outbound

    def set_model(self, model: str) -> None:
        """Say which model the current request is sent to, if it is not the one that the client names.

        From now on the request costs what this model costs: before the view also what is reserved. Usage that was
        recorded before stays with the model that was known then.

        Args:
            model: The name of 1 to 256 characters, by which its price is found.

        Raises:
            ValueError: It is no such text.
        """
        if not isinstance(model, str) or not 0 < len(model) <= LONGEST_MODEL:
            raise ValueError(f"model: a text of 1 to {LONGEST_MODEL} characters is needed. Got {str(model)[:40]!r}.")
        if self._active:
            self.ledger.pricing.model = model

    def hand_over(self) -> str:
        """Hand this request's reservations over to work that goes on after the answer.

        The view puts the token in a queue and returns an answer, such as a 202. Until a process takes the work over,
        its leases are not renewed: a slot is free when its lease ends, and is taken again by :meth:`take_over`. A
        conditional limit (``deduct_when``) stays charged.

        Work of an answer that was settled before, such as a stream after its last event, is charged what it uses from
        now on.

        Returns:
            A token for :meth:`take_over`, in printable ASCII. It holds no key, works for a day, and nobody can make one
            without the limiter's secret.

        Raises:
            StoreError: Nothing was reserved, and the store can't tell the time.
            ValueError: The view recorded so many units that they don't fit into a token. Nothing is handed over.
        """
        ledger = self.ledger
        token = self.engine.hand_over(ledger.to_hand_over(), note_of(ledger))
        ledger.handed_over()
        return token

    def take_over(self, token: str) -> OutlivingWork:
        """Take over the work of a token from :meth:`hand_over`, in any process with the same store and secret.

        Needs an app context. Its slots are held from now on.

        Raises:
            HandOverError: The token was changed, belongs to another app, or is more than a day old.
            StoreError: The store failed.
        """
        return OutlivingWork(current_app(), self.app_state, self.engine.take_over(token))

    def identify(self, function: _Identify) -> _Identify:
        """Register the function that says who pays for the current request. A decorator.

        It is called at most once a request, after all functions of ``before_request``, and only if a limit needs it:
        one of a plan, or another one without a key function if the limiter has none. Without such a function the key
        that ``key_func`` returns pays, in the role ``user`` and under the default plan.

        Args:
            function: Returns a :class:`flask_ailimit.Caller`. If it returns None, or a caller without payers, the
                client's address pays, under the default plan. An HTTP exception that it raises is the answer. If it
                raises anything else, the answer is a 503.

        Raises:
            ConfigurationError: It is no function, or an async one.
        """
        with misconfigured():
            if not callable(function) or inspect.iscoroutinefunction(function):
                raise ConfigurationError("identify: a function without async is needed, which returns a Caller.")
        self._access.identify = function
        return function

    def metering(
        self,
        *,
        ends_with_body: bool = False,
        recorded_only: bool = False,
        default_output_tokens: int | None = None,
    ) -> Callable[[_View], _View]:
        """Say how the requests and answers of a view are read. A decorator, to be put below ``@app.route``.

        Args:
            ends_with_body: Only the end of the body ends an answer. Otherwise the last event of a message ends it
                (``[DONE]``, ``message_stop``, ``response.completed``), and if an agent's answer goes on after it, the
                slot is taken again.
            recorded_only: The usage that an answer reports is not believed, because a model may have written it. Usage
                comes from :meth:`record_usage`; without it the text is counted.
            default_output_tokens: Output tokens, 0 to 2**31, to reserve for a request of this view that names no
                maximum; default: the setting. A limit's own number comes first. Use 0 for embeddings.

        Raises:
            ConfigurationError: ``default_output_tokens`` is out of range.
        """
        if default_output_tokens is not None:
            with misconfigured():
                require_output_tokens(default_output_tokens)

        def mark(view: _View) -> _View:
            set_metering(view, Metering(ends_with_body, recorded_only, default_output_tokens))
            return view

        return mark

    def peek(
        self,
        endpoint: str | None = None,
        subject: str | bytes | None = None,
        *,
        key_func: Callable[[], str] | None = None,
    ) -> PeekedDecision:
        """Return what is left of every limit of an endpoint for the subject of the current request. Takes nothing.

        If a ``subject`` is named, no function of the app is asked, because it would answer for the current request:
        the limits that depend on such a function are in ``uncertain``, with the function's name, and not among the
        ``verdicts``. So are limits that count by another key function than ``key_func``.

        Args:
            endpoint: Default: the current request's.
            subject: Use this key, and not the one of the current request; or the 16 bytes of its hash, as
                :meth:`subject` returns them.
            key_func: The key function that returns this key; default: the limiter's own.

        Raises:
            StoreError: The store failed.
            NotAllowed: A limit is 0.
            LimiterUnavailable: A key function or a callable limit failed.
            ValueError: The subject is empty, or bytes of another length, or ``key_func`` is given without it.
        """
        ledger = self._ledger_to_look_with()
        if subject is None and key_func is not None:
            raise ValueError("key_func: give the subject too, a key that this function returns.")
        who = None if subject is None else self._named(subject, key_func)
        try:
            return peek(ledger, endpoint or flask.request.endpoint or "", self.engine, who)
        except PastFlaskLimiter as carried:
            raise carried.answer or LimiterUnavailable(**ledger.answer_facts) from carried.__cause__

    def usage(self, *endpoints: str, inherited: bool = False) -> UsageReport:
        """Return what the caller of the current request has used of its limits, and has left. Takes nothing.

        These are the limits of its payers' plans, for all models, and those over all routes together. Left out are the
        limits of other payers than the first and the ``told_roles``, limits by address, and those with
        ``in_headers=False``. The store is asked once. See docs/how-to/usage.md.

        Args:
            *endpoints: Flask's names of routes whose own limits are shown, too.
            inherited: Show also what stands behind a limit: its value in the plan, if an operator changed it; those
                over all models, if it is a limit of a model.

        Raises:
            StoreError: The store failed. Whatever ``on_store_error`` is, nobody can tell then what is used.
            HTTPException: ``identify`` turned the client away.
            LimiterUnavailable: A payer has no plan, or a function of the app failed.
            ValueError: There is no such endpoint.
        """
        if not self._active:
            return UsageReport(())
        ledger = self._ledger_to_look_with()
        try:
            return usage(ledger, endpoints, inherited=inherited)
        except PastFlaskLimiter as carried:
            raise carried.answer or LimiterUnavailable(**ledger.answer_facts) from carried.__cause__

    def usage_view(self, endpoints: Iterable[str] = ()) -> Response:
        """Answer what :meth:`usage` returns, as JSON: ``app.add_url_rule("/usage", view_func=limiter.usage_view)``.

        With ``?inherited=1`` it shows what limits inherit. While the store is away it is a 503. It is exempt from
        limits, unless it is decorated.

        With ``?bucket_width=1d`` it answers :meth:`usage_page_view`, also of costs (``&of=costs``).

        Args:
            endpoints: As for :meth:`usage`. Give them as ``defaults={"endpoints": ["chat"]}`` of the URL rule.
        """
        if "bucket_width" in flask.request.args:
            return self.usage_page_view(flask.request.args.get("of", COMPLETIONS))
        inherited = flask.request.args.get("inherited") in ("1", "true")
        try:
            report = self.usage(*endpoints, inherited=inherited)
        except StoreError as error:
            self.logger.error("Usage can't be shown: %s", error)  # noqa: TRY400  that says it
            raise LimiterUnavailable(**self.ledger.answer_facts) from error
        response = flask.jsonify(report.to_dict())
        response.headers["Cache-Control"] = "no-store"
        return response

    def usage_page_view(self, of: str = COMPLETIONS) -> Response:
        """Answer what the caller used by hour or day, in the form of OpenAI's usage pages.

        See docs/how-to/settlements.md. It needs the setting ``settlements``; without it, it is a 404. A query that
        can't be answered is a 400, and if the file can't be read, it is a 503. It is exempt from limits, unless it is
        decorated.

        Args:
            of: ``completions`` or ``costs``. Give it as ``defaults={"of": "costs"}`` of the URL rule.
        """
        if not self._active:
            raise NoSettlements(request_id=new_request_id(), error_format=Settings().error_format)
        ledger = self._ledger_to_look_with()
        page = own_page(ledger, self._writers.get(current_app()), flask.request.args, of, self._clock())
        response = flask.jsonify(page)
        response.headers["Cache-Control"] = "no-store"
        return response

    def _ledger_to_look_with(self) -> Ledger:
        # The current app may be another one than the request's, which has its own limits and engine.
        ledger: Ledger | None = None
        if flask.has_request_context():
            ledger = current_request().__dict__.get(self._access.ledger_key)
        if ledger is None or ledger.app_state is not self.app_state:
            ledger = Ledger(current_app(), self.app_state, self._access, flask.request)
        return ledger

    def _named(self, subject: str | bytes, key_func: Callable[[], str] | None) -> Named:
        if not subject:
            raise ValueError("subject: it is empty. Requests without a key are counted by their addresses.")
        if isinstance(subject, bytes) and len(subject) != SUBJECT_BYTES:
            raise ValueError(f"subject: {SUBJECT_BYTES} bytes are needed, or the key as text. Got {len(subject)}.")
        hashed = subject if isinstance(subject, bytes) else self.subject(subject)
        return Named(hashed, key_func or self._access.key_func)

    def ledger_of_no_request(self) -> Ledger:
        """A ledger to look at limits with, where there is no request."""
        return Ledger(current_app(), self.app_state, self._access, flask.request)

    def subject(self, key: str) -> bytes:
        """Return the hash that stands for a key in the store."""
        return self.subject_of([key])

    def subject_of(self, identity: Sequence[str]) -> bytes:
        """The hash of whom a limit counts: the one part of a key, or the role and the id of a payer."""
        return self.engine.subject(*with_prefix(self._access.key_prefix, [*identity]))

    @property
    def request_id(self) -> str:
        """Our id of the current request, on its answer as ``x-request-id`` and in every event about it.

        It is never the client's id. It is empty outside a request, and if requests are not limited.
        """
        return self.ledger.request_id if flask.has_request_context() and self._active else ""

    @property
    def client_request_id(self) -> str | None:
        """The current request's ``X-Request-Id``, as in every event about it.

        None outside a request, if the client sent none, or if it is not 1 to 128 of ``A-Za-z0-9_.-``. So it may be
        written to a log. A client may send the same id several times.
        """
        return self.ledger.client_request_id if flask.has_request_context() and self._active else None

    @property
    def client_gone(self) -> ClientGone:
        """An object that tells the view, and all that it starts, that the client is gone. See docs/streams.md.

        The first access starts to watch the client; a stream's client is always watched. Access it inside the request,
        in a generator inside :func:`flask.stream_with_context`. The object may be kept.
        """
        return watch_client(current_request())

    @property
    def decision(self) -> Decision | None:
        """The decision over this request's limits; None outside a request or if no limit applied."""
        return self.ledger.decision_told if flask.has_request_context() and self._active else None

    @property
    def current_limit(self) -> RequestLimit | None:
        """Flask-Limiter's property: of the limits decided last, the last that refused, else the first unshared one."""
        return request_limit(self.ledger) if self._active else None

    @property
    def current_limits(self) -> list[RequestLimit]:
        """Flask-Limiter's property: the limits that were decided last in this request."""
        return request_limits(self.ledger) if self._active else []

    @property
    def engine(self) -> Engine:
        """The current app's engine, or the in-memory one while Flask-Limiter's fallback is in use."""
        app_state = self.app_state
        return self._access.fallback_in_use or app_state.engine

    @property
    def engine_of_calls(self) -> Engine:
        """The engine that counts the calls to upstreams. If limits are switched off, each process counts for itself."""
        state = self.state_of_calls
        if state is not None:
            return state.engine
        if not self._is_off:
            raise RuntimeError(_UNKNOWN_APP)
        if self._engine_if_off is None:
            self._engine_if_off = Engine(open_store(TESTS_URI, name="", clock=self._clock, options={}))
        return self._engine_if_off

    @property
    def state_of_calls(self) -> AppState | None:
        """The state by which upstreams are called: as :attr:`app_state`, or None if no app was initialised with it."""
        return None if self._latest is None else self.app_state

    @property
    def ledger_of_calls(self) -> Ledger | None:
        """The ledger of the current request; None outside of requests, or if they are not limited."""
        return self._ledger_of(current_request()) if flask.has_request_context() and self._active else None

    @property
    def admin(self) -> Admin:
        """Changes plans for single payers while the current app runs.

        Works outside of a request, too; without an app context for the app that was initialised last.

        Raises:
            ConfigurationError: The app has no plans.
        """
        state, engine = self.app_state, self.engine

        def plans_now() -> Plans:
            if state.plans is None:
                raise ConfigurationError("plans: this app has none, so there is nothing to change. Set AILIMIT_PLANS.")
            return state.plans

        plans_now()

        def forget_counts(payer: PayerName) -> None:
            named = [[*payer]]
            if payer.role != SERVICE and self._access.payer_key is None:
                named.append([str(payer)])  # What decorators count by, see _first_payer.
            elif payer.role == USER and self._access.identify is None:
                named.append([payer.id])  # The key, by which they count then.
            if payer.role == ADDRESS:
                named.append(["", payer.id])
            for identity in named:
                engine.reset(self.subject_of(identity))

        return Admin(
            plans_now,
            state.changes,
            self.subject_of,
            forget_counts,
            state.limits_of_derived,
            state.read_again,
            state.durability.require,
        )

    @property
    def app_state(self) -> AppState:
        """The state of the current app; without an app context, of the app that was initialised last."""
        state = self._states.get(current_app()) if flask.has_app_context() else self._latest
        if state is None:
            raise RuntimeError(_UNKNOWN_APP)
        return state

    def _require_prices(self, limit: UnitLimit) -> None:
        for state in self._states.values():
            if state.settings.cost_of is None:
                require_price(limit, state.prices)

    def _require_durability(self) -> None:
        """Check that money lasts in the store of each app. Called when a limit on money is written."""
        with misconfigured():
            for state in self._states.values():
                state.durability.require()

    def _listed_limits(self) -> list[Limit]:
        """The limits of the current app's lists, but those that the base class keeps."""
        state = self.app_state
        return [*state.application_limits, *state.address_limits, *state.default_token_limits, *self._meta_limits]

    @property
    def ledger(self) -> Ledger:
        """The ledger of the current request."""
        ledger = self._ledger_of(current_request())
        if ledger is None:
            raise RuntimeError(_UNKNOWN_APP)
        return ledger

    def _ledger_of(self, request: Request) -> Ledger | None:
        """The ledger of a request; None if its app isn't limited."""
        ledger: Ledger | None = request.__dict__.get(self._access.ledger_key)
        if ledger is None and self.initialized:
            state = self._states.get(current_app())
            return None if state is None else open_ledger(request, state, self._access)
        return ledger

    def identify_request(self) -> str:
        """Return Flask-Limiter's name of the current request's endpoint."""
        return self._access.endpoint_of(current_request()) if self._active else ""

    def note_decided(self, name: str) -> None:
        """Note that the limits of a function were decided with its wrapper's, so that its next call decides nothing."""
        ledger = self._ledger_of(current_request())
        if ledger is not None:
            ledger.decided |= {name}

    def _first_payer(self) -> str:
        """The key function of a limiter that was given none: role and id of the first payer."""
        first = payers_of(self.ledger)[0]
        return f"{first.role}:{first.id}"

    @property
    def _active(self) -> bool:
        """Whether requests to the current app are limited."""
        return self.initialized and self.enabled

    def _check_addresses(self) -> None:
        request = current_request()
        ledger = self._ledger_of(request)
        if ledger is not None and self._active:
            decide_addresses(ledger, request)

    def _check_request_limit(self, callable_name: str | None = None, in_middleware: bool = True) -> None:
        request = current_request()
        ledger = self._ledger_of(request)
        try:
            if (
                ledger is None
                or not self._switched_on
                or not is_switched_on(ledger.app)
                or not decide_known_limits(ledger, callable_name, in_middleware)
            ):
                name = callable_name or self.limit_manager.names.of_view(current_app(), request.endpoint)
                super()._check_request_limit(name or None, in_middleware)
        except (OwnAnswer, PastFlaskLimiter) as error:
            turn_away(self.ledger, error)

    # Flask-Limiter finds out which limits apply, and this decides in its place. The name is its private method's, in
    # Python's spelling. A check in limits/flask_limiter_access.py, and Flask-Limiter's own tests, run on this class,
    # watch over it.
    def _Limiter__evaluate_limits(self, endpoint: str, limits: list[RuntimeLimit]) -> None:  # noqa: N802
        if self._active:
            decide_new_limits(self.ledger, endpoint, limits)

    def _after_request(self, response: Response) -> Response:
        request = current_request()
        watch_until_closed(request, response)
        ledger: Ledger | None = request.__dict__.get(self._access.ledger_key)
        return response if ledger is None else respond(ledger, request, response)

    def _teardown_request(self, error: BaseException | None) -> None:
        request = current_request()
        tear_down(request.__dict__.get(self._access.ledger_key), request, error)
