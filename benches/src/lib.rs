//! The cases that are measured: layers around a service that does nothing.

use std::{
    convert::Infallible,
    env,
    future::{Future, Ready, ready},
    hint::black_box,
    io,
    marker::PhantomData,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    pin::{Pin, pin},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{HeaderValue, Request, Response, header};
use tower::{BoxError, Layer, Service};
use tower_bearer::{
    BearerAuthLayer, BearerToken, EnvToken, FileToken, RefreshingToken, RotatingToken, StaticToken,
    TokenSource,
};
use tower_http::{auth::AddAuthorizationLayer, set_header::SetRequestHeaderLayer};

#[cfg(feature = "peers")]
pub mod peers;

pub const TOKEN: &str = "7Fjfp0ZBr1KtDRbnfVdmIw";
/// The variable that `EnvToken` reads.
pub const VARIABLE: &str = "TOWER_BEARER_BENCH_TOKEN";
const ORIGIN: &str = "https://api.example.com";

/// The case without a layer. Every other case is measured by what it adds to this case.
pub const BARE: &str = "bare";
pub const BASELINE: &str = "tower-http AddAuthorization";

/// Answers at once, and drops the request.
pub struct Bare<E = Infallible>(PhantomData<fn() -> E>);

impl<E> Bare<E> {
    #[must_use]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<E> Default for Bare<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Clone for Bare<E> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<E> Service<Request<()>> for Bare<E> {
    type Response = Response<()>;
    type Error = E;
    type Future = Ready<Result<Response<()>, E>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    /// Not inlined, since an HTTP client would not be inlined.
    #[inline(never)]
    fn call(&mut self, request: Request<()>) -> Self::Future {
        drop(black_box(request));
        ready(Ok(Response::new(())))
    }
}

/// A request with eight headers, and room for another header.
///
/// # Panics
///
/// Never: the URI is valid.
#[must_use]
pub fn request() -> Request<()> {
    let mut request = Request::new(());
    *request.uri_mut() = http::Uri::from_static("https://api.example.com/v1/files?limit=100");
    let headers = request.headers_mut();
    headers.reserve(12);
    for (name, value) in [
        (header::HOST, "api.example.com"),
        (header::ACCEPT, "application/json"),
        (header::USER_AGENT, "sdk/1.0"),
        (header::ACCEPT_ENCODING, "gzip, br"),
        (header::CONTENT_TYPE, "application/json"),
        (header::CONTENT_LENGTH, "123"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::TE, "trailers"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    request
}

/// Sends a request through a service that answers at once.
///
/// # Panics
///
/// If the service does not answer at once, or answers with an error.
#[inline(never)]
pub fn send<S>(service: &mut S, request: Request<()>)
where
    S: Service<Request<()>, Response = Response<()>>,
{
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    match pin!(service.call(request)).poll(&mut cx) {
        Poll::Ready(Ok(response)) => drop(black_box(response)),
        _ => panic!("no answer"),
    }
}

/// Gets each case from [`visit`].
pub trait Visitor {
    fn visit<S>(&mut self, name: &str, service: S)
    where
        S: Service<Request<()>, Response = Response<()>> + Clone;
}

/// Starts this program anew with the variable that `EnvToken` reads, unless the variable is set.
pub fn ensure_variable() -> io::Result<()> {
    if env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    Err(Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(VARIABLE, TOKEN)
        .exec())
}

/// Cargo's target directory, found from the path of this program. A binary is in the folder of its profile,
/// and a bench is in `deps` below that folder.
pub fn target_directory() -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    let profile = program
        .ancestors()
        .skip(1)
        .find(|path| !path.ends_with("deps"));
    let target = profile.and_then(Path::parent);
    Ok(target.ok_or(io::ErrorKind::NotFound)?.to_owned())
}

/// Shows `visitor` all cases whose name `wanted` accepts.
pub fn visit(wanted: impl Fn(&str) -> bool, visitor: &mut impl Visitor) -> Result<(), BoxError> {
    if wanted(BARE) {
        visitor.visit(BARE, Bare::<Infallible>::new());
    }
    if wanted(BASELINE) {
        let layer = AddAuthorizationLayer::bearer(TOKEN).as_sensitive(true);
        visitor.visit(BASELINE, layer.layer(Bare::<Infallible>::new()));
    }
    let name = "tower-http SetRequestHeader";
    if wanted(name) {
        let mut value = HeaderValue::try_from(format!("Bearer {TOKEN}"))?;
        value.set_sensitive(true);
        let layer = SetRequestHeaderLayer::overriding(header::AUTHORIZATION, value);
        visitor.visit(name, layer.layer(Bare::<Infallible>::new()));
    }
    let token = || BearerToken::new(TOKEN);
    let mut ours = Ours {
        wanted: &wanted,
        visitor,
    };
    ours.visit("static", || Ok(StaticToken::new(token()?)))?;
    ours.visit("env", || Ok(EnvToken::new(VARIABLE)?))?;
    ours.visit("dyn static", || {
        Ok(Arc::new(StaticToken::new(token()?)) as Arc<dyn TokenSource>)
    })?;
    ours.visit("rotating", || Ok(RotatingToken::new(token()?)))?;
    ours.visit("refreshing", || {
        let hour = Duration::from_secs(3600);
        let fetch =
            move || async move { BearerToken::new(TOKEN).map(|token| token.expires_in(hour)) };
        Ok(RefreshingToken::new(fetch))
    })?;
    ours.visit("file", || {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), TOKEN)?;
        // The file may go now: the source reads it again only after a minute.
        Ok(FileToken::new(file.path())?)
    })?;
    let name = "by hand";
    if wanted(name) {
        let token = Arc::new(Mutex::new(TOKEN.to_owned()));
        visitor.visit(
            name,
            ByHand {
                inner: Bare::new(),
                token,
            },
        );
    }
    #[cfg(feature = "peers")]
    peers::visit(&wanted, visitor)?;
    Ok(())
}

struct Ours<'a, W, V> {
    wanted: &'a W,
    visitor: &'a mut V,
}

impl<W: Fn(&str) -> bool, V: Visitor> Ours<'_, W, V> {
    fn visit<T: TokenSource + 'static>(
        &mut self,
        name: &str,
        source: impl Fn() -> Result<T, BoxError>,
    ) -> Result<(), BoxError> {
        let scoped = format!("{name}, scoped");
        for (name, is_scoped) in [(name, false), (&scoped, true)] {
            if !(self.wanted)(name) {
                continue;
            }
            let source = source()?;
            // Fetch the token before the measurement.
            drop(futures::executor::block_on(source.token())?);
            let mut layer = BearerAuthLayer::new(source);
            if is_scoped {
                layer = layer.for_origin(ORIGIN)?;
            }
            self.visitor
                .visit(name, layer.layer(Bare::<Infallible>::new()));
        }
        Ok(())
    }
}

/// What people usually write by hand: a string behind a lock, formatted and parsed for each request, and
/// a future in a box.
#[derive(Clone)]
struct ByHand {
    inner: Bare,
    token: Arc<Mutex<String>>,
}

impl Service<Request<()>> for ByHand {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<()>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<()>) -> Self::Future {
        let token = Arc::clone(&self.token);
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let token = token.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let value = format!("Bearer {token}").parse()?;
            request.headers_mut().insert(header::AUTHORIZATION, value);
            Ok(inner.call(request).await?)
        })
    }
}
