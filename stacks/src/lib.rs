//! Two servers on loopback for the examples and tests of this package: a gRPC server, and a stand-in for the
//! API server of a Kubernetes cluster. Each server accepts a single token at a time.

pub mod cluster;
pub mod health;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{HeaderMap, header::AUTHORIZATION};
use tokio::net::TcpListener;

/// A server: its URL, the token that it accepts, and the tokens that it has seen.
#[derive(Clone, Debug)]
pub struct Server {
    url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    accepted: String,
    seen: Vec<String>,
}

impl Server {
    async fn bind(accepted: &str) -> io::Result<(Self, TcpListener)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let server = Self {
            url: format!("http://{}", listener.local_addr()?),
            state: Arc::default(),
        };
        server.accept(accepted);
        Ok((server, listener))
    }

    /// Accepts only this token from now on.
    pub fn accept(&self, token: &str) {
        self.lock().accepted = format!("Bearer {token}");
    }

    /// The scheme, host and port of the server.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The `Authorization` of each request so far. Empty if the request lacks the header.
    #[must_use]
    pub fn seen(&self) -> Vec<String> {
        self.lock().seen.clone()
    }

    fn lets_in(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get(AUTHORIZATION);
        let sent = sent.and_then(|value| value.to_str().ok());
        let mut state = self.lock();
        state.seen.push(sent.unwrap_or_default().to_owned());
        sent == Some(&state.accepted)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
