//! Judges whether a response rejects the token of its request, by the status and the challenges of the
//! response, and puts the mark on the token.

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, WWW_AUTHENTICATE},
};

use crate::{
    rejection::{Parameter, Rejection, SeenMark, bearer_parameters},
    token::BearerToken,
    trace,
};

/// Whether a response of an origin server rejects the token of its request: the rule of a
/// [`BearerAuthLayer`](crate::BearerAuthLayer) without other settings.
///
/// * A 401 rejects the token, unless the Bearer challenges of `WWW-Authenticate` have errors and all these
///   errors speak of something else: `invalid_request`, `insufficient_scope` (RFC 6750 §3.1) or
///   `insufficient_user_authentication` (RFC 9470 §3). So a 401 also rejects the token if it has no
///   challenge, an unreadable challenge, or an error that no RFC has, such as `expired_token`. A wrong mark
///   costs a fetch; a missed mark costs an outage.
/// * A 400 or 403 rejects the token if an error is `invalid_token`.
/// * No other status rejects the token.
///
/// The rule also reads challenges that break RFC 9110 §11.6.1: values in single quotes, URLs without
/// quotes, parameters without commas.
///
/// A success costs a single comparison. No response costs an allocation.
///
/// ```
/// use http::{HeaderMap, HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
/// use tower_bearer::rejects_token;
///
/// let mut headers = HeaderMap::new();
/// assert!(rejects_token(StatusCode::UNAUTHORIZED, &headers));
/// assert!(!rejects_token(StatusCode::FORBIDDEN, &headers));
///
/// let challenge = HeaderValue::from_static(r#"Bearer error="insufficient_scope", scope="write""#);
/// headers.insert(WWW_AUTHENTICATE, challenge);
/// assert!(!rejects_token(StatusCode::UNAUTHORIZED, &headers));
/// ```
#[inline]
#[must_use]
pub fn rejects_token(status: StatusCode, headers: &HeaderMap) -> bool {
    Challenger::Origin.rejects_token(status, headers)
}

/// The server whose challenge counts: the origin server (RFC 9110 §11.6) or a proxy (§11.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Challenger {
    Origin,
    /// An origin server that speaks gRPC, and so may reject a token over HTTP 200.
    Grpc,
    Proxy,
}

impl Challenger {
    /// The challenger of a token that is sent under `header`. A proxy challenges over HTTP, even if gRPC goes
    /// through the proxy.
    pub(crate) fn of(header: &HeaderName, grpc_status: bool) -> Self {
        if header == PROXY_AUTHORIZATION {
            Self::Proxy
        } else if grpc_status {
            Self::Grpc
        } else {
            Self::Origin
        }
    }

    /// Marks `token` as rejected by a response with this status and these headers.
    #[cold]
    pub(crate) fn mark(self, token: &BearerToken, status: StatusCode, headers: &HeaderMap) {
        let said = headers.get_all(self.challenges());
        token.reject_with(Rejection::new(status, said));
        trace::token_rejected();
    }

    /// Takes `mark` off `token` if the response is a success. The token had the mark when it was sent.
    #[cold]
    pub(crate) fn accept(
        self,
        token: &BearerToken,
        mark: SeenMark,
        status: StatusCode,
        headers: &HeaderMap,
    ) {
        if self.is_success(status, headers) {
            token.accept(mark);
        }
    }

    /// Whether a server that gives this response has accepted the token.
    ///
    /// A redirect or an error (3xx, 4xx, 5xx) may come from a server that does not look at the token. Over
    /// gRPC, the status of a call that has begun comes in trailers, which the layer does not see.
    fn is_success(self, status: StatusCode, headers: &HeaderMap) -> bool {
        let is_success = status.is_success()
            || status == StatusCode::SWITCHING_PROTOCOLS
            || status == StatusCode::NOT_MODIFIED;
        let is_grpc_ok = || headers.get(&GRPC_STATUS).is_some_and(|code| code == "0");
        is_success && (self != Self::Grpc || is_grpc_ok())
    }

    /// Whether a response rejects the token, by the default rule. A success costs a look at the status,
    /// and under gRPC also at the headers.
    #[inline]
    pub(crate) fn rejects_token(self, status: StatusCode, headers: &HeaderMap) -> bool {
        if status >= StatusCode::BAD_REQUEST {
            self.error_rejects_token(status, headers)
        } else {
            self == Self::Grpc
                && is_unauthenticated(status, headers)
                && self.challenges_blame_token(headers)
        }
    }

    #[cold]
    fn error_rejects_token(self, status: StatusCode, headers: &HeaderMap) -> bool {
        let unauthorized = match self {
            Self::Origin | Self::Grpc => StatusCode::UNAUTHORIZED,
            Self::Proxy => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        };
        if status == unauthorized {
            self.challenges_blame_token(headers)
        } else if status == StatusCode::BAD_REQUEST || status == StatusCode::FORBIDDEN {
            self.errors(headers).any(|error| error.says(INVALID_TOKEN))
        } else {
            false
        }
    }

    /// The header field of the challenges.
    fn challenges(self) -> HeaderName {
        match self {
            Self::Origin | Self::Grpc => WWW_AUTHENTICATE,
            Self::Proxy => PROXY_AUTHENTICATE,
        }
    }

    /// Whether the challenges of a response blame the token. They do, unless they have errors and all these
    /// errors blame something else.
    #[cold]
    fn challenges_blame_token(self, headers: &HeaderMap) -> bool {
        let blames_token =
            |error: Parameter<'_>| !BLAMES_SOMETHING_ELSE.iter().any(|other| error.says(other));
        let mut errors = self.errors(headers).peekable();
        errors.peek().is_none() || errors.any(blames_token)
    }

    /// The errors of all Bearer challenges.
    fn errors(self, headers: &HeaderMap) -> impl Iterator<Item = Parameter<'_>> {
        let challenges = headers.get_all(self.challenges());
        bearer_parameters(challenges).filter(|parameter| parameter.is_named("error"))
    }
}

/// RFC 6750 §3.1.
const INVALID_TOKEN: &str = "invalid_token";

/// RFC 6750 §3.1, RFC 9470 §3. An unknown error blames the token: servers invent errors of their own for
/// expired tokens.
const BLAMES_SOMETHING_ELSE: [&str; 3] = [
    "invalid_request",
    "insufficient_scope",
    "insufficient_user_authentication",
];

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Whether a gRPC response without a body ("Trailers-Only") has the status `UNAUTHENTICATED`. Such a
/// response has its trailers in its headers.
fn is_unauthenticated(status: StatusCode, headers: &HeaderMap) -> bool {
    const UNAUTHENTICATED: &[u8] = b"16";
    const GRPC: &[u8] = b"application/grpc";

    if status != StatusCode::OK {
        return false;
    }
    // Look at the status first: most gRPC responses have the content type in their headers, but the gRPC
    // status after the body.
    let status = headers.get(&GRPC_STATUS);
    if status.is_none_or(|status| status != UNAUTHENTICATED) {
        return false;
    }
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let start = content_type.and_then(|value| value.get(..GRPC.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}
