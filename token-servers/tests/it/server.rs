//! The servers: each server is a process of its own on loopback.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// The secret of every client at both servers. Each special character in it has to be encoded
/// (RFC 6749 §2.3.1).
pub(crate) const SECRET: &str = "s3cret with a space, + and %";

/// Set by `token-servers/run`, which installs the servers.
const DIRECTORY: &str = "TOKEN_SERVERS";

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// From npm; certified by the `OpenID` Foundation.
    OidcProvider,
    /// From the Python package index.
    Authlib,
}

/// A drop ends the process.
pub(crate) struct Server {
    kind: Kind,
    port: u16,
    process: Child,
}

impl Server {
    pub(crate) async fn start(kind: Kind) -> Self {
        let (process, port) = spawn(kind, 0).await.unwrap();
        Self {
            kind,
            port,
            process,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Ends the server without a warning, like a crash.
    pub(crate) async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// Starts the server again on the same port, with an empty memory.
    pub(crate) async fn restart(&mut self) {
        for _ in 0..20 {
            // A connection of a client may use this port for a moment.
            if let Some((process, port)) = spawn(self.kind, self.port).await {
                assert_eq!(port, self.port);
                self.process = process;
                return;
            }
        }
        panic!("{:?} does not start again on port {}", self.kind, self.port);
    }

    /// A refresh token of `client`, as a user would have got it by signing in.
    pub(crate) async fn sign_in(&self, client: &str) -> String {
        let client = encoded(client);
        self.get(&format!("/test/sign-in?client={client}")).await
    }

    async fn get(&self, path: &str) -> String {
        text(&self.url(path)).await
    }

    /// How many token requests this process has answered.
    pub(crate) async fn token_requests(&self) -> usize {
        let counts: serde_json::Value =
            serde_json::from_str(&self.get("/test/counts").await).unwrap();
        let counts = counts.as_object().unwrap().values();
        let sum: u64 = counts.map(|count| count.as_u64().unwrap()).sum();
        usize::try_from(sum).unwrap()
    }

    /// Sends a form of `client`, with the secret in a Basic header (`client_secret_basic`).
    pub(crate) async fn post(
        &self,
        path: &str,
        client: &str,
        form: &[(&str, &str)],
    ) -> Response<Bytes> {
        use base64::prelude::{BASE64_STANDARD, Engine};
        let credentials = format!("{}:{}", encoded(client), encoded(SECRET));
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let request = Request::post(self.url(path))
            .header("content-type", "application/x-www-form-urlencoded")
            .header(
                "authorization",
                format!("Basic {}", BASE64_STANDARD.encode(credentials)),
            )
            .body(Full::from(body))
            .unwrap();
        send(request).await
    }

    /// RFC 7009.
    pub(crate) async fn revoke(&self, client: &str, token: &str) {
        let form = [("token", token), ("token_type_hint", "access_token")];
        let response = self.post("/token/revocation", client, &form).await;
        assert_eq!(response.status(), 200);
    }

    /// RFC 7662: whether the server takes the token.
    pub(crate) async fn introspect(&self, client: &str, token: &str) -> bool {
        let form = [("token", token)];
        let response = self.post("/token/introspection", client, &form).await;
        let answer: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        answer["active"].as_bool().unwrap()
    }
}

/// Encodes a space as `%20`, which every server reads. Authlib reads a `+` as a `+`.
fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

pub(crate) async fn text(url: &str) -> String {
    let request = Request::get(url).body(Full::default()).unwrap();
    let response = send(request).await;
    assert_eq!(response.status(), 200, "{url}");
    String::from_utf8(response.into_body().to_vec()).unwrap()
}

async fn send(request: Request<Full<Bytes>>) -> Response<Bytes> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let (head, body) = client.request(request).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

/// `None` if the server ends before it listens.
async fn spawn(kind: Kind, port: u16) -> Option<(Child, u16)> {
    let directory = std::env::var_os(DIRECTORY).map(PathBuf::from);
    let directory =
        directory.expect("token-servers/run installs the servers, and starts the tests");
    let (program, script) = command(kind, &directory);
    let mut process = Command::new(program)
        .arg(script)
        .arg(port.to_string())
        // The pipe closes at the latest when this process ends, and the server ends with the pipe.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some(port) = line.strip_prefix("listening ") {
            let port = port.parse().unwrap();
            // A server must not die of a pipe that nobody reads.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Some((process, port));
        }
    }
    None
}

fn command(kind: Kind, directory: &Path) -> (PathBuf, PathBuf) {
    match kind {
        Kind::OidcProvider => (
            std::env::var_os("NODE").map_or("node".into(), PathBuf::from),
            directory.join("oidc-provider/server.mjs"),
        ),
        Kind::Authlib => (
            directory.join("authlib/bin/python"),
            Path::new(env!("CARGO_MANIFEST_DIR")).join("authlib/server.py"),
        ),
    }
}
