//! What a token endpoint answered (RFC 6749 §5): a token, or an error.

use std::time::Duration;

use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use secrecy::zeroize::Zeroizing;

use crate::{
    error::{SourceError, SourceErrorKind},
    secret_form,
    secret_json::Object,
    token::BearerToken,
};

/// The codes of errors that do not go away by themselves.
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
/// How long to wait after a 429 without `Retry-After`, and after a `Retry-After` that is not in seconds.
const BUSY: Duration = Duration::from_secs(30);

impl BearerToken {
    /// Reads the token in the response of an OAuth 2.0 token endpoint (RFC 6749 §5), for a program that sends
    /// the request itself. [`TokenRequest`](crate::TokenRequest) also sends the request.
    ///
    /// `expires_in` may be a number, or a string with a number. A token may be any visible ASCII. A missing
    /// `token_type` counts as `Bearer`. The body belongs to the caller, so this function does not wipe it.
    ///
    /// # Errors
    ///
    /// [`SourceErrorKind::Failed`] if the server answers with an error. As with `TokenRequest`, such an error
    /// may be permanent, or have a time to wait. The message shows the error of the server, which may repeat
    /// a secret of your request: this function does not know the request.
    ///
    /// [`SourceErrorKind::Invalid`] if the response is not a token response, or has a token of another type
    /// than Bearer.
    ///
    /// If the body has no OAuth 2.0 error, the message has no byte of the body.
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
        let members = std::str::from_utf8(body).ok().and_then(Object::parse);
        Self {
            status,
            headers,
            members,
        }
    }

    fn member(&self, name: &str) -> Option<Zeroizing<String>> {
        self.members.as_ref()?.string(name).ok().flatten()
    }

    fn has(&self, name: &str) -> bool {
        self.members.as_ref().is_some_and(|it| it.has(name))
    }

    pub(super) fn has_code(&self, codes: &[&str]) -> bool {
        let code = self.member("error");
        code.is_some_and(|code| codes.contains(&code.as_str()))
    }

    /// The refresh token that came with an access token.
    pub(super) fn refresh_token(&self) -> Option<Zeroizing<String>> {
        let token = self.member("refresh_token")?;
        (self.status.is_success() && !token.is_empty()).then_some(token)
    }

    /// The access token, or an error that does not show `secrets`, the secrets of the request.
    pub(super) fn token(&self, secrets: &[&str]) -> Result<BearerToken, SourceError> {
        if !self.status.is_success() || self.has("error") {
            return Err(self.failure(secrets));
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

    /// A missing `token_type` counts as Bearer. A `token_type` that is not a string does not. In RFC 8693, a
    /// token that is not an access token has the type `N_A`.
    fn is_bearer(&self) -> bool {
        !self.has("token_type")
            || self
                .member("token_type")
                .is_some_and(|name| name.eq_ignore_ascii_case("bearer"))
    }

    fn invalid(&self, what: &str) -> SourceError {
        let message = format!("the token endpoint's answer{} {what}", self.page());
        SourceError::new(SourceErrorKind::Invalid, message)
    }

    fn failure(&self, secrets: &[&str]) -> SourceError {
        let (status, page) = (self.status, self.page());
        let code = self.shown("error", MAX_CODE_LEN, secrets);
        let description = self.shown("error_description", MAX_DESCRIPTION_LEN, secrets);
        let said = match (code, description) {
            (Some(code), Some(description)) => format!("{code} ({description})"),
            (Some(code), None) => code,
            _ if status.is_redirection() => "a redirect, which the request does not follow".into(),
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
            None if !status.is_server_error() && self.has_code(&PERMANENT) => error.permanent(),
            None => error,
        }
    }

    /// Says that the answer is a web page: then a proxy has answered, or the URL is wrong.
    fn page(&self) -> &'static str {
        let content_type = self.headers.get(CONTENT_TYPE);
        match content_type.and_then(|value| value.as_bytes().get(..9)) {
            Some(start) if start.eq_ignore_ascii_case(b"text/html") => " with a web page",
            _ => "",
        }
    }

    /// RFC 9110 §10.2.3.
    fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok();
        let seconds = text.and_then(|text| text.trim().parse().ok());
        Some(seconds.map_or(BUSY, Duration::from_secs))
    }

    /// The first `most` characters of a member, unless they repeat a secret.
    fn shown(&self, name: &str, most: usize, secrets: &[&str]) -> Option<String> {
        let said = self.member(name)?;
        let mut text = Zeroizing::new(String::with_capacity(said.len()));
        text.extend(said.chars().filter(|&c| is_shown(c)).take(most));
        let tokens = ["access_token", "refresh_token", "id_token"].map(|name| self.member(name));
        let tokens = tokens.iter().flatten().map(|token| token.as_str());
        let mut secrets = secrets.iter().copied().chain(tokens);
        let is_repeated = secrets.any(|secret| {
            let in_form = secret_form::encode_value(secret);
            repeats(&text, secret.as_bytes()) || repeats(&text, &in_form)
        });
        (!text.is_empty() && !is_repeated).then(|| text.to_string())
    }
}

/// Excludes characters that end a line, or change the order in which text is displayed.
fn is_shown(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Whether `text` has eight bytes in a row of `secret`, or all of a secret that is shorter. Upper and lower
/// case are the same, since some servers write `%2b` for `%2B`.
fn repeats(text: &str, secret: &[u8]) -> bool {
    let length = secret.len().min(8);
    let parts = secret.windows(length.max(1));
    let mut texts = text.as_bytes().windows(length.max(1));
    let is_in_secret = |part| parts.clone().any(|other| other.eq_ignore_ascii_case(part));
    length > 0 && texts.any(is_in_secret)
}

/// `None`, which means no expiry, if the number is too large for a `Duration`. Zero or less means that the
/// token has expired.
fn lifetime_of(seconds: f64) -> Option<Duration> {
    if seconds <= 0.0 {
        return Some(Duration::ZERO);
    }
    Duration::try_from_secs_f64(seconds).ok()
}
