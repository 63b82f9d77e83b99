//! Bearer authentication for client-side Tower stacks.
//!
//! [`BearerAuthLayer`] wraps a service and puts `Authorization: Bearer …` on each request that may
//! carry it. The token comes from a [`TokenSource`]: one of the
//! [sources](#which-source) of this crate, or your own. Every copy of a token that this crate makes
//! is wiped when its last holder is dropped. The README lists the copies that no crate can wipe.
//!
//! # Start here
//!
//! A token that the program has, on each request to one server:
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_bearer::{BearerAuthLayer, BearerToken, StaticToken};
//!
//! # futures::executor::block_on(async {
//! let token = BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?;
//! let mut client = ServiceBuilder::new()
//!     .layer(BearerAuthLayer::new(StaticToken::new(token)).for_origin("https://api.example.com")?)
//!     .service(service_fn(send)); // your HTTP client
//!
//! let request = Request::get("https://api.example.com/whoami").body(())?;
//! let response = client.ready().await?.call(request).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! # Ok::<(), BoxError>(())
//! # }).unwrap();
//!
//! async fn send(request: Request<()>) -> Result<Response<()>, BoxError> {
//!     let authorized = request.headers()["authorization"] == "Bearer 7Fjfp0ZBr1KtDRbnfVdmIw";
//!     let status = if authorized { 200 } else { 401 };
//!     Ok(Response::builder().status(status).body(())?)
//! }
//! ```
//!
//! A token that other code replaces while requests are under way:
//!
//! ```
//! use tower_bearer::{BearerAuthLayer, BearerToken, RotatingToken};
//!
//! let source = RotatingToken::empty(); // requests wait for the first token
//! let layer = BearerAuthLayer::new(source.clone());
//!
//! // Wherever tokens arrive:
//! source.rotate(BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?);
//! # Ok::<(), tower_bearer::InvalidToken>(())
//! ```
//!
//! # Which source
//!
//! | Where the token comes from | Source |
//! |---|---|
//! | a text that the program has | [`StaticToken`] |
//! | an environment variable, read once at start-up | [`EnvToken`] |
//! | a file that something else writes and replaces | [`FileToken`] |
//! | other code, which pushes a new token when it has one | [`RotatingToken`] |
//! | an async function, called ahead of each expiry and when a server says 401 | [`RefreshingToken`] |
//! | an async function, called for each request | [`source_fn`] |
//! | an OAuth 2.0 token endpoint | [`RefreshingToken`] over a `TokenRequest` (feature `oauth2`) |
//! | where the `dx` client of DNAnexus keeps it | `Dnanexus` (feature `dnanexus`) |
//! | the first of several that has one | [`Chain`], by [`first_of`] |
//! | anything else | your own [`TokenSource`] |
//!
//! # Under what
//!
//! Any service that takes an [`http::Request`], gives an [`http::Response`] and is `Clone`. The examples and
//! tests are in the repository: those of the package `clients` need `-p tower-bearer-clients`, those of
//! `stacks`, which take long to build, `-p tower-bearer-stacks`.
//!
//! | Stack | Shown by | To know |
//! |---|---|---|
//! | hyper-util's client, HTTP/1.1 and HTTP/2 | example `http2` | it is `Clone` |
//! | a connection of hyper, HTTP/1 | [`BearerAuth`](BearerAuth#clone) | `SendRequest` is neither `Clone` nor a Tower service: eight lines make it a service, and a buffer makes that `Clone`. When the connection closes, the buffer fails for good |
//! | a connection of hyper, HTTP/2 | test `a_bare_http2_connection_of_hyper_takes_the_layer_as_it_is` | `SendRequest` is `Clone`, and `service_fn` makes it a service |
//! | plain reqwest | example `reqwest_tower` in `clients` | its `Client` is a service of its own `Request`: a `service_fn` of five lines makes it one of [`http::Request`]. It follows redirects below the layer: use `Policy::none()` |
//! | reqwest-middleware | example `reqwest_middleware` in `clients` | feature `reqwest-middleware`: the layer is a `Middleware` |
//! | ureq, `reqwest::blocking` and other blocking clients | example `blocking` in `clients` | a source alone: `futures::executor::block_on(source.token())`, or `now_or_never` for one that has its token at hand; [`header_value`](BearerToken::header_value) for the request, [`reject`](BearerToken::reject) on 401. What the layer checks about the target is then yours to check |
//! | an API client of your own | example `sdk` | `Arc<dyn TokenSource>` and `BoxCloneSyncService` keep parameters out of your types |
//! | tonic | example `tonic` in `stacks` | [`grpc_status`](BearerAuthLayer::grpc_status) on the layer, `with_origin` for the client |
//! | kube | example `kube` in `stacks` | the layer takes the place of `auth_layer`, below `base_uri_layer` |
//! | WebAssembly | `cargo check` | [in part](#on-webassembly) |
//!
//! # On WebAssembly
//!
//! For `wasm32-unknown-unknown`, the crate compiles with all features but `reqwest-middleware`, whose futures
//! have to be `Send`: reqwest's are not there. That target has no clock: `Instant::now` panics, and so does
//! all that reads it.
//!
//! * The layer works, with tokens that have no expiry, from [`BearerToken`], [`StaticToken`],
//!   [`RotatingToken`], [`source_fn`], [`first_of`] and a [`TokenSource`] of your own. The inner service and
//!   its futures need not be `Send`. The future of a source has to be; one that is not, as those of JavaScript
//!   are not, goes into a `SendWrapper` of the crate `send_wrapper`.
//! * `expires_in`, `expires_at` and `expires_at_time` panic, and so does [`RefreshingToken`], whatever its
//!   [`Runtime`]. `TokioRuntime` has no timer there, [`FileToken`] no file and no thread, and [`EnvToken`] no
//!   variable.
//!
//! # Where the token goes
//!
//! * Over `http` to anything but `localhost` and loopback addresses a request is refused with
//!   [`ErrorKind::InsecureTransport`], before the source is asked.
//! * With [`for_origin`](BearerAuthLayer::for_origin), only that scheme, host and port get the
//!   token; other requests pass through without it, so a layer above that follows redirects cannot
//!   take it elsewhere.
//!
//! # When a server answers 401
//!
//! The response future marks *the token that was sent* as rejected, unless the server's
//! `WWW-Authenticate` blames something else (RFC 6750 §3.1): [`rejects_token`] is the rule. Sources
//! look at the mark: so a late 401
//! for an old token never evicts a newer one. The response is handed on as it is; to have the request
//! retried with another token, see [`retry_rejected`](BearerAuthLayer::retry_rejected). For gRPC,
//! whose refusals are HTTP 200, see [`grpc_status`](BearerAuthLayer::grpc_status).
//!
//! # Events
//!
//! With the feature `tracing`, the target is `tower_bearer`. No event has a token or a URL. A request
//! whose token is at hand makes no event.
//!
//! | Level | Event | Fields |
//! |---|---|---|
//! | debug | token fetch started | |
//! | debug | token fetch succeeded | `lifetime` |
//! | warn | token fetch failed | `reason`, a [`SourceErrorKind`]; `error`, its text and the texts of its causes |
//! | debug | no token, backing off | `reason`, of the last failure; `retry_after` |
//! | debug | a request waits for a token | |
//! | debug | a request goes out without the token | `reason`: `KeepExisting`, `UseToken` or `Absent` |
//! | debug | … because it is within no origin | `reason`: `OtherHost`, `OtherPort`, `OtherScheme`, `OtherLoopback` (`localhost` is not `127.0.0.1`), `NoHost` (tonic needs `with_origin`) or `NoScheme`; `scheme`, `host`, `port` |
//! | warn | refused to send the token in plaintext | `scheme`, `host` |
//! | debug | a server rejected the token | |
//!
//! # Features
//!
//! | Feature | Default | What it adds |
//! |---|---|---|
//! | `tokio` | yes | `TokioRuntime`, for sources that fetch in the background |
//! | `dnanexus` | no | `Dnanexus`, the token and the API server of a DNAnexus user or job |
//! | `oauth2` | no | `TokenRequest`, a fetch from an OAuth 2.0 token endpoint |
//! | `retry` | no | `RetryRejected`, a policy for Tower's `Retry` |
//! | `reqwest-middleware` | no | [`BearerAuthLayer`] as a `reqwest_middleware::Middleware` |
//! | `test-util` | no | for tests: tokio's clock, which `start_paused` and `advance` govern, is the crate's |
//! | `tracing` | no | events for fetches, rejections, back-off and refusals, without secrets |
//!
//! Without default features the crate depends on no runtime and runs on any executor.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod challenge;
mod clock;
#[cfg(feature = "dnanexus")]
mod dnanexus;
mod error;
mod future;
mod layer;
#[cfg(feature = "oauth2")]
mod oauth2;
mod origin;
mod refresh;
mod rejection;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware;
mod response_rules;
#[cfg(feature = "retry")]
mod retry;
mod rules;
mod runtime;
#[cfg(any(feature = "dnanexus", feature = "oauth2"))]
mod secret_json;
mod secret_text;
mod service;
mod source;
mod sources;
mod sync;
mod token;
mod trace;
mod use_token;

#[cfg(feature = "dnanexus")]
#[cfg_attr(docsrs, doc(cfg(feature = "dnanexus")))]
pub use crate::dnanexus::Dnanexus;
#[cfg(feature = "oauth2")]
#[cfg_attr(docsrs, doc(cfg(feature = "oauth2")))]
pub use crate::oauth2::TokenRequest;
#[cfg(feature = "retry")]
#[cfg_attr(docsrs, doc(cfg(feature = "retry")))]
pub use crate::retry::RetryRejected;
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use crate::runtime::TokioRuntime;
pub use crate::{
    challenge::rejects_token,
    error::{BoxError, Error, ErrorKind, SourceError, SourceErrorKind},
    future::{ResponseFuture, TokenReplaced},
    layer::BearerAuthLayer,
    origin::InvalidOrigin,
    rejection::Rejection,
    runtime::{CallerDriven, Runtime},
    service::BearerAuth,
    source::{TokenFuture, TokenSource},
    sources::{
        Chain, EnvToken, FileToken, FileTokenBuilder, IntoSource, RefreshingToken,
        RefreshingTokenBuilder, RotatingToken, SourceFn, SourceStatus, StaticToken, first_of,
        source_fn,
    },
    token::{BearerToken, InvalidToken, InvalidTokenKind, TokenText},
    use_token::UseToken,
};

/// Runs the README's code with the other documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
