//! A token from the environment: `API_TOKEN=7Fjfp0ZBr1KtDRbnfVdmIw cargo run --example env_token`.
//!
//! Without a usable variable the program says what is wrong and how to fix it, and exits with 2.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{error::Error, process::ExitCode};

use http::{Request, Response, header::AUTHORIZATION};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_bearer::{BearerAuthLayer, BoxError, EnvToken};

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    // The variable is read once, at start-up. A mistake is found here and not at the first request.
    let source = match EnvToken::new("API_TOKEN") {
        Ok(source) => source,
        Err(error) => {
            // Neither the error nor its causes show a byte of the value.
            let mut cause: Option<&dyn Error> = Some(&error);
            while let Some(error) = cause {
                eprintln!("{error}");
                cause = error.source();
            }
            eprintln!("Try: API_TOKEN=7Fjfp0ZBr1KtDRbnfVdmIw cargo run --example env_token");
            return Ok(ExitCode::from(2));
        }
    };
    println!("{source:?}");

    let client = ServiceBuilder::new()
        .layer(BearerAuthLayer::new(source))
        .service(service_fn(http_client)); // in place of a real HTTP client
    let request = Request::get("https://api.example.com/whoami").body(())?;
    let response = client.oneshot(request).await?;
    println!("the server says {}", response.status());
    Ok(ExitCode::from(u8::from(!response.status().is_success())))
}

async fn http_client(request: Request<()>) -> Result<Response<()>, BoxError> {
    let authorized = request.headers().contains_key(AUTHORIZATION);
    let status = if authorized { 200 } else { 401 };
    Ok(Response::builder().status(status).body(())?)
}
