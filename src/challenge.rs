//! What a response says about the token that was sent: a 401 and its `WWW-Authenticate` give a
//! verdict, which marks the token.

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, WWW_AUTHENTICATE},
};
use http_auth::parser::ChallengeParser;

use crate::{
    rejection::{Rejection, SeenMark},
    token::BearerToken,
    trace,
};

/// Whose challenge counts: the origin server's (RFC 9110 §11.6) or a proxy's (§11.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Challenger {
    Origin,
    /// An origin server that speaks gRPC, and says so over HTTP 200.
    Grpc,
    Proxy,
}

impl Challenger {
    /// A proxy answers in HTTP, whatever goes through it.
    pub(crate) fn of(header: &HeaderName, grpc_status: bool) -> Self {
        if header == PROXY_AUTHORIZATION {
            Self::Proxy
        } else if grpc_status {
            Self::Grpc
        } else {
            Self::Origin
        }
    }

    /// Marks the token of a request that got a response which rejects the token.
    #[cold]
    pub(crate) fn mark(self, token: &BearerToken, status: StatusCode, headers: &HeaderMap) {
        let said = headers.get_all(self.challenges());
        token.reject_with(Rejection::new(status, said));
        trace::token_rejected();
    }

    /// Takes `mark` off a token that was sent with it, if the response is a success.
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
    /// A redirect, or an error of the client or the server, may come from somewhere that does not
    /// look at the token. Over gRPC, the status of a call that was begun comes in trailers, unseen.
    fn is_success(self, status: StatusCode, headers: &HeaderMap) -> bool {
        let is_success = status.is_success()
            || status == StatusCode::SWITCHING_PROTOCOLS
            || status == StatusCode::NOT_MODIFIED;
        let is_grpc_ok = || headers.get(&GRPC_STATUS).is_some_and(|code| code == "0");
        is_success && (self != Self::Grpc || is_grpc_ok())
    }

    /// By the default rule.
    #[inline]
    pub(crate) fn rejects_token(self, status: StatusCode, headers: &HeaderMap) -> bool {
        let refused = match self {
            Self::Origin => status == StatusCode::UNAUTHORIZED,
            Self::Grpc => status == StatusCode::UNAUTHORIZED || is_unauthenticated(status, headers),
            Self::Proxy => status == StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        };
        refused && self.challenges_blame_token(headers)
    }

    /// The field that its challenges are in.
    fn challenges(self) -> HeaderName {
        match self {
            Self::Origin | Self::Grpc => WWW_AUTHENTICATE,
            Self::Proxy => PROXY_AUTHENTICATE,
        }
    }

    #[cold]
    fn challenges_blame_token(self, headers: &HeaderMap) -> bool {
        let mut blames_something_else = false;
        for value in headers.get_all(self.challenges()) {
            let text = ascii(value.as_bytes());
            for error in bearer_challenges(&text).filter_map(error_of) {
                // RFC 6750 §3.1
                if error.eq_ignore_ascii_case("invalid_token") {
                    return true;
                }
                blames_something_else = true;
            }
        }
        !blames_something_else
    }
}

/// Whether a response of an origin server rejects the token that was sent, by the default rule.
///
/// To build a rule of one's own on, see [`rejected_when`](crate::BearerAuthLayer::rejected_when).
#[must_use]
pub fn rejects_token(status: StatusCode, headers: &HeaderMap) -> bool {
    Challenger::Origin.rejects_token(status, headers)
}

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The status of a gRPC response that is nothing but trailers ("Trailers-Only"): they are its headers.
fn is_unauthenticated(status: StatusCode, headers: &HeaderMap) -> bool {
    const UNAUTHENTICATED: &[u8] = b"16";
    const GRPC: &[u8] = b"application/grpc";

    if status != StatusCode::OK {
        return false;
    }
    // Before the type: most responses have a type, and their status after the body.
    let status = headers.get(&GRPC_STATUS);
    if status.is_none_or(|status| status != UNAUTHENTICATED) {
        return false;
    }
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let start = content_type.and_then(|value| value.get(..GRPC.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

/// `obs-text` (RFC 9110 §5.5) is allowed in a realm or a description, and the parser takes none. Nor
/// does it take more than one space after a scheme, which is allowed (§11.3), or any at the end.
fn ascii(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    for &byte in value.trim_ascii_end() {
        if byte == b' ' && text.ends_with(' ') {
            continue;
        }
        text.push(if byte.is_ascii() {
            char::from(byte)
        } else {
            '?'
        });
    }
    text
}

/// The rests of a field value that begin with a Bearer challenge.
///
/// The parser gives up the whole value at the first thing it cannot read, such as the `token68` of
/// another scheme (RFC 9110 §11.2). So it is given each Bearer challenge by itself.
fn bearer_challenges(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    let commas = text.bytes().enumerate().filter_map(move |(at, byte)| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return Some(at + 1),
            _ => {}
        }
        None
    });
    std::iter::once(0)
        .chain(commas)
        .map(|start| text[start..].trim_ascii_start())
        .filter(|rest| {
            rest.get(..7)
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "))
        })
}

/// The `error` of the challenge that a text begins with.
fn error_of(text: &str) -> Option<String> {
    let challenge = ChallengeParser::new(text).next()?.ok()?;
    let mut params = challenge.params.into_iter();
    params
        .find(|(name, _)| name.eq_ignore_ascii_case("error"))
        .map(|(_, value)| value.to_unescaped())
}
