//! [`BearerAuthLayer`] as a middleware of `reqwest_middleware`, under the same settings.

use async_trait::async_trait;
use http::{Extensions, HeaderMap, Uri};
use reqwest_middleware::{
    Error as MiddlewareError, Middleware, Next, Result,
    reqwest::{Request, Response, Url},
};

use crate::{
    error::Error,
    layer::BearerAuthLayer,
    response_rules::ResponseRules,
    rules::{Rules, Verdict},
    source::{TokenSource, TokenState},
    token::BearerToken,
    trace,
    use_token::UseToken,
};

/// Puts the token on each request that may carry it, under the same settings as in a Tower stack. With
/// [`retry_rejected`](BearerAuthLayer::retry_rejected), this middleware also retries rejected requests.
///
/// reqwest follows redirects below this middleware, and may take the token to another host. The page
/// [With reqwest](crate::guide::reqwest) has examples, the redirect policy that prevents this, and what
/// else reqwest does below.
///
/// # Errors
///
/// An error of reqwest-middleware. If this middleware did not send the request, [`Error::find`] finds an
/// [`Error`] in it.
#[async_trait]
impl<T: TokenSource + 'static> Middleware for BearerAuthLayer<T> {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let rules = self.rules();
        let chosen = UseToken::of(extensions, &rules.header).cloned();
        let source: &dyn TokenSource = match chosen.as_ref().map(UseToken::source) {
            None => self.source(),
            Some(Some(source)) => source,
            Some(None) => {
                trace::passed(trace::WhyPassed::UseToken);
                return next.run(request, extensions).await;
            }
        };
        // Parsing the URL again costs more than all the rest here, so parse it only if its host matters.
        if !(rules.carry_any_https() && request.url().scheme() == "https") {
            // reqwest cannot send to a URL that is not a URI, and says so itself.
            let Ok(uri) = request.url().as_str().parse::<Uri>() else {
                return next.run(request, extensions).await;
            };
            let verdict = if chosen.is_some() {
                rules.verdict_by_uri(&uri)
            } else {
                rules.verdict(&uri, request.headers())
            };
            match verdict {
                Verdict::Carry => {}
                Verdict::Pass => return next.run(request, extensions).await,
                Verdict::Refuse => {
                    trace::plaintext_refused(&uri);
                    return Err(not_sent(Error::insecure_transport(&uri)));
                }
            }
        }
        let mut sent_to = request.url().clone();
        // The URL of a response has no fragment.
        sent_to.set_fragment(None);
        let result = match source.token().into_state() {
            TokenState::Ready(result) => result,
            TokenState::Pending(token) => {
                trace::waiting();
                token.await
            }
        };
        let token = match result {
            Ok(token) => token,
            Err(error) if chosen.is_none() && rules.lets_pass(&error) => {
                return next.run(request, extensions).await;
            }
            Err(error) => return Err(not_sent(Error::no_token(error))),
        };
        // The copy and the retry are boxed, so that the future of each request stays small.
        let again = self.retries().then(|| request.try_clone()).flatten();
        let again = again.map(Box::new);
        let sent = Sent::attach(rules, request.headers_mut(), token, sent_to)?;
        let mut response = next.clone().run(request, extensions).await?;
        if !sent.judge(&mut response) {
            return Ok(response);
        }
        let Some(again) = again else {
            return Ok(response);
        };
        Box::pin(retry(
            rules, source, *again, sent, response, extensions, next,
        ))
        .await
    }
}

/// Sends a request again, if the source has another token than the rejected token.
async fn retry(
    rules: &Rules,
    source: &dyn TokenSource,
    mut request: Request,
    rejected: Sent,
    response: Response,
    extensions: &mut Extensions,
    next: Next<'_>,
) -> Result<Response> {
    // A server that redirected the request may have acted on the request already.
    if *rejected.answered_by(&response) != rejected.to && !request.method().is_idempotent() {
        return Ok(response);
    }
    if rejected.token.is_signed_out() {
        return Ok(response);
    }
    let replacement = source.token().await;
    trace::replacement(&replacement, &rejected.token);
    let token = match replacement {
        Ok(another) if another.can_replace(&rejected.token) => another,
        _ => return Ok(response),
    };
    drop(response);
    let sent = Sent::attach(rules, request.headers_mut(), token, rejected.to)?;
    let mut response = next.run(request, extensions).await?;
    sent.judge(&mut response);
    Ok(response)
}

/// A token, and where it was sent.
struct Sent {
    token: BearerToken,
    to: Url,
    response_rules: ResponseRules,
}

impl Sent {
    /// The URL that a response comes from, after redirects.
    fn answered_by<'a>(&'a self, response: &'a Response) -> &'a Url {
        // reqwest gives this URL to a response that a middleware made, such as a mock or a cache.
        match response.url().as_str() {
            "http://no.url.provided.local/" => &self.to,
            _ => response.url(),
        }
    }

    fn attach(rules: &Rules, headers: &mut HeaderMap, token: BearerToken, to: Url) -> Result<Self> {
        let mark = token.seen_mark();
        let attached = rules.attach(headers, &token);
        let overwrote = attached.map_err(|_| not_sent(Error::too_many_headers()))?;
        Ok(Self {
            token,
            to,
            response_rules: rules.response_rules(mark, overwrote, None),
        })
    }

    /// Marks the token if the response rejects it, takes a mark off if the response is a success,
    /// and tells whether the response rejects the token. After a redirect to another origin, the
    /// response says nothing about the token.
    fn judge(&self, response: &mut Response) -> bool {
        let url = self.answered_by(response);
        let is_here = *url == self.to || url.origin() == self.to.origin();
        if !is_here {
            return false;
        }
        let (status, headers) = (response.status(), response.headers());
        let rules = &self.response_rules;
        let is_rejected = rules.judge(&self.token, status, headers, response.extensions());
        rules.note(response.extensions_mut());
        is_rejected
    }
}

/// The errors of reqwest-middleware and reqwest-retry are transparent: their `source()` skips the error that
/// they wrap. Here they skip the context instead, which has the same text, so that [`Error::find`] finds
/// `error`. A downcast of the [`anyhow::Error`] also finds `error`.
fn not_sent(error: Error) -> MiddlewareError {
    let text = error.to_string();
    MiddlewareError::Middleware(anyhow::Error::new(error).context(text))
}
