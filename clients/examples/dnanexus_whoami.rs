//! Asks DNAnexus for the name of the user, at the API server of `dx` and with the token of `dx`:
//! `cargo run --features dnanexus --example dnanexus_whoami`.
//!
//! Exits with 2 if there is no token, and with 1 if the server does not answer with 200.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{env, error::Error, process::ExitCode};

use bytes::Bytes;
use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{ServiceBuilder, ServiceExt};
use tower_bearer::{BoxError, Dnanexus};
use tower_http::follow_redirect::{
    FollowRedirectLayer,
    policy::{PolicyExt, Standard, clone_body_fn},
};

type Body = Full<Bytes>;

#[tokio::main]
async fn main() -> ExitCode {
    let dnanexus = match Dnanexus::discover() {
        Ok(dnanexus) => dnanexus,
        Err(error) => {
            complain(&error);
            return ExitCode::from(2);
        }
    };
    match whoami(&dnanexus).await {
        Ok((StatusCode::OK, body)) => {
            println!("{body}");
            return ExitCode::SUCCESS;
        }
        Ok((StatusCode::UNAUTHORIZED, _)) => explain_rejection(dnanexus.api_server()),
        Ok((status, body)) => eprintln!("{} answers {status}: {body}", dnanexus.api_server()),
        Err(error) => complain(&*error),
    }
    ExitCode::FAILURE
}

async fn whoami(dnanexus: &Dnanexus) -> Result<(StatusCode, String), BoxError> {
    let https = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
        .https_or_http()
        .enable_http1()
        .build();
    // The redirect follower is above the layer that adds the token, so that no redirect takes the
    // token to another host.
    let redirects = Standard::default()
        .and::<_, Body, BoxError>(clone_body_fn(|body: &Body| Some(body.clone())));
    let client = ServiceBuilder::new()
        .layer(FollowRedirectLayer::with_policy(redirects))
        .layer(dnanexus.layer())
        .service(Client::builder(TokioExecutor::new()).build(https));

    let request = Request::post(format!("{}/system/whoami", dnanexus.api_server()))
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from("{}"))?;
    let (response, body) = client.oneshot(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok((response.status, String::from_utf8_lossy(&body).into_owned()))
}

fn explain_rejection(api_server: &str) {
    eprintln!(
        "{api_server} rejects the token (401). The token may have expired, or may have been revoked."
    );
    if env::var_os("DX_SECURITY_CONTEXT").is_some() {
        eprintln!(
            "The token comes from the environment variable DX_SECURITY_CONTEXT, which wins over `dx login`."
        );
        eprintln!(
            "Unset the variable to use the token of `dx login`, or set the variable to a new token."
        );
    } else {
        eprintln!("The token comes from the last `dx login`. Run `dx login` again.");
    }
}

/// Neither the error nor its causes show a byte of the token.
fn complain(error: &dyn Error) {
    eprintln!("{error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
}
