#!/usr/bin/env python3
"""Compares what dxpy, the Python client of DNAnexus, sends with what our example sends.

    python3 tests/dxpy/compare.py

For each case, a server on loopback takes the request of `dxpy.api.system_whoami()` and that of
`clients/examples/dnanexus_whoami.rs`, run with the same environment and the same files. The bytes of each
`Authorization` must be the same; where we differ on purpose, the case says how, and why.

Needs cargo, and Python 3.10 or later with venv and pip. dxpy goes into a virtual environment in
cargo's target directory, and nothing but this directory and the one for temporary files is touched.
"""

import json
import os
import pathlib
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
import venv

ROOT = pathlib.Path(__file__).resolve().parents[2]
# As for cargo, which runs in ROOT.
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
# urllib3, too: what becomes of a redirect depends on it.
PACKAGES = ["dxpy==0.417.1", "urllib3==2.7.0"]

# In every token, to look for in what our example prints.
MARK = "7Fjfp0ZBr1"

# Without retries, which would only put failures off.
WHOAMI = "import dxpy; print(dxpy.api.system_whoami(max_retries=0))"


class Server(socketserver.ThreadingTCPServer):
    """Notes each request byte for byte, and answers as it is told, by default as DNAnexus would."""

    daemon_threads = True

    def __init__(self, name):
        super().__init__(("127.0.0.1", 0), Handler)
        self.name, self.port = name, self.server_address[1]
        self.answers, self.seen = {}, []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(socketserver.StreamRequestHandler):
    timeout = 60

    def handle(self):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.rfile.read(1)
            if not byte:
                return
            head += byte
        line, *fields = head[:-4].split(b"\r\n")
        fields = [field.split(b":", 1) for field in fields]
        fields = [(name.lower(), value.removeprefix(b" ")) for name, value in fields]
        length = int(dict(fields).get(b"content-length", 0))
        request = Request(self.server.name, line, fields, self.rfile.read(length))
        self.server.seen.append(request)
        status, extra, body = self.server.answers.get(request.path, (200, "", {"id": "user-alice"}))
        body = json.dumps(body)
        self.wfile.write(
            f"HTTP/1.1 {status} As told\r\nContent-Type: application/json\r\n{extra}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )


class Request:
    def __init__(self, server, line, fields, body):
        self.server, self.line, self.body = server, line.decode(), body
        self.path = self.line.split(" ")[1]
        self.content_type = dict(fields).get(b"content-type")
        self.authorizations = [value for name, value in fields if name == b"authorization"]

    def in_short(self):
        """Where the request went, and all it says about who sent it."""
        return f"{self.server}{self.path}", *self.authorizations


API, OTHER = Server("api"), Server("other")


def context(token, token_type="Bearer"):
    return json.dumps({"auth_token_type": token_type, "auth_token": token})


def sends(*authorization, to="api/system/whoami"):
    return [(to, *authorization)]


# No request goes out.
REFUSES = []

TOKEN, OTHER_TOKEN = f"{MARK}KtDRbnfVdmIw", f"{MARK}zzzzzzzzzzzz"
CONTEXT, OTHER_CONTEXT = context(TOKEN), context(OTHER_TOKEN)
BEARER = sends(f"Bearer {TOKEN}".encode())

SERVER = {
    "DX_APISERVER_PROTOCOL": "http",
    "DX_APISERVER_HOST": "127.0.0.1",
    "DX_APISERVER_PORT": str(API.port),
}


def login(**members):
    """What `dx login` leaves in environment.json, as an object."""
    return {**SERVER, "DX_CLI_WD": "/", "DX_SECURITY_CONTEXT": CONTEXT, **members}


def in_config(text, folder=".dnanexus_config"):
    text = text if isinstance(text, str) else json.dumps(text, indent=4) + "\n"
    return {f"{folder}/environment.json": text}


def case(name, env=None, files=None, **how):
    return {"name": name, "env": SERVER | (env or {}), "files": files or {}, **how}


def from_file(name, files, env=None, **how):
    """With nothing in the environment but what is given."""
    return case(name, files=files, **how) | {"env": env or {}}


def of_context(name, context, **how):
    return case(name, {"DX_SECURITY_CONTEXT": context}, **how)


def of_token(name, token, **how):
    return of_context(name, context(token), **how)


def cases():
    # Both do the same.
    yield of_context("context in the environment, as a job has it", CONTEXT, both=BEARER)
    yield from_file("file only, as `dx login` leaves it", in_config(login()), both=BEARER)
    yield case(
        "both: the environment wins",
        {"DX_SECURITY_CONTEXT": CONTEXT},
        in_config(login(DX_SECURITY_CONTEXT=OTHER_CONTEXT, DX_APISERVER_PORT="1")),
        both=BEARER,
    )
    yield case(
        "both: the token of the file for the server of the environment",
        files=in_config(login(DX_APISERVER_HOST="192.0.2.1")),
        both=BEARER,
    )
    yield from_file(
        "both: the token of the environment for the server of the file",
        in_config(login(DX_SECURITY_CONTEXT=OTHER_CONTEXT)),
        {"DX_SECURITY_CONTEXT": CONTEXT},
        both=BEARER,
    )
    yield from_file(
        "an API token, written by dxpy as `dx login --token` does",
        {},
        written_by_dxpy={**SERVER, "DX_SECURITY_CONTEXT": context(TOKEN)},
        both=BEARER,
    )
    yield from_file(
        "after `dx logout`, written by dxpy",
        {},
        written_by_dxpy={**SERVER, "DX_SECURITY_CONTEXT": None},
        both=sends(b"Bearer PUBLIC"),
    )
    yield from_file(
        "DX_USER_CONF_DIR in the home directory",
        in_config(login(), "conf/dx") | in_config(login(DX_SECURITY_CONTEXT=OTHER_CONTEXT)),
        {"DX_USER_CONF_DIR": "~/conf/dx"},
        both=BEARER,
    )
    yield of_context(
        "escapes, space, and a member of no interest",
        f' {{"\\u0061uth_token_type": "Bearer", "x": [], "auth_token": "\\u0037{TOKEN[1:]}"}}\n',
        both=BEARER,
    )
    yield of_context(
        "two members of one name",
        f'{{"auth_token": "x", "auth_token_type": "Bearer", "auth_token": "{TOKEN}"}}',
        both=BEARER,
    )
    yield case(
        "null in the file",
        {"DX_SECURITY_CONTEXT": CONTEXT},
        in_config({"DX_SECURITY_CONTEXT": None, "DX_APISERVER_HOST": None}),
        both=BEARER,
    )
    yield from_file(
        "HTTP in capitals", in_config(login(DX_APISERVER_PROTOCOL="HTTP")), both=BEARER
    )
    yield case(
        "redirect to a path on the same server",
        {"DX_SECURITY_CONTEXT": CONTEXT},
        answer=(307, "Location: /moved\r\n", {}),
        both=BEARER + sends(f"Bearer {TOKEN}".encode(), to="api/moved"),
    )

    # Both refuse.
    for name, malformed in [
        ("empty context", ""),
        ("context that is not JSON", "{"),
        ("context that is the bare token", TOKEN),
        ("context that is a JSON string", json.dumps(TOKEN)),
        ("context without a token type", json.dumps({"auth_token": TOKEN})),
        ("context without a token", json.dumps({"auth_token_type": "Bearer"})),
        ("context with a token that is a number", context(4711)),
        ("context with a token that is null", context(None)),
        ("context with another token type", context(TOKEN, "Basic")),
        ("token with half a surrogate pair", context(TOKEN + "\ud83d")),
        ("token with a newline at its end", context(TOKEN + "\n")),
    ]:
        yield of_context(name, malformed, both=REFUSES)
    yield case(
        "malformed context in the environment, a good one in the file",
        {"DX_SECURITY_CONTEXT": "{"},
        in_config(login()),
        both=REFUSES,
    )
    for name in ["DX_APISERVER_HOST", "DX_APISERVER_PROTOCOL"]:
        yield case(f"empty {name}", {"DX_SECURITY_CONTEXT": CONTEXT, name: ""}, both=REFUSES)
    yield from_file(
        "file with a port that is a number, not a string",
        in_config(login(DX_APISERVER_PORT=API.port)),
        both=REFUSES,
    )
    yield from_file(
        "file with a context that is an object, not a string",
        in_config(login(DX_SECURITY_CONTEXT=json.loads(CONTEXT))),
        both=REFUSES,
    )

    # We differ on purpose.
    for token_type in ["bearer", "BEARER"]:
        yield of_context(
            f"token type {token_type}",
            context(TOKEN, token_type),
            dxpy=sends(f"{token_type} {TOKEN}".encode()),
            ours=BEARER,
            why="the scheme has no case (RFC 9110 §11.1), and Bearer is what every server knows",
        )
    yield case(
        "no token anywhere",
        dxpy=sends(),
        ours=REFUSES,
        why="a program that wants a token should hear at start-up that there is none",
    )
    yield of_token(
        "empty token",
        "",
        dxpy=sends(b"Bearer "),
        ours=REFUSES,
        why="no server accepts it",
    )
    yield of_token(
        "token with a newline and a space",
        f"{TOKEN}\n x",
        dxpy=sends(f"Bearer {TOKEN}\n x".encode()),
        ours=REFUSES,
        why="it would put a line of its own into the request",
    )
    for name, token in [
        ("space around it", f" {TOKEN} "),
        ("a letter that is not ASCII", f"{TOKEN}\u00e9"),
        ("a colon", f"{TOKEN}:x"),
    ]:
        yield of_token(
            f"token with {name}",
            token,
            dxpy=sends(f"Bearer {token}".encode()),
            ours=REFUSES,
            why="it is no bearer token (RFC 6750 §2.1)",
        )
    yield case(
        "file that is not JSON",
        files=in_config("{"),
        dxpy=sends(),
        ours=REFUSES,
        why="dxpy passes over the file, and sends the request without a token",
    )
    yield case(
        "file with a byte order mark",
        files=in_config("\ufeff" + json.dumps(login())),
        dxpy=sends(),
        ours=BEARER,
        why="editors put it there, and nothing is unclear; dxpy passes over the file",
    )
    for name, value in [("PORT", f" {API.port}\n"), ("HOST", "127.0.0.1\n")]:
        yield case(
            f"space around DX_APISERVER_{name}",
            {"DX_SECURITY_CONTEXT": CONTEXT, f"DX_APISERVER_{name}": value},
            dxpy=REFUSES,
            ours=BEARER,
            why="a newline at the end is a common slip, and nothing is unclear",
        )
    yield case(
        "a user in DX_APISERVER_HOST",
        {"DX_SECURITY_CONTEXT": CONTEXT, "DX_APISERVER_HOST": "api.example.com@127.0.0.1"},
        dxpy=BEARER,
        ours=REFUSES,
        why="it is no host, and hides which server gets the token",
    )
    yield from_file(
        "a session of this shell, which `dx` keeps beside the last login",
        in_config(login(DX_SECURITY_CONTEXT=OTHER_CONTEXT))
        | in_config(login(), f".dnanexus_config/sessions/{os.getpid()}"),
        dxpy=BEARER,
        ours=sends(f"Bearer {OTHER_TOKEN}".encode()),
        why="we read the last login only, and say so",
    )
    yield case(
        "redirect to another server",
        {"DX_SECURITY_CONTEXT": CONTEXT},
        answer=(307, f"Location: http://127.0.0.1:{OTHER.port}/x\r\n", {}),
        dxpy=BEARER,
        ours=BEARER + sends(to="other/x"),
        why="we follow, without the token; dxpy cannot follow",
    )
    yield case(
        "redirect to another server, spelt as a user name",
        {"DX_SECURITY_CONTEXT": CONTEXT},
        answer=(307, f"Location: @127.0.0.1:{OTHER.port}/x\r\n", {}),
        dxpy=BEARER + sends(f"Bearer {TOKEN}".encode(), to="other/x"),
        ours=BEARER + sends(f"Bearer {TOKEN}".encode(), to=f"api/system/@127.0.0.1:{OTHER.port}/x"),
        why="it is a path (RFC 3986 §4.2), so we stay; dxpy gives the other server the token",
    )
    yield case(
        "401, with the token from the environment",
        {"DX_SECURITY_CONTEXT": CONTEXT},
        answer=(401, "", {"error": {"type": "InvalidAuthentication", "message": "no"}}),
        both=BEARER,
        ours_says="environment variable DX_SECURITY_CONTEXT, which wins over `dx login`",
    )
    yield from_file(
        "401, with the token from the file",
        in_config(login()),
        answer=(401, "", {"error": {"type": "InvalidAuthentication", "message": "no"}}),
        both=BEARER,
        ours_says="Run `dx login` again",
    )


def make_python():
    """A Python that has dxpy."""
    folder = TARGET / "dxpy"
    marker = folder / "packages"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not marker.exists() or marker.read_text() != " ".join(PACKAGES):
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        # Last, so that it is there only if all of it is.
        marker.write_text(" ".join(PACKAGES))
    return python


def build_example():
    command = "cargo build --quiet --features dnanexus --example dnanexus_whoami"
    command = [*command.split(), "--message-format", "json"]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    artifacts = [json.loads(line) for line in output.splitlines()]
    return [artifact["executable"] for artifact in artifacts if artifact.get("executable")][-1]


def run(command, case, home, env):
    """What the command sends, and how it ends."""
    for server in API, OTHER:
        server.answers, server.seen = {}, []
    if "answer" in case:
        API.answers["/system/whoami"] = case["answer"]
    env = {"HOME": str(home), "USERPROFILE": str(home), **env}
    done = subprocess.run(command, env=env, cwd=home, capture_output=True, timeout=120)
    output = (done.stdout + done.stderr).decode(errors="replace")
    return API.seen + OTHER.seen, done.returncode, output


def problems(case, python, example):
    """What is not as the case says."""
    expected = [case.get("dxpy", case.get("both")), case.get("ours", case.get("both"))]
    with tempfile.TemporaryDirectory() as home:
        home = pathlib.Path(home)
        for path, text in case["files"].items():
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            (home / path).write_text(text, encoding="utf-8")
        for name, value in case.get("written_by_dxpy", {}).items():
            code = f"import dxpy; dxpy.config.write({name!r}, {value!r})"
            run([python, "-c", code], {}, home, {})
        dxpy, dxpy_status, dxpy_output = run([python, "-c", WHOAMI], case, home, case["env"])
        ours, our_status, our_output = run([example], case, home, case["env"])

    for who, sent, right in ("dxpy", dxpy, expected[0]), ("our example", ours, expected[1]):
        sent = [request.in_short() for request in sent]
        if sent != right:
            yield f"{who} sent {sent} instead of {right}"
    if dxpy and ours:
        first = [(one[0].line, one[0].content_type, one[0].body) for one in (dxpy, ours)]
        if first[0] != first[1]:
            yield f"apart from the token, dxpy sent {first[0]} and our example {first[1]}"
    status = 2 if not ours else 1 if "ours_says" in case else 0
    if our_status != status:
        yield f"our example exited with {our_status} instead of {status}: {our_output}"
    if not dxpy and dxpy_status == 0:
        yield f"dxpy sent nothing and did not say so: {dxpy_output}"
    if case.get("ours_says", "") not in our_output:
        yield f"our example does not say {case['ours_says']!r}: {our_output}"
    if MARK in our_output:
        yield f"our example shows the token: {our_output}"


def in_words(requests):
    if not requests:
        return "no request"
    return ", then ".join(
        f"{place} {' and '.join(map(repr, authorizations)) or 'without a token'}"
        for place, *authorizations in requests
    )


def main():
    python, example = make_python(), build_example()
    failed = passed = 0
    for one in cases():
        found = list(problems(one, python, example))
        failed, passed = failed + bool(found), passed + (not found)
        print(f"{'FAILED' if found else 'ok'}: {one['name']}")
        if "both" in one:
            print(f"    both: {in_words(one['both'])}")
        else:
            print(f"    dxpy: {in_words(one['dxpy'])}\n    ours: {in_words(one['ours'])}")
            print(f"    on purpose: {one['why']}")
        for problem in found:
            print(f"    BUT {problem}")
        sys.stdout.flush()
    print(f"\nCompared with {PACKAGES[0]}:\n{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
