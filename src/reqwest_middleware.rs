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

/// Puts the token on each request that may carry it, under the same settings as in a Tower stack.
///
/// ```
/// use reqwest_middleware::{ClientBuilder, reqwest::Client};
/// use tower_bearer::{BearerAuthLayer, BearerToken, StaticToken};
///
/// let token = BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?;
/// let auth = BearerAuthLayer::new(StaticToken::new(token)).for_origin("https://api.example.com")?;
/// let client = ClientBuilder::new(Client::new()).with(auth).build();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Retry
///
/// With [`retry_rejected`](BearerAuthLayer::retry_rejected), a request whose token was rejected is
/// sent once more, if the source has another and the body can be cloned, which a stream cannot. If a
/// redirect was followed before the rejection, the retry starts from the first URL, and only if the
/// method is idempotent: a server that redirects a POST may have acted on it.
///
/// reqwest does not tell that it followed a redirect which led back to the first URL, as that of a
/// form may do: if the token is rejected there, **the POST is sent again**. Where that must not
/// happen, use `Policy::none()`.
///
/// # Errors
///
/// [`Error`] if the request was not sent, within an error of reqwest-middleware:
///
/// ```
/// use reqwest_middleware::{ClientBuilder, reqwest::Client};
/// use tower_bearer::{BearerAuthLayer, BearerToken, Error, ErrorKind, StaticToken};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let auth = BearerAuthLayer::new(StaticToken::new(BearerToken::new("7Fjfp0ZBr1KtDRbnfVdmIw")?));
/// let client = ClientBuilder::new(Client::new()).with(auth).build();
/// let error = client.get("http://api.example.com").send().await.unwrap_err();
/// assert_eq!(Error::find(&error).unwrap().kind(), ErrorKind::InsecureTransport);
/// # Ok(())
/// # }
/// ```
///
/// # Retries
///
/// Put `reqwest-retry` above, which is before: `.with(retry).with(auth)`. Then each try gets the
/// token of its time, and may be retried once. Below, all tries carry the token of the first, and a
/// retry has as many tries again.
///
/// In neither place does it retry a 401, a request that was refused, or one that the source had no
/// token for. It takes no streaming body at all. It wraps this crate's error in its own, where
/// [`Error::find`] finds it.
///
/// # What reqwest does below
///
/// * A proxy, also one that a variable in the environment names: reqwest sends it a request over
///   http as it is, even to `localhost`, which this layer takes to stay on the machine. **So the
///   token crosses the network in plaintext** if the proxy is on another: use `no_proxy()`, or a proxy
///   for https only.
/// * A timeout, of the client or of a request, covers each try, and no wait for a token. For that,
///   put one around the call.
/// * Default headers of the client are added where a request has none. This layer does not see them,
///   so with [`keep_existing`](BearerAuthLayer::keep_existing), too, the token is sent instead.
///
/// # Redirects
///
/// reqwest follows redirects below this middleware, which sees only the last response. So neither
/// [`for_origin`](BearerAuthLayer::for_origin) nor the refusal of plaintext is asked about a hop.
/// What becomes of the header is up to reqwest (0.13.5):
///
/// | The redirect leads | `Authorization`, `Proxy-Authorization` | another [name](BearerAuthLayer::header_name) |
/// |---|---|---|
/// | to the same scheme, host and port | stays on | stays on |
/// | to another | is taken off | **stays on** |
/// | from there, within that other one | **is back on** | **stays on** |
///
/// So a foreign host gets the token if it redirects once more, and so does everyone on the way if
/// that is over plaintext. To have no token leave its origin, have no redirect leave it:
///
/// ```
/// use reqwest_middleware::reqwest::{Client, redirect::Policy};
///
/// let within_the_origin = Policy::custom(|attempt| {
///     if attempt.url().origin() == attempt.previous()[0].origin() {
///         Policy::default().redirect(attempt)
///     } else {
///         attempt.stop()
///     }
/// });
/// let client = Client::builder().redirect(within_the_origin).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A redirect that leads elsewhere is then the response, for a client without a token to follow.
/// `Policy::none()` does the same for every redirect. `https_only(true)` makes one to plaintext an
/// error, and lets the token go to other https hosts.
///
/// The 401 of another origin marks and retries nothing, and its success takes no mark off. A redirect
/// that leads away and back arrives without the token. A 401 there is taken for a rejection, and a
/// success for an acceptance.
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
        // To parse the URL anew costs more than all the rest, so only where its host matters.
        if !(rules.are_none() && request.url().scheme() == "https") {
            // A URL that is not a URI has no `Uri` to send it to either; reqwest will say so.
            let Ok(uri) = request.url().as_str().parse::<Uri>() else {
                return next.run(request, extensions).await;
            };
            let verdict = if chosen.is_some() {
                rules.verdict_for_chosen(&uri)
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
        // A response's URL has none.
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
        // In a box, as the retry is: what they take would be moved with each request.
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

/// Sends a request again, if the source has another token than the one that was rejected.
async fn retry(
    rules: &Rules,
    source: &dyn TokenSource,
    mut request: Request,
    rejected: Sent,
    response: Response,
    extensions: &mut Extensions,
    next: Next<'_>,
) -> Result<Response> {
    // A server that redirected the request may have acted on it.
    if *response.url() != rejected.to && !request.method().is_idempotent() {
        return Ok(response);
    }
    let token = match source.token().await {
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
    fn attach(rules: &Rules, headers: &mut HeaderMap, token: BearerToken, to: Url) -> Result<Self> {
        let mark = token.seen_mark();
        let attached = rules.attach(headers, &token);
        let overwrote =
            attached.map_err(|_| MiddlewareError::middleware(Error::too_many_headers()))?;
        Ok(Self {
            token,
            to,
            response_rules: rules.response_rules(mark, overwrote, None),
        })
    }

    /// Marks the token if the response rejects it, and takes its mark off if the response is a
    /// success. A server to which a redirect led never saw the token.
    fn judge(&self, response: &mut Response) -> bool {
        let is_here = *response.url() == self.to || response.url().origin() == self.to.origin();
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

/// The errors of reqwest-middleware and of reqwest-retry are transparent: their `source()` is that of the
/// error within, which itself is in no chain. With a context of the same text, [`Error::find`] finds it,
/// and a downcast of the [`anyhow::Error`] as well.
fn not_sent(error: Error) -> MiddlewareError {
    let text = error.to_string();
    MiddlewareError::Middleware(anyhow::Error::new(error).context(text))
}
