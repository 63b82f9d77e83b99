//! What a token endpoint answered (RFC 6749 §5): a token, or an error.

use std::time::Duration;

use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use secrecy::zeroize::Zeroizing;

use super::form;
use crate::{
    error::{SourceError, SourceErrorKind},
    secret_json::Object,
    token::BearerToken,
};

/// Codes of errors that do not go away by themselves.
const PERMANENT: [&str; 6] = [
    "invalid_client",
    "invalid_grant",
    "invalid_scope",
    "invalid_target",
    "unauthorized_client",
    "unsupported_grant_type",
];
const MAX_CODE_LEN: usize = 64;
const MAX_DESCRIPTION_LEN: usize = 256;
/// For a server that is busy, and does not say for how long, or says it by a date.
const BUSY: Duration = Duration::from_secs(30);

impl BearerToken {
    /// The token in the response of an OAuth 2.0 token endpoint (RFC 6749 §5), for a program with a
    /// transport of its own. [`TokenRequest`](crate::TokenRequest) makes the request as well.
    ///
    /// `expires_in` may be a number or a text of one. Any visible ASCII is taken for a token, and no
    /// `token_type` for `Bearer`. The body is not wiped: it is the caller's.
    ///
    /// # Errors
    ///
    /// [`SourceErrorKind::Failed`] with what the server says, permanent or with a time to wait as
    /// `TokenRequest` says; what the server says may repeat a secret of your request, which this function
    /// does not know. [`SourceErrorKind::Invalid`] if the response is no token response, or is of
    /// another type than Bearer. No error has a byte of a body that is not an OAuth 2.0 error.
    ///
    /// ```
    /// use http::{HeaderMap, StatusCode};
    /// use tower_bearer::BearerToken;
    ///
    /// let body = br#"{"access_token":"7Fjfp0ZBr1KtDRbnfVdmIw","token_type":"bearer","expires_in":3600}"#;
    /// let token = BearerToken::from_token_response(StatusCode::OK, &HeaderMap::new(), body)?;
    /// assert!(token.expiry().is_some());
    ///
    /// let body = br#"{"error":"invalid_client"}"#;
    /// let error = BearerToken::from_token_response(StatusCode::UNAUTHORIZED, &HeaderMap::new(), body);
    /// assert!(error.unwrap_err().is_permanent());
    /// # Ok::<(), tower_bearer::SourceError>(())
    /// ```
    pub fn from_token_response(
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Self, SourceError> {
        Answer::new(status, headers, body).token(&[])
    }
}

/// A response that has been read.
pub(super) struct Answer<'a> {
    status: StatusCode,
    headers: &'a HeaderMap,
    /// `None` if the body is not a JSON object.
    members: Option<Object<'a>>,
}

impl<'a> Answer<'a> {
    pub(super) fn new(status: StatusCode, headers: &'a HeaderMap, body: &'a [u8]) -> Self {
        let text = std::str::from_utf8(body).ok();
        Self {
            status,
            headers,
            members: text.and_then(Object::parse),
        }
    }

    fn member(&self, name: &str) -> Option<Zeroizing<String>> {
        self.members.as_ref()?.string(name).ok().flatten()
    }

    fn has(&self, name: &str) -> bool {
        self.members.as_ref().is_some_and(|it| it.has(name))
    }

    pub(super) fn has_code(&self, codes: &[&str]) -> bool {
        self.member("error")
            .is_some_and(|code| codes.contains(&code.as_str()))
    }

    /// The refresh token that came with an access token.
    pub(super) fn refresh_token(&self) -> Option<Zeroizing<String>> {
        let token = self.member("refresh_token")?;
        (self.status.is_success() && !token.is_empty()).then_some(token)
    }

    /// The access token, or an error that does not show `secrets`, what the request had.
    pub(super) fn token(&self, secrets: &[&str]) -> Result<BearerToken, SourceError> {
        if !self.status.is_success() || self.has("error") {
            return Err(self.refusal(secrets));
        }
        if self.members.is_none() {
            return Err(self.invalid("is not a JSON object"));
        }
        if !self.is_bearer() {
            return Err(self.invalid("has a token of another type than Bearer"));
        }
        let Some(text) = self.member("access_token") else {
            return Err(self.invalid("has no access_token"));
        };
        let token = BearerToken::nonstandard(text).map_err(|error| {
            let message = "the token endpoint's access_token is not a bearer token";
            SourceError::with_source(SourceErrorKind::Invalid, message, error)
        })?;
        let lifetime = self.members.as_ref().and_then(|it| it.number("expires_in"));
        Ok(match lifetime.and_then(lifetime_of) {
            Some(lifetime) => token.expires_in(lifetime),
            None => token,
        })
    }

    /// A type that is not there contradicts nothing, and a type that is no text is another. Tokens of
    /// RFC 8693 that are no access tokens have the type `N_A`.
    fn is_bearer(&self) -> bool {
        !self.has("token_type")
            || self
                .member("token_type")
                .is_some_and(|name| name.eq_ignore_ascii_case("bearer"))
    }

    fn invalid(&self, what: &str) -> SourceError {
        let page = self.page();
        let message = format!("the token endpoint's answer{page} {what}");
        SourceError::new(SourceErrorKind::Invalid, message)
    }

    fn refusal(&self, secrets: &[&str]) -> SourceError {
        let (status, page) = (self.status, self.page());
        let code = self.shown("error", MAX_CODE_LEN, secrets);
        let description = self.shown("error_description", MAX_DESCRIPTION_LEN, secrets);
        let said = match (code, description) {
            (Some(code), Some(description)) => format!("{code} ({description})"),
            (Some(code), None) => code,
            _ if status.is_redirection() => "a redirect, which no secret follows".into(),
            _ => "no OAuth 2.0 error".into(),
        };
        let message = format!("the token endpoint answered {status}{page}: {said}");
        let error = SourceError::new(SourceErrorKind::Failed, message);
        let wait = match status {
            StatusCode::TOO_MANY_REQUESTS => Some(self.retry_after().unwrap_or(BUSY)),
            StatusCode::SERVICE_UNAVAILABLE => self.retry_after(),
            _ => None,
        };
        match wait {
            Some(wait) => error.with_retry_after(wait),
            None if self.is_permanent() => error.permanent(),
            None => error,
        }
    }

    fn is_permanent(&self) -> bool {
        !self.status.is_server_error() && self.has_code(&PERMANENT)
    }

    /// A web page comes from something between here and the endpoint, or from a wrong URL.
    fn page(&self) -> &'static str {
        let content_type = self.headers.get(CONTENT_TYPE);
        let start = content_type.and_then(|value| value.as_bytes().get(..9));
        match start {
            Some(start) if start.eq_ignore_ascii_case(b"text/html") => " with a web page",
            _ => "",
        }
    }

    /// RFC 9110 §10.2.3.
    fn retry_after(&self) -> Option<Duration> {
        let value = self.headers.get(RETRY_AFTER)?;
        let seconds = value
            .to_str()
            .ok()
            .and_then(|text| text.trim().parse().ok());
        Some(seconds.map_or(BUSY, Duration::from_secs))
    }

    /// A member that an error may show, `most` characters of it.
    fn shown(&self, name: &str, most: usize, secrets: &[&str]) -> Option<String> {
        let said = self.member(name)?;
        let mut text = Zeroizing::new(String::with_capacity(said.len()));
        text.extend(said.chars().filter(|&c| is_shown(c)).take(most));
        let tokens = ["access_token", "refresh_token", "id_token"].map(|name| self.member(name));
        let tokens = tokens.iter().flatten().map(|token| token.as_str());
        let mut secrets = secrets.iter().copied().chain(tokens);
        let is_repeated = secrets.any(|secret| {
            let in_form = form::encode_value(secret);
            repeats(&text, secret.as_bytes()) || repeats(&text, &in_form)
        });
        (!text.is_empty() && !is_repeated).then(|| text.to_string())
    }
}

/// Not what ends a line, or changes the order in which text is displayed.
fn is_shown(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Whether a text has eight bytes in a row of a secret, or all of a shorter one, in any case: servers
/// differ in how they write the digits of `%2B`.
fn repeats(text: &str, secret: &[u8]) -> bool {
    let length = secret.len().min(8);
    let parts = secret.windows(length.max(1));
    let mut texts = text.as_bytes().windows(length.max(1));
    let is_in_secret = |part| parts.clone().any(|other| other.eq_ignore_ascii_case(part));
    length > 0 && texts.any(is_in_secret)
}

/// Zero and less is in the past. More than the clock has is no expiry.
fn lifetime_of(seconds: f64) -> Option<Duration> {
    if seconds <= 0.0 {
        return Some(Duration::ZERO);
    }
    Duration::try_from_secs_f64(seconds).ok()
}
