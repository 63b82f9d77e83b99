//! The response, and before it the wait for a token: [`ResponseFuture`].

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;
use http::{HeaderName, Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    challenge::Challenger,
    error::{BoxError, Error, SourceError},
    source::{TokenFuture, TokenSource},
    token::BearerToken,
};

pin_project! {
    /// Waits for the token if it has to, then for the response, and marks the token as rejected if
    /// the response says so.
    ///
    /// It is at most 32 bytes larger than the inner service's future, unless that is aligned to more
    /// than 16, and may be dropped at any point: nothing is lost but this request. Once the token is
    /// there, a poll costs what the inner future's does, and in the end a look at the status.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, S::Future, S::Response, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, R, B> {
        WaitingForResponse {
            #[pin]
            response: F,
            sent: Option<Sent>,
        },
        /// In one box, whichever it is, so that the usual state is small and dropped in few steps.
        SlowPath { state: Box<SlowPath<S, R, B>> },
    }
}

/// What most requests never are.
#[expect(clippy::large_enum_variant, reason = "it is in a box whichever it is")]
enum SlowPath<S, R, B> {
    WaitingForToken(Waiting<S, B>),
    /// Only where rejected requests are to be retried.
    WaitingForReplacement(HeldBack<R>),
    /// The request was not sent. The error is taken by the first poll.
    NotSent(Option<Error>),
}

/// What a request needs once its token is there.
struct Waiting<S, B> {
    token: BoxFuture<'static, Result<BearerToken, SourceError>>,
    /// The service that was polled ready, so that what it reserved is used by this request; and
    /// the request. `None` once the one has been called with the other.
    call: Option<(S, Request<B>)>,
    header: HeaderName,
    response_rules: Option<Arc<ResponseRules>>,
}

/// What comes after a slow state.
enum Next<F, R> {
    Wait(F, Sent),
    Answer(R),
}

type NextOrError<F, R> = Result<Next<F, R>, Error>;

/// The token that a request carries, and what its response may mean for it.
struct Sent {
    token: BearerToken,
    response_rules: Option<Arc<ResponseRules>>,
}

/// A response that rejected its token, until the source has been asked for another.
struct HeldBack<R> {
    response: Option<R>,
    rejected: BearerToken,
    replacement: TokenFuture,
}

/// How responses are read if not as usual. In an `Arc`, it takes one word in each future.
pub(crate) struct ResponseRules {
    challenger: Challenger,
    /// Where another token comes from, if rejected requests are to be retried.
    replacements: Option<Arc<dyn TokenSource>>,
}

impl ResponseRules {
    /// `None` is as usual: an origin server judges the token, and nothing is retried.
    pub(crate) fn new(
        challenger: Challenger,
        replacements: Option<Arc<dyn TokenSource>>,
    ) -> Option<Arc<Self>> {
        let is_usual = challenger == Challenger::Origin && replacements.is_none();
        (!is_usual).then(|| {
            Arc::new(Self {
                challenger,
                replacements,
            })
        })
    }
}

/// In the extensions of a response that rejected its token, if the source has another by now: the
/// request is worth retrying.
///
/// Only there with [`BearerAuthLayer::retry_rejected`](crate::BearerAuthLayer::retry_rejected).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TokenReplaced;

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    /// Waits for a response to a request that carries no token of ours.
    pub(crate) fn without_token(response: S::Future) -> Self {
        Self::from(State::WaitingForResponse {
            response,
            sent: None,
        })
    }

    /// Waits for a response to a request that carries `token`.
    #[inline]
    pub(crate) fn with_token(
        response: S::Future,
        token: BearerToken,
        response_rules: Option<Arc<ResponseRules>>,
    ) -> Self {
        Self::from(State::WaitingForResponse {
            response,
            sent: Some(Sent {
                token,
                response_rules,
            }),
        })
    }

    /// Waits for `token`, then sends the request through the service, which has been polled ready.
    pub(crate) fn after_token(
        token: BoxFuture<'static, Result<BearerToken, SourceError>>,
        call: (S, Request<B>),
        header: HeaderName,
        response_rules: Option<Arc<ResponseRules>>,
    ) -> Self {
        Self::from(State::slow(SlowPath::WaitingForToken(Waiting {
            token,
            call: Some(call),
            header,
            response_rules,
        })))
    }

    #[cold]
    pub(crate) fn not_sent(error: Error) -> Self {
        Self::from(State::slow(SlowPath::NotSent(Some(error))))
    }

    #[inline]
    fn from(state: State<S, S::Future, S::Response, B>) -> Self {
        Self { state }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "a request costs 3 % fewer instructions"
    )]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().state.poll(cx)
    }
}

impl<S, B, R> State<S, S::Future, Response<R>, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "as `ResponseFuture::poll`")]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Response<R>, BoxError>> {
        let StateProj::WaitingForResponse { response, sent } = self.as_mut().project() else {
            return self.poll_slow(cx);
        };
        let result = ready!(response.poll(cx)).map_err(Into::into);
        // By reference, so that the usual response is moved once less.
        let is_rejected = match (&result, &*sent) {
            (Ok(response), Some(sent)) => sent.judge(response),
            _ => false,
        };
        if !is_rejected {
            return Poll::Ready(result);
        }
        match (result, sent.take()) {
            (Ok(response), Some(sent)) => self.hold_back(response, sent, cx),
            (result, _) => Poll::Ready(result),
        }
    }

    /// Holds the response back if another token is wanted.
    #[cold]
    fn hold_back(
        mut self: Pin<&mut Self>,
        response: Response<R>,
        sent: Sent,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<R>, BoxError>> {
        let replacements = sent
            .response_rules
            .as_ref()
            .and_then(|s| s.replacements.as_ref());
        let Some(replacements) = replacements else {
            return Poll::Ready(Ok(response));
        };
        let replacement = replacements.token();
        self.set(Self::slow(SlowPath::WaitingForReplacement(HeldBack {
            response: Some(response),
            rejected: sent.token,
            replacement,
        })));
        self.poll_slow(cx)
    }

    #[cold]
    fn poll_slow(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<R>, BoxError>> {
        let StateProj::SlowPath { state } = self.as_mut().project() else {
            // Not reached.
            return Poll::Ready(Err(Error::finished().into()));
        };
        match ready!(state.poll(cx)) {
            Ok(Next::Wait(response, sent)) => {
                let sent = Some(sent);
                self.set(Self::WaitingForResponse { response, sent });
                self.poll(cx)
            }
            Ok(Next::Answer(response)) => Poll::Ready(Ok(response)),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

impl<S, F, R, B> State<S, F, R, B> {
    fn slow(state: SlowPath<S, R, B>) -> Self {
        let state = Box::new(state);
        Self::SlowPath { state }
    }
}

impl<S, B, R> SlowPath<S, Response<R>, B>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<NextOrError<S::Future, Response<R>>> {
        let error = match self {
            Self::WaitingForToken(waiting) => {
                match (ready!(waiting.token.as_mut().poll(cx)), waiting.call.take()) {
                    (Ok(token), Some((mut ready, mut request))) => {
                        let value = token.header_value();
                        request.headers_mut().insert(&waiting.header, value);
                        let sent = Sent {
                            token,
                            response_rules: waiting.response_rules.take(),
                        };
                        return Poll::Ready(Ok(Next::Wait(ready.call(request), sent)));
                    }
                    (Err(error), _) => Error::no_token(error),
                    (Ok(_), None) => Error::finished(),
                }
            }
            Self::WaitingForReplacement(held_back) => {
                let replacement = ready!(Pin::new(&mut held_back.replacement).poll(cx));
                if let Some(mut response) = held_back.response.take() {
                    if replacement.is_ok_and(|token| token.can_replace(&held_back.rejected)) {
                        response.extensions_mut().insert(TokenReplaced);
                    }
                    return Poll::Ready(Ok(Next::Answer(response)));
                }
                Error::finished()
            }
            Self::NotSent(error) => error.take().unwrap_or_else(Error::finished),
        };
        *self = Self::NotSent(None);
        Poll::Ready(Err(error))
    }
}

impl Sent {
    #[inline]
    fn judge<B>(&self, response: &Response<B>) -> bool {
        let challenger = match &self.response_rules {
            None => Challenger::Origin,
            Some(response_rules) => response_rules.challenger,
        };
        challenger.judge(&self.token, response.status(), response.headers())
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State::SlowPath { state } = &self.state else {
            return f.write_str("ResponseFuture(waiting for the response)");
        };
        f.write_str(match **state {
            SlowPath::WaitingForToken(_) => "ResponseFuture(waiting for a token)",
            SlowPath::WaitingForReplacement(_) => "ResponseFuture(waiting for another token)",
            SlowPath::NotSent(_) => "ResponseFuture(not sent)",
        })
    }
}
