"""An authorization server (Authlib, in Flask), and an API that takes its tokens.

    python server.py [PORT]

The server listens on loopback, prints `listening PORT`, and keeps everything in memory. It ends when its
standard input ends, so that a test that is killed leaves no server behind. The paths under /test are for the
tests only.
"""

import collections
import os
import secrets
import sys
import threading
import time

import waitress
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin, grants
from authlib.oauth2.rfc7009 import RevocationEndpoint
from flask import Flask, jsonify, request

SECRET = "s3cret with a space, + and %"
BRIEF = 5
LONG = 600


class Client(ClientMixin):
    def __init__(self, client_id, grant_type, method="client_secret_basic"):
        self.client_id, self.grant_type, self.method = client_id, grant_type, method

    def get_client_id(self):
        return self.client_id

    def get_allowed_scope(self, scope):
        return " ".join(word for word in (scope or "").split() if word == "read")

    def check_client_secret(self, client_secret):
        return secrets.compare_digest(client_secret.encode(), SECRET.encode())

    def check_endpoint_auth_method(self, method, endpoint):
        return endpoint != "token" or method == self.method

    def check_grant_type(self, grant_type):
        return grant_type == self.grant_type


class Token(TokenMixin):
    """An access token, and the refresh token that came with it."""

    def __init__(self, client, family, values):
        self.client, self.family = client, family
        self.access_token = values.get("access_token")
        self.refresh_token = values.get("refresh_token")
        self.expires_at = time.time() + values.get("expires_in", 0)
        self.revoked = self.spent = False

    def check_client(self, client):
        return client.client_id == self.client.client_id

    def get_scope(self):
        return "read"

    def get_expires_in(self):
        return self.expires_at - time.time()

    def is_expired(self):
        return self.get_expires_in() <= 0

    def is_revoked(self):
        return self.revoked


CLIENTS = {
    client.client_id: client
    for client in [
        Client("brief machine", "client_credentials"),
        Client("long machine", "client_credentials"),
        Client("post", "client_credentials", "client_secret_post"),
        Client("brief user", "refresh_token"),
        Client("long user", "refresh_token"),
    ]
}
TOKENS = []
# The number of token requests that were answered with each status.
COUNTS = collections.Counter()
LOCK = threading.RLock()


def find(**wanted):
    with LOCK:
        ((name, value),) = wanted.items()
        return next((token for token in TOKENS if getattr(token, name) == value), None)


def save_token(values, request):
    old = request.refresh_token
    with LOCK:
        TOKENS.append(Token(request.client, old.family if old else object(), values))


class RefreshTokenGrant(grants.RefreshTokenGrant):
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token):
        with LOCK:
            token = find(refresh_token=refresh_token)
            if token and token.spent:
                # A refresh token that is used twice may be stolen: RFC 9700, section 4.14.2.
                for relative in TOKENS:
                    if relative.family is token.family:
                        relative.revoked = True
            if token and not token.revoked:
                return token

    def authenticate_user(self, refresh_token):
        return "alice"

    def revoke_old_credential(self, refresh_token):
        refresh_token.spent = True


class Revocation(RevocationEndpoint):
    def query_token(self, token_string, token_type_hint):
        return find(access_token=token_string) or find(refresh_token=token_string)

    def revoke_token(self, token, request):
        token.revoked = True


app = Flask(__name__)
app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
oauth = AuthorizationServer(app, CLIENTS.get, save_token)
oauth.register_grant(type("Grant", (grants.ClientCredentialsGrant,), {
    "TOKEN_ENDPOINT_AUTH_METHODS": ["client_secret_basic", "client_secret_post"],
}))
oauth.register_grant(RefreshTokenGrant)
oauth.register_endpoint(Revocation)
generator = oauth.create_bearer_token_generator(app.config)
generator.expires_generator = lambda client, _grant: (
    BRIEF if client.client_id.startswith("brief") else LONG
)
oauth.register_token_generator("default", generator)


@app.post("/token")
def token():
    response = oauth.create_token_response()
    with LOCK:
        COUNTS[str(response.status_code)] += 1
    return response


@app.post("/token/revocation")
def revoke():
    return oauth.create_endpoint_response("revocation")


@app.get("/api")
def api():
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    good = find(access_token=text) if scheme == "Bearer" else None
    if good and not good.revoked and not good.is_expired():
        return "hello"
    return "", 401, {"WWW-Authenticate": 'Bearer realm="api", error="invalid_token"'}


@app.get("/test/counts")
def counts():
    return jsonify(COUNTS)


@app.get("/test/sign-in")
def sign_in():
    """A refresh token, as a user would have got it by signing in."""
    refresh_token = secrets.token_urlsafe(32)
    with LOCK:
        client = CLIENTS[request.args["client"]]
        TOKENS.append(Token(client, object(), {"refresh_token": refresh_token}))
    return refresh_token


def end_with_standard_input():
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    # Otherwise Authlib demands TLS, even on loopback.
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    # Keep idle connections: a request fails if the server closes its connection as the request arrives.
    server = waitress.create_server(
        app, host="127.0.0.1", port=port, threads=8, channel_timeout=86_400
    )
    print(f"listening {server.effective_port}", flush=True)
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    server.run()
