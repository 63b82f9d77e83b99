//! What a response says about the token that was sent: 401 and `WWW-Authenticate` to a verdict.

use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, WWW_AUTHENTICATE},
};
use http_auth::parser::ChallengeParser;

/// Who looks at the token: the origin server (RFC 9110 §11.6) or a proxy (§11.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    Origin,
    Proxy,
}

impl Audience {
    pub(crate) fn of(header: &HeaderName) -> Self {
        if header == PROXY_AUTHORIZATION {
            Self::Proxy
        } else {
            Self::Origin
        }
    }

    /// Whether a response says that the token of its request is bad.
    #[inline]
    pub(crate) fn rejects_token(self, status: StatusCode, headers: &HeaderMap) -> bool {
        let refused = match self {
            Self::Origin => StatusCode::UNAUTHORIZED,
            Self::Proxy => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        };
        status == refused && self.challenges_blame_token(headers)
    }

    #[cold]
    fn challenges_blame_token(self, headers: &HeaderMap) -> bool {
        let challenges = match self {
            Self::Origin => WWW_AUTHENTICATE,
            Self::Proxy => PROXY_AUTHENTICATE,
        };
        let mut blames_something_else = false;
        for text in headers
            .get_all(challenges)
            .iter()
            .filter_map(|value| value.to_str().ok())
        {
            // The parser ends at the first thing it cannot read; what it read before still counts.
            for challenge in ChallengeParser::new(text).map_while(Result::ok) {
                if !challenge.scheme.eq_ignore_ascii_case("Bearer") {
                    continue;
                }
                for (name, value) in &challenge.params {
                    if !name.eq_ignore_ascii_case("error") {
                        continue;
                    }
                    // RFC 6750 §3.1
                    if value.to_unescaped().eq_ignore_ascii_case("invalid_token") {
                        return true;
                    }
                    blames_something_else = true;
                }
            }
        }
        !blames_something_else
    }
}
