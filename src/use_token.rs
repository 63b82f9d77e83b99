//! The token of a single request, in place of the layer's token: [`UseToken`].

use std::{fmt, sync::Arc};

use http::{Extensions, HeaderName, header::AUTHORIZATION};

use crate::source::TokenSource;

/// Request extension: another token for this request only, or none.
///
/// The rules of the layer for origins, plaintext, rejection and retry apply to this token as well.
/// Only [`keep_existing`](crate::BearerAuthLayer::keep_existing) and
/// [`anonymous_if_absent`](crate::BearerAuthLayer::anonymous_if_absent) have no effect: the request
/// says what it wants. If a server rejects the token, the layer marks this token, and a retry asks
/// the request's own source.
///
/// The extension passes through services such as a `BoxCloneService` or a `Buffer`. A service that makes
/// new requests may leave the extension out, as [redirect followers](#redirects) do. In a
/// `reqwest_middleware` stack, add the extension with `with_extension` on the request.
///
/// ```
/// use http::Request;
/// use tower_bearer::{BearerToken, UseToken};
///
/// # let tenant = BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?;
/// // A request that needs no token, such as a login.
/// let mut login = Request::post("https://api.example.com/login").body(())?;
/// login.extensions_mut().insert(UseToken::none());
///
/// // A request on behalf of a tenant. A token is the simplest source.
/// let mut request = Request::get("https://api.example.com/whoami").body(())?;
/// request.extensions_mut().insert(UseToken::new(tenant));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Redirects
///
/// A redirect follower above the layer makes a new request for each hop. tower-http 0.7 keeps the extension
/// until a hop leaves the origin. tower-http 0.6 drops the extension at the first hop. **A hop without the
/// extension carries the layer's own token**, and so acts as somebody else. A follower below the layer sends
/// the header of the first request, or no header.
///
/// So follow the redirects of tenants' requests below the layer, or not at all, or give the layer no token
/// of its own. In the last case, a hop without the extension fails:
///
/// ```
/// use tower_bearer::{BearerAuthLayer, BearerToken, SourceError, SourceErrorKind, source_fn};
///
/// let layer = BearerAuthLayer::new(source_fn(|| async {
///     let error = SourceError::new(SourceErrorKind::Absent, "the request names no tenant");
///     Err::<BearerToken, _>(error)
/// }));
/// ```
///
/// # Many tenants
///
/// Keep a source for each tenant, so that all requests of the tenant share its fetches and its
/// rejections. When the program drops a source, the token is wiped with the last request that
/// carries it. This map drops the sources that were not used lately:
///
/// ```
/// use std::{collections::HashMap, sync::{Arc, Mutex}, time::{Duration, Instant}};
/// use tower_bearer::{BearerToken, BoxError, RefreshingToken, TokenSource, UseToken};
///
/// #[derive(Default)]
/// struct Tenants(Mutex<HashMap<String, (Arc<dyn TokenSource>, Instant)>>);
///
/// impl Tenants {
///     const IDLE: Duration = Duration::from_secs(15 * 60);
///
///     fn token_of(&self, tenant: &str) -> UseToken {
///         let now = Instant::now();
///         let mut tenants = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
///         tenants.retain(|name, (_, used)| name == tenant || now - *used < Self::IDLE);
///         let (source, used) = tenants.entry(tenant.to_owned()).or_insert_with(|| {
///             let tenant = tenant.to_owned();
///             (Arc::new(RefreshingToken::new(move || fetch(tenant.clone()))), now)
///         });
///         *used = now;
///         UseToken::new(Arc::clone(source))
///     }
/// }
///
/// async fn fetch(tenant: String) -> Result<BearerToken, BoxError> {
///     # let _ = tenant;
///     // yours: ask the token endpoint for a token of this tenant
///     # Ok(BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?)
/// }
/// # let tenants = Tenants::default();
/// # let _ = (tenants.token_of("one"), tenants.token_of("two"));
/// # assert_eq!(tenants.0.lock().unwrap().len(), 2);
/// ```
///
/// # Cost
///
/// A request without extensions costs a look at an empty map. With `retry_rejected`, a request with
/// `UseToken` costs an allocation, for the settings by which its response is read.
#[derive(Clone)]
pub struct UseToken {
    source: Option<Arc<dyn TokenSource>>,
    header: HeaderName,
}

impl UseToken {
    /// The request goes out unchanged. It keeps its own header, and the layer neither refuses the
    /// request nor marks a token.
    #[must_use]
    pub fn none() -> Self {
        Self {
            source: None,
            header: AUTHORIZATION,
        }
    }

    /// The request takes its token from `source`: a [`BearerToken`](crate::BearerToken), or a source
    /// that many requests share as an `Arc`.
    pub fn new(source: impl TokenSource + 'static) -> Self {
        Self {
            source: Some(Arc::new(source)),
            header: AUTHORIZATION,
        }
    }

    /// Addresses the layer that puts its token under this
    /// [header](crate::BearerAuthLayer::header_name), not the layer for `Authorization`.
    #[must_use]
    pub fn under(mut self, header: HeaderName) -> Self {
        self.header = header;
        self
    }

    /// The `UseToken` of a request, if it addresses the layer that puts its token under `header`.
    #[inline]
    pub(crate) fn of<'a>(extensions: &'a Extensions, header: &HeaderName) -> Option<&'a Self> {
        extensions
            .get::<Self>()
            .filter(|chosen| chosen.header == header)
    }

    /// The request's own source. `None` if the request wants no token.
    pub(crate) fn source(&self) -> Option<&Arc<dyn TokenSource>> {
        self.source.as_ref()
    }
}

impl fmt::Debug for UseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UseToken")
            .field("has_source", &self.source.is_some())
            .field("header", &self.header)
            .finish()
    }
}
