//! The response, and before it the wait for a token: [`ResponseFuture`].

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;
use http::{HeaderName, Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    challenge::Audience,
    error::{BoxError, Error},
    source::SourceError,
    token::BearerToken,
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
        state: State<S, S::Future, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, B> {
        WaitingForToken { waiting: Box<Waiting<S, B>> },
        WaitingForResponse {
            #[pin]
            response: F,
            sent: Option<Sent>,
        },
        /// With the error: not sent. Without: polled to its end.
        Over { error: Option<Box<Error>> },
    }
}

impl<S, F, B> State<S, F, B> {
    fn over(error: Error) -> Self {
        Self::Over {
            error: Some(Box::new(error)),
        }
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
}

/// The token that a request carries, and who judges it.
struct Sent {
    token: BearerToken,
    audience: Audience,
}

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
    pub(crate) fn with_token(response: S::Future, token: BearerToken, audience: Audience) -> Self {
        Self::from(State::WaitingForResponse {
            response,
            sent: Some(Sent { token, audience }),
        })
    }

    /// Waits for `token`, then sends `request` through the service, which has been polled ready.
    pub(crate) fn after_token(
        token: BoxFuture<'static, Result<BearerToken, SourceError>>,
        ready: S,
        request: Request<B>,
        header: HeaderName,
    ) -> Self {
        let call = Some((ready, request));
        Self::from(State::WaitingForToken {
            waiting: Box::new(Waiting {
                token,
                call,
                header,
            }),
        })
    }

    #[cold]
    pub(crate) fn not_sent(error: Error) -> Self {
        Self::from(State::over(error))
    }

    #[inline]
    fn from(state: State<S, S::Future, B>) -> Self {
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
        if !matches!(*state, State::WaitingForResponse { .. }) {
            ready!(state.as_mut().poll_send(cx))?;
        }
        let StateProj::WaitingForResponse { response, sent } = state.project() else {
            return Poll::Ready(Err(Error::finished().into()));
        };
        match response.poll(cx) {
            Poll::Ready(Ok(response)) => {
                if let Some(Sent { token, audience }) = sent.take() {
                    if audience.rejects_token(&response) {
                        token.reject();
                    }
                }
                Poll::Ready(Ok(response))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S, B, R> State<S, S::Future, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    /// Waits for the token, then sends the request.
    #[cold]
    fn poll_send(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let waiting = match self.as_mut().project() {
            StateProj::WaitingForToken { waiting } => waiting,
            StateProj::WaitingForResponse { .. } => return Poll::Ready(Ok(())),
            StateProj::Over { error } => {
                let error = error.take().unwrap_or_else(|| Error::finished().into());
                return Poll::Ready(Err(error));
            }
        };
        let token = ready!(waiting.token.as_mut().poll(cx));
        let result = match (token, waiting.call.take()) {
            (Ok(token), Some((mut ready, mut request))) => {
                let header = &waiting.header;
                request.headers_mut().insert(header, token.header_value());
                let audience = Audience::of(header);
                self.set(Self::WaitingForResponse {
                    response: ready.call(request),
                    sent: Some(Sent { token, audience }),
                });
                return Poll::Ready(Ok(()));
            }
            (Err(error), _) => Error::no_token(error),
            (Ok(_), None) => Error::finished(),
        };
        self.set(Self::Over { error: None });
        Poll::Ready(Err(result.into()))
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
            State::Over { .. } => "ResponseFuture(over)",
        })
    }
}
