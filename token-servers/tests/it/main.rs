//! The whole stack, from `TokenRequest` to the header of a request, against real servers. The client is
//! hyper's, and several tasks send requests without a pause. `token-servers/run` installs the servers.
//!
//! Each test is for both servers, unless a server cannot do what the test is about.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs)]
// The tests print the figures of a run.
#![allow(clippy::print_stdout)]

mod authentication;
mod expiry;
mod ledger;
mod outage;
mod refresh_token;
mod revocation;
mod server;
mod traffic;
mod wrong_secret;

use ledger::Ledger;
use server::{Kind, SECRET, Server};
use tower_bearer::TokenRequest;

/// A token request of the client that the servers know as `client`, with the secret of this client.
fn machine(server: &Server, client: &str) -> TokenRequest {
    TokenRequest::client_credentials(&server.url("/token"), client, SECRET)
        .unwrap()
        .scope("read")
}

/// Makes two tests, one for each server, of an async function that takes a `Kind`.
macro_rules! for_both_servers {
    ($name:ident) => {
        mod $name {
            use crate::server::Kind;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn oidc_provider() {
                super::$name(Kind::OidcProvider).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn authlib() {
                super::$name(Kind::Authlib).await;
            }
        }
    };
}
use for_both_servers;
