//! [`BearerAuthLayer`] as a middleware of `reqwest_middleware`, under the same settings.

use async_trait::async_trait;
use http::{Extensions, Uri};
use reqwest_middleware::{
    Error as MiddlewareError, Middleware, Next, Result,
    reqwest::{Request, Response, Url},
};

use crate::{
    error::Error,
    layer::BearerAuthLayer,
    scope::{Rules, Verdict},
    source::{SourceError, TokenSource},
    token::BearerToken,
    trace,
};

/// Puts the token on each request that may carry it, as in a Tower stack.
///
/// With [`replay_rejected`](BearerAuthLayer::replay_rejected), a request whose token was rejected is
/// sent once more if the source has another and the body can be cloned, which a stream cannot.
///
/// reqwest follows redirects inside, below this middleware, which sees only the last response. It
/// takes `Authorization` and `Proxy-Authorization` off when host or port change, and leaves a header
/// of another [name](BearerAuthLayer::header_name) on; [`for_origin`](BearerAuthLayer::for_origin) is
/// not asked again. Build the client with `redirect::Policy::none()` if that is not enough.
///
/// Put a retry middleware above this one: then each try gets the token of its time.
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
#[async_trait]
impl<T: TokenSource> Middleware for BearerAuthLayer<T> {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let rules = self.rules();
        // To parse the URL anew costs more than all the rest, so only where its host matters.
        if !(rules.are_none() && request.url().scheme() == "https") {
            // A URL that is not a URI has no `Uri` to send it to either; reqwest will say so.
            let Ok(uri) = request.url().as_str().parse::<Uri>() else {
                return next.run(request, extensions).await;
            };
            match rules.verdict(&uri, request.headers()) {
                Verdict::Carry => {}
                Verdict::Pass => return next.run(request, extensions).await,
                Verdict::Refuse => {
                    return Err(MiddlewareError::middleware(Error::insecure_transport(&uri)));
                }
            }
        }
        let sent_to = request.url().clone();
        let token = self.source().token().await.map_err(no_token)?;
        let again = self.replays().then(|| request.try_clone()).flatten();
        rules.attach(request.headers_mut(), token.header_value());
        let response = next.clone().run(request, extensions).await?;
        if !is_rejected(rules, &token, &sent_to, &response) {
            return Ok(response);
        }
        let Some(mut again) = again else {
            return Ok(response);
        };
        let token = match self.source().token().await {
            Ok(token) if !token.is_rejected() => token,
            _ => return Ok(response),
        };
        drop(response);
        rules.attach(again.headers_mut(), token.header_value());
        let response = next.run(again, extensions).await?;
        is_rejected(rules, &token, &sent_to, &response);
        Ok(response)
    }
}

/// Marks the token, too. Not for a server that never saw it, to which a redirect led.
fn is_rejected(rules: &Rules, token: &BearerToken, sent_to: &Url, response: &Response) -> bool {
    if response.url().origin() != sent_to.origin() {
        return false;
    }
    let rejected = rules
        .audience()
        .rejects_token(response.status(), response.headers());
    if rejected {
        token.reject();
        trace::token_rejected();
    }
    rejected
}

fn no_token(error: SourceError) -> MiddlewareError {
    MiddlewareError::middleware(Error::no_token(error))
}
