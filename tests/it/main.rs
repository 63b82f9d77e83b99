//! The crate's promises. Each folder is a subject, and each file is a part of it.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unchecked_time_subtraction,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod auto_traits;
#[cfg(feature = "tracing")]
mod tracing_events;

/// What happens to a request and its response.
mod layer {
    mod accepted;
    mod allocations;
    mod attach;
    mod bare;
    // This module reads its cases with `serde_json`, which these features bring. As a dev-dependency,
    // `serde_json` would be built for every example.
    #[cfg(any(feature = "dnanexus", feature = "oauth2"))]
    mod challenges;
    mod future_size;
    mod grpc;
    mod origins;
    mod per_request;
    mod rejected_when;
    mod rejection;
    #[cfg(feature = "retry")]
    mod retry;
    mod two_layers;
    mod uris;
    mod waiting;
    mod waiting_for_service;
    mod what_servers_said;
}

/// Where tokens come from.
mod sources {
    mod chain;
    #[cfg(feature = "dnanexus")]
    mod dnanexus;
    mod env;
    mod file;
    mod hostile;
    mod keep_fresh;
    mod own_runtime;
    #[cfg(feature = "test-util")]
    mod paused_time;
    mod random_waits;
    pub(crate) mod refreshing;
    mod refreshing_failure;
    mod refreshing_rejection;
    mod renewing;
    mod rotating;
    #[cfg(feature = "tokio")]
    mod runtimes;
    mod source_error;
}

/// Tokens from an OAuth 2.0 token endpoint.
#[cfg(feature = "oauth2")]
mod oauth2 {
    mod requests;
    mod responses;
    mod rotation;
    mod transport;
}

/// What a token is, that nothing shows a token, and that no token stays in memory.
mod secrets {
    mod data;
    mod redaction;
    mod token;
    mod wiping;
    #[cfg(feature = "dnanexus")]
    mod wiping_dnanexus;
    #[cfg(feature = "oauth2")]
    mod wiping_oauth2;
}

/// The layer around HTTP clients, and on different executors.
mod clients {
    mod errors;
    mod http;
    mod http2;
    mod no_runtime;
    mod sdk;
    mod spawning;
}

mod support;
