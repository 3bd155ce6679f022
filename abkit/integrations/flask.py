"""Flask: an extension that gives each request a handle, as `g.abkit`.

::

    from abkit.integrations.flask import Abkit

    experiments = Abkit(client=ab, unit=lambda request: request.cookies.get("user_id"))
    experiments.init_app(app)

    @app.get("/rank")
    def rank():
        with g.abkit.exposure("ranker", default="teacher", latency="latency_ms") as a:
            return models[a.variant](...)

Make the client before the server forks, as with `gunicorn --preload`, or after: each process
writes to a log segment of its own.
"""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING, Any

from abkit.errors import MissingExtraError
from abkit.integrations.request import ForceHeader, RequestHandle, check_unit

try:
    import flask
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"abkit.integrations.flask needs {error.name}: pip install flask"
    ) from error

if TYPE_CHECKING:
    from abkit.client import Client
    from abkit.integrations.request import AttributesOf, UnitOf

KEY = "abkit"
"""Name of the handle in `g`, and of the extension in `app.extensions`."""
_FORCED = "_abkit_forced"


class Abkit:
    """The extension; one object serves any number of applications.

    Args:
        app: the application; None to call `init_app` later.
        client: assigns and logs.
        unit: the unit_id of a request, from flask's request object; None while it is not known.
            Asked when a view first needs it.
        attributes: what is known of the unit, from the request, for targeting.
        force_header: name of a header that forces variants; None for none. See `ForceHeader`.
        force_token: what the token's header must hold for that.
        force_token_header: name of the token's header; empty for `force_header` and "-token".
        force_is_open: take the force header from anybody, without a token.
        close: close the client when the process ends, where Python comes to run that. No event
            of the default durability depends on it.

    Raises:
        ConfigError: `unit` is not callable, or a force header has no token and is not open.
    """

    def __init__(
        self,
        app: flask.Flask | None = None,
        *,
        client: Client,
        unit: UnitOf,
        attributes: AttributesOf | None = None,
        force_header: str | None = None,
        force_token: str = "",
        force_token_header: str = "",
        force_is_open: bool = False,
        close: bool = True,
    ) -> None:
        """Check the arguments, and begin with `app` if there is one."""
        check_unit(unit, "Abkit")
        self.client = client
        self._unit = unit
        self._attributes = attributes
        self._force = ForceHeader.named(
            force_header, force_token, force_token_header, is_open=force_is_open
        )
        if close:
            atexit.register(client.close)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Serve an application."""
        app.extensions[KEY] = self
        app.before_request(self._begin)
        app.teardown_request(self._end)

    def _begin(self) -> None:
        # The request itself, not its proxy: the handle may go on to another thread.
        proxy: Any = flask.request
        current = proxy._get_current_object()  # noqa: SLF001 - Flask's documented way
        flask.g.abkit = RequestHandle(self.client, current, self._unit, self._attributes)
        if self._force is None:
            return
        headers = current.headers
        forced = self._force.read(
            headers.get(self._force.header),
            headers.get(self._force.token_header),
            self.client.rejected,
        )
        if forced:
            block = self.client.force(forced)
            block.__enter__()
            setattr(flask.g, _FORCED, block)

    def _end(self, error: BaseException | None = None) -> None:
        del error
        block = flask.g.pop(_FORCED, None)
        if block is not None:
            block.__exit__(None, None, None)
