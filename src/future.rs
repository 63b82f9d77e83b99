//! The response, and before it the wait for a token: [`ResponseFuture`].

use std::{
    fmt,
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;
use http::{HeaderName, Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    challenge::Audience,
    error::{BoxError, Error},
    source::{SourceError, TokenFuture, TokenSource},
    token::BearerToken,
    trace,
};

pin_project! {
    /// Waits for the token if it has to, then for the response, and marks the token as rejected if
    /// the response says so.
    ///
    /// It is at most 32 bytes larger than the inner service's future, and may be dropped at any
    /// point: nothing is lost but this request.
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
        WaitingForToken { waiting: Box<Waiting<S, B>> },
        WaitingForResponse {
            #[pin]
            response: F,
            sent: Option<Sent>,
        },
        /// Only where rejected requests are to be replayed.
        WaitingForReplacement { held_back: Box<HeldBack<R>> },
        /// The request was not sent. The error is taken by the first poll.
        NotSent { error: Option<Box<Error>> },
    }
}

/// What a request needs once its token is there. Boxed, so that requests that do not wait stay
/// small.
struct Waiting<S, B> {
    token: BoxFuture<'static, Result<BearerToken, SourceError>>,
    /// The service that was polled ready, so that what it reserved is used by this request; and
    /// the request. `None` once the one has been called with the other.
    call: Option<(S, Request<B>)>,
    header: HeaderName,
    audience: Audience,
    replacements: Option<Arc<Replacements>>,
}

/// The token that a request carries, and who judges it.
struct Sent {
    token: BearerToken,
    audience: Audience,
    replacements: Option<Arc<Replacements>>,
}

/// A response that rejected its token, until the source has been asked for another.
struct HeldBack<R> {
    response: Option<R>,
    rejected: BearerToken,
    replacement: TokenFuture,
}

/// Where another token comes from. In an `Arc` of its own, it takes one word in each future.
pub(crate) struct Replacements(pub(crate) Arc<dyn TokenSource>);

/// In the extensions of a response that rejected its token, if the source has another by now: the
/// request is worth replaying.
///
/// Only there with [`BearerAuthLayer::replay_rejected`](crate::BearerAuthLayer::replay_rejected).
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
        audience: Audience,
        replacements: Option<Arc<Replacements>>,
    ) -> Self {
        Self::from(State::WaitingForResponse {
            response,
            sent: Some(Sent {
                token,
                audience,
                replacements,
            }),
        })
    }

    /// Waits for `token`, then sends the request through the service, which has been polled ready.
    pub(crate) fn after_token(
        token: BoxFuture<'static, Result<BearerToken, SourceError>>,
        call: (S, Request<B>),
        header: HeaderName,
        audience: Audience,
        replacements: Option<Arc<Replacements>>,
    ) -> Self {
        Self::from(State::WaitingForToken {
            waiting: Box::new(Waiting {
                token,
                call: Some(call),
                header,
                audience,
                replacements,
            }),
        })
    }

    #[cold]
    pub(crate) fn not_sent(error: Error) -> Self {
        let error = Some(Box::new(error));
        Self::from(State::NotSent { error })
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

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let StateProj::WaitingForResponse { response, sent } = state.as_mut().project() else {
                match ready!(state.as_mut().poll_other(cx)) {
                    ControlFlow::Continue(()) => continue,
                    ControlFlow::Break(result) => return Poll::Ready(result),
                }
            };
            let result = ready!(response.poll(cx));
            let (response, sent) = match (result, sent.take()) {
                (Ok(response), Some(sent)) => (response, sent),
                (Ok(response), None) => return Poll::Ready(Ok(response)),
                (Err(error), _) => return Poll::Ready(Err(error.into())),
            };
            if !sent
                .audience
                .rejects_token(response.status(), response.headers())
            {
                return Poll::Ready(Ok(response));
            }
            sent.token.reject();
            trace::token_rejected();
            let Some(replacements) = sent.replacements else {
                return Poll::Ready(Ok(response));
            };
            let held_back = Box::new(HeldBack {
                response: Some(response),
                rejected: sent.token,
                replacement: replacements.0.token(),
            });
            state.set(State::WaitingForReplacement { held_back });
        }
    }
}

impl<S, B, R> State<S, S::Future, Response<R>, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    /// Everything but the wait for the response. Breaks with the result, or goes on with that wait.
    #[cold]
    fn poll_other(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<ControlFlow<Result<Response<R>, BoxError>>> {
        let error: Box<Error> = match self.as_mut().project() {
            StateProj::WaitingForResponse { .. } => return Poll::Ready(ControlFlow::Continue(())),
            StateProj::WaitingForToken { waiting } => {
                match (ready!(waiting.token.as_mut().poll(cx)), waiting.call.take()) {
                    (Ok(token), Some((mut ready, mut request))) => {
                        let value = token.header_value();
                        request.headers_mut().insert(&waiting.header, value);
                        let sent = Sent {
                            token,
                            audience: waiting.audience,
                            replacements: waiting.replacements.take(),
                        };
                        self.set(Self::WaitingForResponse {
                            response: ready.call(request),
                            sent: Some(sent),
                        });
                        return Poll::Ready(ControlFlow::Continue(()));
                    }
                    (Err(error), _) => Error::no_token(error).into(),
                    (Ok(_), None) => Error::finished().into(),
                }
            }
            StateProj::WaitingForReplacement { held_back } => {
                let replacement = ready!(Pin::new(&mut held_back.replacement).poll(cx));
                if let Some(mut response) = held_back.response.take() {
                    if replacement.is_ok_and(|token| token.can_replace(&held_back.rejected)) {
                        response.extensions_mut().insert(TokenReplaced);
                    }
                    return Poll::Ready(ControlFlow::Break(Ok(response)));
                }
                Error::finished().into()
            }
            StateProj::NotSent { error } => {
                error.take().unwrap_or_else(|| Error::finished().into())
            }
        };
        self.set(Self::NotSent { error: None });
        Poll::Ready(ControlFlow::Break(Err(error)))
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::WaitingForToken { .. } => "ResponseFuture(waiting for a token)",
            State::WaitingForResponse { .. } => "ResponseFuture(waiting for the response)",
            State::WaitingForReplacement { .. } => "ResponseFuture(waiting for another token)",
            State::NotSent { .. } => "ResponseFuture(not sent)",
        })
    }
}
