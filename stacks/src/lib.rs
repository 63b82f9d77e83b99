//! Two servers on loopback for the examples and tests of this package: one that speaks gRPC, and one
//! that stands in for the API server of a Kubernetes cluster. Each takes one token at a time.

mod cluster;
mod health;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, header::AUTHORIZATION};

pub use crate::{
    cluster::{Cluster, copy},
    health::HealthServer,
};

/// Who is let in, and who has come.
#[derive(Clone, Debug, Default)]
struct Door {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    accepted: String,
    seen: Vec<String>,
}

impl Door {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, token: &str) {
        self.lock().accepted = format!("Bearer {token}");
    }

    /// The `Authorization` of each request so far, empty for one that has none.
    fn seen(&self) -> Vec<String> {
        self.lock().seen.clone()
    }

    fn lets_in(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get(AUTHORIZATION);
        let sent = sent.and_then(|value| value.to_str().ok());
        let mut state = self.lock();
        state.seen.push(sent.unwrap_or_default().to_owned());
        sent == Some(&state.accepted)
    }
}
