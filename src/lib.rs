//! Bearer authentication for client-side Tower stacks.
//!
//! An API wants `Authorization: Bearer …` on each request, and tokens expire, rotate and are revoked while
//! a program runs. A [`BearerAuthLayer`] puts the token on each request that may carry the token, and on no
//! other request. A [`TokenSource`] says which token to use now. Each copy of a token that this crate makes
//! is wiped once nothing holds the copy any more.
//!
//! # Start here
//!
//! This program sends a token from an environment variable to a single server, over https. The README has
//! the `cargo add` lines.
//!
// Another package compiles this program, since it needs a client with TLS.
#![cfg_attr(not(doctest), doc = include_str!("first_program.md"))]
//!
//! In the next program, an async function fetches the token. The source fetches another token before the
//! token expires, and when a server rejects the token. While there is a good token, no request waits.
//! Requests that do wait share a single fetch.
//!
//! ```
//! use std::time::Duration;
//! use http::{Request, Response};
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//! use tower_bearer::{BearerAuthLayer, BearerToken, RefreshingToken};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! let source = RefreshingToken::new(fetch);
//! let client = ServiceBuilder::new()
//!     .layer(BearerAuthLayer::new(source).for_origin("https://api.example.com")?)
//!     .service(service_fn(http_client)); // your HTTP client
//!
//! let request = Request::get("https://api.example.com/whoami").body(())?;
//! let said = client.oneshot(request).await?.into_body();
//! assert_eq!(said, "Bearer 7Fjfp0ZBr1KtDRbnfVdmIw");
//! # Ok(()) }
//!
//! async fn fetch() -> Result<BearerToken, BoxError> {
//!     // ask your token endpoint; for OAuth 2.0, `TokenRequest` does (feature `oauth2`)
//!     let token = BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?;
//!     Ok(token.expires_in(Duration::from_secs(3600)))
//! }
//!
//! async fn http_client(request: Request<()>) -> Result<Response<String>, BoxError> {
//!     Ok(Response::new(request.headers()["authorization"].to_str()?.to_owned()))
//! }
//! ```
//!
//! # Which source
//!
//! | Where the token comes from | Source |
//! |---|---|
//! | a text that the program has | [`BearerToken`], [`StaticToken`] |
//! | an environment variable, read once at start-up | [`EnvToken`] |
//! | a file that something else writes and replaces | [`FileToken`] |
//! | other code, which pushes a new token when it has one | [`RotatingToken`] |
//! | an async function, called before each expiry and when a server says 401 | [`RefreshingToken`] |
//! | an async function, called for each request | [`source_fn`] |
//! | an OAuth 2.0 token endpoint | [`RefreshingToken`] over a `TokenRequest` (feature `oauth2`) |
//! | where the `dx` client of DNAnexus keeps it | `Dnanexus` (feature `dnanexus`) |
//! | several sources: the first that is not absent wins | [`Chain`], made by [`first_of`] |
//! | anything else | your own [`TokenSource`] |
//!
//! # Under what
//!
//! The layer fits any service that takes an `http::Request`, gives an `http::Response` and is `Clone`.
//! [`guide::order`] says where other layers belong.
//! The examples and tests are in the repository. To run an example of the package `clients`, add
//! `-p tower-bearer-clients`. To run an example of the package `stacks`, which takes long to build, add
//! `-p tower-bearer-stacks`.
//!
//! | Stack | Shown by | Notes |
//! |---|---|---|
//! | hyper-util's client, HTTP/1.1 and HTTP/2 | example `http2` | the client is `Clone` |
//! | a connection of hyper, HTTP/1 | [`BearerAuth`](BearerAuth#clone) | `SendRequest` is neither `Clone` nor a Tower service: a few lines make it a service, and a buffer makes the service `Clone`. When the connection closes, the buffer fails for good |
//! | a connection of hyper, HTTP/2 | test `clients::http2` | `SendRequest` is `Clone`, and `service_fn` makes it a service |
//! | plain reqwest | example `reqwest_tower` in `clients` | the `Client` is a service of reqwest's own `Request`: a `service_fn` of five lines makes it a service of `http::Request`. The `Client` follows redirects below the layer: use `Policy::none()`. See [`guide::reqwest`] |
//! | reqwest-middleware | example `reqwest_middleware` in `clients` | feature `reqwest-middleware`: the layer is a `Middleware` (reqwest-middleware 0.5). See [`guide::reqwest`] |
//! | ureq, `reqwest::blocking` and other blocking clients | example `blocking` in `clients` | use a source without the layer. Get the token with `futures::executor::block_on(source.token())`, or with `now_or_never` if the source has its token at hand. Put the token's [`header_value`](BearerToken::header_value) on the request, and call [`reject`](BearerToken::reject) on a 401. Your code has to check where the token goes, since no layer does |
//! | an API client of your own | example `sdk` | `Arc<dyn TokenSource>` and `BoxCloneSyncService` keep type parameters out of your types |
//! | tonic | example `tonic` in `stacks` | set [`grpc_status`](BearerAuthLayer::grpc_status) on the layer, and make the client `with_origin` |
//! | kube | example `kube` in `stacks` | the layer takes the place of kube's `auth_layer`, below `base_uri_layer` |
//! | WebAssembly | `cargo check` | works [in part](#on-webassembly) |
//!
//! # On WebAssembly
//!
//! For `wasm32-unknown-unknown`, the crate compiles with all features but `reqwest-middleware`: the future of
//! a `Middleware` has to be `Send`, and reqwest's futures are not `Send` on that target. The target has no
//! clock: `Instant::now` panics, and so does everything that reads the clock.
//!
//! * The layer works with tokens that have no expiry, from [`BearerToken`], [`StaticToken`],
//!   [`RotatingToken`], [`source_fn`], [`first_of`] or a [`TokenSource`] of your own. The inner service and
//!   its futures need not be `Send`. The future of a source has to be `Send`. A JavaScript future is not
//!   `Send`: wrap it in a `SendWrapper` of the crate `send_wrapper`.
//! * `expires_in`, `expires_at` and `expires_at_time` panic, and so does [`RefreshingToken`], whatever its
//!   [`Runtime`]. The target has no timer for `TokioRuntime`, no files and no threads for [`FileToken`], and
//!   no environment variables for [`EnvToken`].
//!
//! # Where the token goes
//!
//! * **Plaintext.** The layer refuses a request that would carry the token over `http`, or over a scheme
//!   that is not known to be encrypted. The request fails with [`ErrorKind::InsecureTransport`], before the
//!   layer asks the source. A request to `localhost`, to a loopback address or to a Unix socket is not
//!   refused. With [`danger_allow_plaintext`](BearerAuthLayer::danger_allow_plaintext), no request is
//!   refused. The layer does not see a proxy: a client that sends requests to `localhost` through a proxy
//!   sends the token to the proxy in plaintext.
//! * **Origins.** Without [`for_origin`](BearerAuthLayer::for_origin), each https host that the client talks to
//!   gets the token. With `for_origin`, only the named scheme, host and port get the token. Other requests go
//!   out without the token, even over `http`, and an event says why.
//! * **Redirects.** With `for_origin`, a redirect follower above the layer cannot take the token to another
//!   server. A redirect follower below the layer, or inside the client, copies the header:
//!   see [`for_origin`](BearerAuthLayer::for_origin).
//! * **No host.** A request whose URI names no host, for a connection that the caller opened, carries the token
//!   unless `for_origin` is set.
//! * **One request.** [`UseToken`] gives a request another token, or none.
//!
//! # When a server answers 401
//!
//! The layer marks *the token that was sent* as rejected, unless all errors in the server's
//! `WWW-Authenticate` are about something else. [`rejects_token`] is this rule, and
//! [`rejected_when`](BearerAuthLayer::rejected_when) replaces it. Sources look at the mark. So a late 401
//! for an old token never throws a newer token away, and many 401s for a token cost a single fetch.
//!
//! * [`RefreshingToken`] and [`FileToken`] replace a rejected token: the first two times at once, after that
//!   at intervals that grow. Requests wait for the new token, for 5 seconds at most. If no new token comes,
//!   requests carry the rejected token: a spurious 401 must not become an outage.
//! * [`BearerToken`], [`StaticToken`], [`EnvToken`] and [`RotatingToken`] go on sending their token, since they
//!   have no other token.
//! * If a request was sent with a token that was marked already, and the request succeeds (2xx, 101 or 304),
//!   the mark comes off.
//!
//! The caller gets the 401. To have the request sent once more with another token, see
//! [`retry_rejected`](BearerAuthLayer::retry_rejected). A gRPC server rejects a token over HTTP 200: see
//! [`grpc_status`](BearerAuthLayer::grpc_status).
//!
//! If a 401 surprises you, the layer may have sent the request without the token, for example to `127.0.0.1`
//! while the origin is `localhost`. The [events](#events) say so.
//!
//! # When there is no token
//!
//! The request fails with an [`Error`] of kind [`ErrorKind::NoToken`], and [`source_error`](Error::source_error)
//! says why: [`SourceErrorKind`] lists what a program does about it. [`Error::find`] finds the error under
//! other layers. Until the back-off after a failed fetch ends, requests get the error at once. Log errors
//! with `{:?}`, which shows their causes.
//!
//! # While a request waits
//!
//! A request waits for its token in its response future, so a timeout around the stack covers the wait.
//! Meanwhile the request holds no permit, no buffer slot and no connection of the inner service. So a fetch
//! may go through the same client as the requests, whatever limits that client has. The exception is a
//! rejected response that [`retry_rejected`](BearerAuthLayer::retry_rejected) holds back: it may keep its
//! connection. A limit *above* the layer is different: a request keeps its permit there while it waits. Such
//! a limit bounds how many requests wait, and a fetch must not go through it.
//!
//! # What it costs
//!
//! With a token at hand, a request costs no lock, no clone of the inner service, and no allocation unless
//! its header map has to grow. About once a second, [`RefreshingToken`] and [`FileToken`] take a lock and
//! allocate. A request also allocates if it carries a rejected token, if the token overwrites a header, or if
//! the request has a [`UseToken`] under `retry_rejected`. A request that waits, as each request does with
//! [`source_fn`], costs an allocation and two clones of the inner service, besides the cost of its source.
//! The README compares the costs with other layers.
//!
//! # What is wiped
//!
//! A token has holders: a source, a request, a retry, a log record. When the last holder is dropped, the
//! bytes of the token are overwritten before they are freed. The crate also wipes each buffer that a token
//! is made from, even if its text is not a token: a `String`, `Box<str>`, `SecretString` or
//! `Zeroizing<String>` that you give by value, and the text that a source reads. It wipes each secret of a
//! token request as well. [`guide::wiping`] has the whole list, and what this crate cannot wipe.
//!
//! # Events
//!
//! With the feature `tracing`, the crate records events with the target `tower_bearer`. No event has a
//! token or a URL, unless the error text of your fetch function has it. A request whose token is at hand
//! records no event before its response.
//!
//! | Level | Event | Fields |
//! |---|---|---|
//! | debug | token fetch started | |
//! | debug | token fetch succeeded | `lifetime` |
//! | warn | the fetched token has already expired by this machine's clock, and is used all the same | |
//! | warn | token fetch failed | `reason`, a [`SourceErrorKind`]; `error`, the text of the error and of its causes |
//! | debug | no token, backing off | `reason`, the kind of the last failure; `retry_after` |
//! | debug | a request waits for a token | |
//! | debug | a request goes out without the token | `reason`: `KeepExisting`, `UseToken` or `Absent` |
//! | debug | the same event, if no origin contains the URI | `reason`: `OtherHost`, `OtherPort`, `OtherScheme`, `OtherLoopback` (`localhost` is not `127.0.0.1`), `NoHost` (tonic needs `with_origin`) or `NoScheme`; `scheme`, `host`, `port` |
//! | warn | refused to send the token in plaintext | `scheme`, `host` |
//! | debug | a server rejected the token | |
//! | debug | the source has another token, so the rejected request can be retried | only with [`retry_rejected`](BearerAuthLayer::retry_rejected). In a Tower stack, a retry policy above the layer has to do it |
//! | debug | the source has no other token for the rejected request | only with `retry_rejected`; `reason`, a [`SourceErrorKind`], unless the source gave a token that is no replacement: a rejected token, a token with the same text, or any token after a sign-out |
//!
//! # More
//!
//! * [`guide::tests`]: how to test a program that uses the layer, and how to control time in a test.
//! * [`guide::migration`]: how to migrate from tower-http's layer, a layer of your own, a tonic interceptor,
//!   reqwest-auth and kube's own authentication.
//! * [`guide::which_crate`]: this crate compared with other crates for tokens.
//!
//! # Features
//!
//! | Feature | Default | What it adds |
//! |---|---|---|
//! | `tokio` | yes | `TokioRuntime`, for sources that fetch in the background |
//! | `dnanexus` | no | `Dnanexus`, which finds the token and the API server of a DNAnexus user or job |
//! | `oauth2` | no | `TokenRequest`, a fetch from an OAuth 2.0 token endpoint |
//! | `retry` | no | `RetryRejected`, a policy for Tower's `Retry` |
//! | `reqwest-middleware` | no | [`BearerAuthLayer`] as a `reqwest_middleware::Middleware` |
//! | `test-util` | no | for tests: the crate reads tokio's clock, which `start_paused` and `advance` control |
//! | `tracing` | no | [events](#events) without secrets |
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
#[cfg(any(doc, doctest))]
pub mod guide;
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
mod retry_of;
mod rules;
mod runtime;
#[cfg(feature = "oauth2")]
mod secret_form;
#[cfg(any(feature = "dnanexus", feature = "oauth2"))]
mod secret_json;
mod secret_text;
mod service;
mod sign_in;
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
