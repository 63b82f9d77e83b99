//! A token that the program already has: `cargo run --example static_token`.
//!
//! The HTTP client here is a function that never touches the network, so that the example runs
//! anywhere. A real client goes where `service_fn` is.
#![allow(clippy::print_stdout)]

use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_bearer::{BearerAuthLayer, BearerToken, BoxError, StaticToken};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // The string is given by value, so it is wiped. `BearerToken::new` says what is wrong with a
    // bad token.
    let text = String::from("7Fjfp0ZBr1KtDRbnfVdmIw");
    let token = BearerToken::new(text)?;
    println!("{token:?}");

    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(StaticToken::new(token)).for_origin("https://api.example.com")?)
        .service(service_fn(http_client));

    // The second request goes to another origin, as after a redirect, so it carries no token.
    for (url, expected) in [
        ("https://api.example.com/whoami", StatusCode::OK),
        ("https://elsewhere.example/", StatusCode::UNAUTHORIZED),
    ] {
        let request = Request::get(url).body(())?;
        let status = client.clone().oneshot(request).await?.status();
        println!("{url} -> {status}");
        if status != expected {
            return Err(format!("expected {expected}").into());
        }
    }
    Ok(())
}

async fn http_client(request: Request<()>) -> Result<Response<()>, BoxError> {
    let status = match request.headers().get(AUTHORIZATION) {
        // The value is marked sensitive, so that loggers hide it and HPACK does not store it.
        Some(value) if value.is_sensitive() => StatusCode::OK,
        _ => StatusCode::UNAUTHORIZED,
    };
    Ok(Response::builder().status(status).body(())?)
}
