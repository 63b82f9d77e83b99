//! A token source of your own, with a token for each tenant: `cargo run --example custom_source`.
#![allow(clippy::print_stdout)]

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::{Request, Response};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_bearer::{BearerAuthLayer, BearerToken, SourceError, TokenFuture, TokenSource};

/// The tenant's name, and its token once it has been read.
#[derive(Clone)]
struct Tenant(&'static str, Arc<ArcSwapOption<BearerToken>>);

impl TokenSource for Tenant {
    fn token(&self) -> TokenFuture {
        let Self(name, kept) = self.clone();
        match kept.load_full().filter(|token| !token.is_rejected()) {
            Some(token) => TokenFuture::ready(Ok((*token).clone())),
            None => TokenFuture::boxed(async move {
                let token = read_keyring(name).await?;
                kept.store(Some(token.clone().into()));
                Ok(token)
            }),
        }
    }
}

async fn read_keyring(name: &str) -> Result<BearerToken, SourceError> {
    tokio::task::yield_now().await; // a keyring takes its time
    Ok(BearerToken::new(format!("token-of-{name}"))?)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    for name in ["acme", "globex"] {
        let tenant = Tenant(name, Arc::default());
        let http_client = service_fn(async |request: Request<()>| {
            let sent = request.headers()["authorization"].to_str()?;
            Ok::<_, BoxError>(Response::new(sent.to_owned())) // an echo
        });
        let client = BearerAuthLayer::new(tenant.clone()).layer(http_client);
        println!("{name} before its first request: {:?}", tenant.token());
        let sent = client.oneshot(Request::new(())).await?.into_body();
        println!("{name} after it: {:?}", tenant.token());
        assert!(sent == format!("Bearer token-of-{name}"), "mixed up");
    }
    Ok(())
}
