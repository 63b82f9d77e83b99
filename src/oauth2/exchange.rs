//! One token request over an HTTP client: what is asked for, sent, read and judged.

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

use super::{Credential, TokenRequest, Value, form, response::Answer, rotation::RefreshToken};
use crate::{
    error::{BoxError, SourceError, SourceErrorKind},
    source::TokenSource,
    token::BearerToken,
};

/// The longest response that is read.
const MAX_BODY_LEN: usize = 64 * 1024;

/// RFC 7523 §2.2.
const JWT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

pub(super) async fn exchange<S, B, R>(
    request: Arc<TokenRequest>,
    mut http: S,
) -> Result<BearerToken, SourceError>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    B: From<Bytes>,
    R: Body,
    R::Error: Into<BoxError>,
{
    let secrets = Secrets::of(&request).await?;
    let ready = poll_fn(|cx| http.poll_ready(cx)).await;
    ready.map_err(|error| failed("the token endpoint cannot be asked", error))?;
    // Made at the last moment.
    let response = http.call(secrets.http_request(&request)?);
    let (parts, body) = response
        .await
        .map_err(|error| failed("the token endpoint cannot be reached", error))?
        .into_parts();
    let body = match read(body).await {
        Err(error) if parts.status.is_success() => return Err(error),
        // The status says enough.
        body => body.unwrap_or_default(),
    };
    let answer = Answer::new(parts.status, &parts.headers, &body);
    if let (Some(rotation), Some(sent)) = (&request.rotation, &secrets.refresh_token) {
        if let Some(new) = answer.refresh_token() {
            rotation.rotate(sent, new, request.hook.as_ref()).await?;
        }
    }
    secrets.judge(answer.error_code().as_deref().map(String::as_str));
    answer.token(&secrets.texts(&request))
}

/// What one request sends that was not in it from the start.
struct Secrets<'a> {
    refresh_token: Option<RefreshToken>,
    client_assertion: Option<BearerToken>,
    /// With the names of their parameters.
    subjects: Vec<(&'a str, BearerToken)>,
}

impl<'a> Secrets<'a> {
    async fn of(request: &'a TokenRequest) -> Result<Self, SourceError> {
        let mut subjects = Vec::new();
        for (name, value) in &request.params {
            if let Value::Token(source) = value {
                subjects.push((&**name, source.token().await?));
            }
        }
        let client_assertion = match &request.credential {
            Credential::Assertion(source) => Some(source.token().await?),
            _ => None,
        };
        let refresh_token = match &request.rotation {
            Some(rotation) => Some(rotation.current(request.hook.as_ref()).await?),
            None => None,
        };
        Ok(Self {
            refresh_token,
            client_assertion,
            subjects,
        })
    }

    fn http_request<B: From<Bytes>>(
        &self,
        request: &TokenRequest,
    ) -> Result<Request<B>, SourceError> {
        let mut pairs = Vec::new();
        let mut subjects = self.subjects.iter();
        for (name, value) in &request.params {
            match value {
                Value::Text(text) => pairs.push((&**name, text.as_str())),
                Value::Token(_) => {
                    pairs.extend(subjects.next().map(|(name, t)| (*name, t.expose_secret())))
                }
            }
        }
        if let Some(token) = &self.refresh_token {
            pairs.push(("refresh_token", token.as_str()));
        }
        let id = request.client_id.as_deref();
        let mut authorization = None;
        match (&request.credential, &self.client_assertion) {
            (Credential::Basic(secret), _) => {
                authorization = Some(form::basic(id.unwrap_or_default(), secret)?);
            }
            (Credential::InBody(secret), _) => pairs.push(("client_secret", secret.as_str())),
            (_, Some(assertion)) => {
                pairs.push(("client_assertion_type", JWT_ASSERTION));
                pairs.push(("client_assertion", assertion.expose_secret()));
            }
            _ => {}
        }
        // RFC 6749 §2.3: the client identifies itself once.
        if authorization.is_none() {
            pairs.extend(id.map(|id| ("client_id", id)));
        }
        let body = Bytes::from_owner(form::encode(&pairs));
        let mut http_request = Request::new(B::from(body));
        *http_request.method_mut() = http::Method::POST;
        *http_request.uri_mut() = request.url.clone();
        let headers = http_request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form);
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        Ok(http_request)
    }

    /// Marks what the server blames, so that its source can get another.
    fn judge(&self, code: Option<&str>) {
        match code {
            Some("invalid_grant" | "invalid_request") => {
                self.subjects.iter().for_each(|(_, token)| token.reject());
            }
            Some("invalid_client") => self.client_assertion.iter().for_each(BearerToken::reject),
            _ => {}
        }
    }

    fn texts<'b>(&'b self, request: &'b TokenRequest) -> Vec<&'b str> {
        let mut texts: Vec<_> = self
            .subjects
            .iter()
            .map(|(_, token)| token.expose_secret())
            .collect();
        texts.extend(self.client_assertion.iter().map(BearerToken::expose_secret));
        texts.extend(self.refresh_token.iter().map(|token| token.as_str()));
        if let Credential::Basic(secret) | Credential::InBody(secret) = &request.credential {
            texts.push(secret.as_str());
        }
        texts
    }
}

/// Reads a body into one buffer that does not grow. Each frame counts as a byte at least, so that a body
/// of endless frames with nothing in them ends as well.
async fn read<R: Body>(body: R) -> Result<Zeroizing<Vec<u8>>, SourceError>
where
    R::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    let mut buffer = Zeroizing::new(Vec::with_capacity(MAX_BODY_LEN));
    let mut left = MAX_BODY_LEN;
    while let Some(frame) = poll_fn(|cx| Pin::as_mut(&mut body).poll_frame(cx)).await {
        let frame =
            frame.map_err(|error| failed("the token endpoint's answer broke off", error))?;
        let data = frame.into_data().ok();
        let length = data.as_ref().map_or(0, Buf::remaining);
        left = left.checked_sub(length.max(1)).ok_or_else(too_long)?;
        if let Some(data) = data {
            buffer.put(data);
        }
    }
    Ok(buffer)
}

fn failed(message: &'static str, error: impl Into<BoxError>) -> SourceError {
    SourceError::with_source(SourceErrorKind::Failed, message, error)
}

fn too_long() -> SourceError {
    let message = "the token endpoint's answer is over 64 KiB long";
    SourceError::new(SourceErrorKind::Invalid, message)
}
