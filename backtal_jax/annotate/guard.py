"""Who is let in to the page.

Whoever knows the token may do everything, nobody else anything. The token
comes once, in the address; a cookie keeps it. What changes anything must come
from our own page (Origin), under a name of this machine (Host): neither
another site nor a name that points here gets through.
"""

import secrets
from collections.abc import Collection
from urllib import parse

from starlette import requests, responses, types

_HEADERS = (
  ('content-security-policy',
   "default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self'; "
   "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; "
   "base-uri 'none'; form-action 'none'"),
  ('cross-origin-resource-policy', 'same-origin'),
  ('cache-control', 'no-store'),
  ('referrer-policy', 'no-referrer'),
  ('x-content-type-options', 'nosniff'),
)  # fmt: skip


class Guard:
  """Lets through to an app who knows the token and comes from our own page.

  The hosts are names that this server may be called by; () is any.
  """

  def __init__(
    self, app: types.ASGIApp, token: str, hosts: Collection[str]
  ) -> None:
    self._app, self._token, self._hosts = app, token, hosts

  async def __call__(
    self, scope: types.Scope, receive: types.Receive, send: types.Send
  ) -> None:
    if scope['type'] != 'http':  # the start and the end of the server
      await self._app(scope, receive, send)
      return

    async def send_with_headers(message):
      if message['type'] == 'http.response.start':
        added = [(k.encode(), v.encode()) for k, v in _HEADERS]
        message = message | {'headers': [*message['headers'], *added]}
      await send(message)

    request = requests.Request(scope)
    answer = self._refuse(request) or self._enter(request) or self._app
    await answer(scope, receive, send_with_headers)

  def _refuse(self, request):
    host = request.headers.get('host', '')
    name = parse.urlsplit(f'//{host}').hostname
    origin = request.headers.get('origin')
    if self._hosts and name not in self._hosts:
      return _forbidden(f'not the host {host!r}')
    if origin is not None and parse.urlsplit(origin).netloc != host:
      return _forbidden(f'requests from {origin!r} are not answered')
    told = (
      request.query_params.get('token'),
      request.cookies.get(_cookie(host)),
      request.headers.get('authorization', '').removeprefix('Bearer '),
    )
    if not any(
      secrets.compare_digest(x.encode(), self._token.encode())
      for x in told
      if x
    ):
      return _forbidden(
        'Open the address that the server has printed, with its token: it is '
        'a new one with every start.'
      )
    return None

  def _enter(self, request):
    """Turn the token in the page's address into a cookie."""
    if request.url.path != '/' or 'token' not in request.query_params:
      return None
    answer = responses.RedirectResponse('/', 303)
    answer.set_cookie(
      _cookie(request.headers.get('host', '')), self._token,
      httponly=True, samesite='lax',
    )  # fmt: skip
    return answer


def _cookie(host):
  # Cookies do not tell the ports of a machine apart.
  return f'annotate_{parse.urlsplit(f"//{host}").port}'


def _forbidden(text):
  return responses.PlainTextResponse(text, 403)
