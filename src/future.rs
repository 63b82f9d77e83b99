//! The future of a response, which waits for the token first if necessary: [`ResponseFuture`].

mod slow_path;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use self::slow_path::{HeldBack, Next, SlowPath, Unsent};
use crate::{
    error::{BoxError, Error},
    response_rules::ResponseRules,
    rules::Auth,
    source::{PendingToken, TokenSource},
    token::BearerToken,
};

pin_project! {
    /// Waits for the token and for the inner service if necessary, then for the response. If the
    /// response rejects the token, marks the token.
    ///
    /// You may drop the future at any point: only this request is lost, and its reservations are
    /// released. The future is at most 32 bytes larger than the inner service's future (more if the
    /// inner future is aligned to more than 16 bytes). Once the request is sent, a poll costs what
    /// a poll of the inner future costs, plus a check of the response's status.
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
    // The states, and the events that lead from a state to the next. `WaitingForResponse` is the
    // fast path, where most requests begin and end. Every other state is in the box of `SlowPath`.
    //
    //                                 call
    //           ┌──────────────────────┼─────────────────────────┐
    //   refused, or the         the source has          token at hand,
    //   source has failed       to wait                 or none to carry
    //           │                      ▼                         │
    //           │◄─── no token ── WaitingForToken ◄───────┐      │
    //           │                      │ token            │      │
    //           │                      ▼                  │      │
    //           │◄─── failed ─── WaitingForService ───────┘      │
    //           ▼                      │      ready, but the     │
    //        NotSent                   │      token has ended:   │
    //           │                      │      ask anew, once     │
    //           │                      │ ready: call             │
    //           ▼                      ▼                         │
    //         error            WaitingForResponse ◄──────────────┘
    //                             │           │
    //                      not rejected    rejected: mark the token
    //                             ▼   retry off │   │ retry on
    //                         response ◄────────┘   ▼
    //                             ▲         WaitingForReplacement
    //                             └───────────────┘ (+ `TokenReplaced`, if the source has another token)
    //
    // `WaitingForToken` holds nothing of the inner service. From `WaitingForService` on, a request may
    // hold a permit, a buffer slot or a connection. `WaitingForReplacement` holds the response, and
    // with it the connection.
    #[project = StateProj]
    enum State<S, F, R, B> {
        WaitingForResponse {
            #[pin]
            response: F,
            sent: Option<Sent>,
        },
        /// Boxed, so that the future is small, and its drop on the fast path takes few instructions.
        SlowPath { state: Box<SlowPath<S, R, B>> },
    }
}

/// The token that a request carries, and the rules by which the response is read.
struct Sent {
    token: BearerToken,
    /// `None` for the usual rules.
    response_rules: Option<Arc<ResponseRules>>,
}

/// Response extension: the server rejected the token, and the source now has another token, so
/// the request is worth sending again.
///
/// Only a layer with [`retry_rejected`](crate::BearerAuthLayer::retry_rejected) inserts it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TokenReplaced;

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    /// Waits for the response to a request that carries no token of this layer.
    pub(crate) fn without_token(response: S::Future) -> Self {
        Self::from(State::WaitingForResponse {
            response,
            sent: None,
        })
    }

    /// Waits for the response to a request that carries `token`.
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

    /// Waits for `token`, then for `inner`, and sends the request.
    ///
    /// `inner` is a clone of the inner service that holds no reservation. `chosen` is the request's own
    /// source, if it has one.
    pub(crate) fn after_token(
        token: PendingToken,
        inner: S,
        request: Request<B>,
        auth: Arc<Auth<dyn TokenSource>>,
        chosen: Option<Arc<dyn TokenSource>>,
    ) -> Self
    where
        S: Clone,
    {
        let unsent = Unsent::new(token, inner, request, auth, chosen);
        Self::from(State::slow(SlowPath::Unsent(unsent)))
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
        let mut result = ready!(response.poll(cx)).map_err(Into::into);
        // Judged by reference, to save a move of the response on the fast path.
        let is_rejected = match (&mut result, &*sent) {
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

    /// Holds back a response that rejects its token, if the layer retries, and asks the source for
    /// another token.
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
            .and_then(|rules| rules.replacements.as_ref());
        let Some(replacements) = replacements.filter(|_| !sent.token.is_signed_out()) else {
            return Poll::Ready(Ok(response));
        };
        let replacement = replacements.token();
        self.set(Self::slow(SlowPath::WaitingForReplacement(HeldBack::new(
            response,
            sent.token,
            replacement,
        ))));
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
            Ok(Next::Sent(response, sent)) => {
                self.set(Self::WaitingForResponse { response, sent });
                self.poll(cx)
            }
            Ok(Next::Answer(response)) => Poll::Ready(Ok(response)),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl<S, F, R, B> State<S, F, R, B> {
    fn slow(state: SlowPath<S, R, B>) -> Self {
        let state = Box::new(state);
        Self::SlowPath { state }
    }
}

impl Sent {
    #[inline]
    fn judge<B>(&self, response: &mut Response<B>) -> bool {
        let (token, status) = (&self.token, response.status());
        let (headers, extensions) = (response.headers(), response.extensions());
        let Some(rules) = &self.response_rules else {
            return ResponseRules::judge_as_usual(token, status, headers, extensions);
        };
        let is_rejected = rules.judge(token, status, headers, extensions);
        rules.note(response.extensions_mut());
        is_rejected
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
        write!(f, "ResponseFuture({})", state.name())
    }
}
