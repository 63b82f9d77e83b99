//! Runs a token request over an HTTP client: asks the sources, sends the form, reads and judges the response.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
};

use bytes::{Buf, BufMut, Bytes};
use http::{
    HeaderValue, Request, Response,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use http_body::Body;
use secrecy::zeroize::Zeroizing;
use tower_service::Service;

use super::{
    CLIENT_ASSERTION, CLIENT_SECRET, TokenRequest, Value,
    response::Answer,
    rotation::{RefreshToken, Rotation},
};
use crate::{
    error::{BoxError, SourceError, SourceErrorKind},
    secret_form,
    token::BearerToken,
    use_token::UseToken,
};

/// The longest response that this crate reads, in bytes.
const MAX_BODY_LEN: usize = 64 * 1024;
/// RFC 7523 §2.2.
const JWT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const CANNOT_ASK: &str = "the token request cannot be sent";

pub(super) async fn exchange<S, B, R>(
    request: Arc<TokenRequest>,
    mut http: S,
) -> Result<BearerToken, SourceError>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>>,
    B: From<Bytes>,
    R: Body<Error: Into<BoxError>>,
{
    request.check_client_secret()?;
    let mut sent = Vec::with_capacity(request.params.len());
    for (name, value) in &request.params {
        sent.push((&**name, Sent::new(value).await?));
    }
    let ready = poll_fn(|cx| http.poll_ready(cx)).await;
    ready.map_err(|error| failed(CANNOT_ASK, error))?;
    // The header and the form are copies of secrets, so they are made only once the client is ready.
    let basic = request.basic()?;
    let response = http.call(request.to_http(&sent, basic.as_ref())?);
    let (parts, body) = response
        .await
        .map_err(|error| failed("the token endpoint cannot be reached", error))?
        .into_parts();
    let mut buffer = Zeroizing::new(Vec::with_capacity(MAX_BODY_LEN));
    let is_read = read(body, &mut buffer).await;
    // Read the answer even if the body was cut off: the part that came may be whole JSON, with the refresh
    // token that replaces the spent refresh token.
    let answer = Answer::new(parts.status, &parts.headers, &buffer);
    let mut secrets: Vec<_> = request.secret.iter().map(|text| text.as_str()).collect();
    let header = basic.as_ref().and_then(|header| header.to_str().ok());
    secrets.extend(header.and_then(|header| header.strip_prefix(secret_form::BASIC)));
    for (name, value) in &sent {
        match (value, answer.refresh_token()) {
            (Sent::Refresh(rotation, old), Some(new)) => rotation.rotate(old, new).await?,
            (Sent::Text(_), _) if *name != CLIENT_SECRET => continue,
            _ => {}
        }
        secrets.push(value.text());
    }
    for (name, value) in &sent {
        let blaming: &[_] = match *name {
            CLIENT_ASSERTION => &["invalid_client"],
            _ => &["invalid_grant", "invalid_request"],
        };
        match value {
            Sent::Token(token) if answer.has_code(blaming) => token.reject(),
            _ => {}
        }
    }
    match is_read {
        Err(error) if parts.status.is_success() => Err(error),
        // Report the failure, even if its body was cut off.
        _ => answer.token(&secrets),
    }
}

/// The value of a parameter in a request.
enum Sent<'a> {
    Text(&'a str),
    Token(BearerToken),
    Refresh(&'a Rotation, RefreshToken),
}

impl<'a> Sent<'a> {
    async fn new(value: &'a Value) -> Result<Self, SourceError> {
        Ok(match value {
            Value::Text(text) => Self::Text(text),
            Value::Token(source) => Self::Token(source.token().await?),
            Value::Refresh(rotation) => Self::Refresh(rotation, rotation.current().await?),
        })
    }

    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Token(token) => token.expose_secret(),
            Self::Refresh(_, token) => token,
        }
    }
}

impl TokenRequest {
    pub(super) fn check_client_secret(&self) -> Result<(), SourceError> {
        match &self.secret {
            Some(secret) => secret_form::check_secret("client secret", secret, true),
            None => Ok(()),
        }
    }

    /// The Basic header, if the client has a secret that does not go into the form.
    fn basic(&self) -> Result<Option<HeaderValue>, SourceError> {
        let id = self.client_id.as_deref().unwrap_or_default();
        let secret = self.secret.as_ref().filter(|_| !self.in_body);
        let header = secret.map(|secret| secret_form::basic(id, secret));
        Ok(header.transpose()?)
    }

    fn to_http<B: From<Bytes>>(
        &self,
        sent: &[(&str, Sent<'_>)],
        basic: Option<&HeaderValue>,
    ) -> Result<Request<B>, SourceError> {
        let mut pairs: Vec<_> = sent
            .iter()
            .map(|(name, value)| (*name, value.text()))
            .collect();
        if pairs.iter().any(|(name, _)| *name == CLIENT_ASSERTION) {
            pairs.push(("client_assertion_type", JWT_ASSERTION));
        }
        let id = self.client_id.as_deref();
        let mut request = Request::post(&self.url)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            // If the request goes through a `BearerAuthLayer`, the layer's token is not for the endpoint.
            .extension(UseToken::none());
        // RFC 6749 §2.3: the client identifies itself once.
        if let Some(header) = basic {
            request = request.header(AUTHORIZATION, header);
        } else {
            let secret = self.secret.as_ref();
            pairs.extend(secret.map(|secret| (CLIENT_SECRET, secret.as_str())));
            pairs.extend(id.map(|id| ("client_id", id)));
        }
        let request = request.body(B::from(Bytes::from_owner(secret_form::encode(&pairs))));
        request.map_err(|error| failed(CANNOT_ASK, error))
    }
}

/// Reads a body into a buffer that has room for the longest body, and so does not grow. Each frame counts as
/// at least a byte, so that an endless body of empty frames is an error as well.
async fn read(
    body: impl Body<Error: Into<BoxError>>,
    buffer: &mut Vec<u8>,
) -> Result<(), SourceError> {
    let mut body = pin!(body);
    let mut left = MAX_BODY_LEN;
    while let Some(frame) = poll_fn(|cx| Pin::as_mut(&mut body).poll_frame(cx)).await {
        let frame =
            frame.map_err(|error| failed("the token endpoint's answer was cut off", error))?;
        let data = frame.into_data().ok();
        let length = data.as_ref().map_or(0, Buf::remaining);
        left = left.checked_sub(length.max(1)).ok_or_else(|| {
            let message = "the token endpoint's answer is over 64 KiB long";
            SourceError::new(SourceErrorKind::Invalid, message)
        })?;
        if let Some(data) = data {
            buffer.put(data);
        }
    }
    Ok(())
}

fn failed(message: &'static str, error: impl Into<BoxError>) -> SourceError {
    SourceError::with_source(SourceErrorKind::Failed, message, error)
}
