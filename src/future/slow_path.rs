//! The states of a [`ResponseFuture`](super::ResponseFuture) off the fast path.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use tower_service::Service;

use super::{Sent, TokenReplaced};
use crate::{
    error::{BoxError, Error, SourceError},
    retry_of::RetryOf,
    rules::Auth,
    source::{PendingToken, TokenFuture, TokenSource, TokenState},
    token::BearerToken,
    trace,
};

/// The states off the fast path. Most requests enter none.
#[expect(clippy::large_enum_variant, reason = "every state is in the same box")]
pub(super) enum SlowPath<S, R, B> {
    /// The request waits for its token, or for the inner service.
    Unsent(Unsent<S, B>),
    /// The response rejected the token. The future asks the source for another token. Only with
    /// `retry_rejected`.
    WaitingForReplacement(HeldBack<R>),
    /// The request is not sent. The first poll takes the error.
    NotSent(Option<Error>),
}

/// A request, and what sends it.
pub(super) struct Unsent<S, B> {
    step: Step,
    /// A clone of the inner service. It holds no reservation before it is polled ready.
    inner: S,
    /// Clones the inner service. A field, so that `Future` is implemented without `S: Clone`.
    clone_inner: fn(&S) -> S,
    /// `None` once the request is sent.
    request: Option<Request<B>>,
    auth: Arc<Auth<dyn TokenSource>>,
    /// The request's own source, if it has one.
    chosen: Option<Arc<dyn TokenSource>>,
    /// The first token, if the source was asked again because this token had expired or was rejected.
    replaced: Option<BearerToken>,
}

/// What an unsent request waits for.
enum Step {
    WaitingForToken(PendingToken),
    WaitingForService {
        /// `None` if the request goes without a token.
        token: Option<BearerToken>,
        /// Whether the inner service was not ready when the token came.
        has_waited: bool,
    },
}

/// A response that rejected its token, held back until the source has answered.
pub(super) struct HeldBack<R> {
    response: Option<R>,
    rejected: BearerToken,
    replacement: TokenFuture,
}

/// What follows a state of [`SlowPath`].
pub(super) enum Next<F, R> {
    /// The request is sent, and this future gives its response.
    Sent(F, Option<Sent>),
    /// The caller gets the response that was held back.
    Answer(R),
}

type NextOrError<F, R> = Result<Next<F, Response<R>>, BoxError>;

impl<S, R, B> SlowPath<S, R, B> {
    /// The name of the state, for `Debug`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Unsent(unsent) => match unsent.step {
                Step::WaitingForToken(_) => "waiting for a token",
                Step::WaitingForService { .. } => "waiting for the inner service",
            },
            Self::WaitingForReplacement(_) => "waiting for another token",
            Self::NotSent(_) => "not sent",
        }
    }
}

impl<S, B, R> SlowPath<S, Response<R>, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<NextOrError<S::Future, R>> {
        let error = match self {
            Self::Unsent(unsent) => match ready!(unsent.poll(cx)) {
                Ok((response, sent)) => return Poll::Ready(Ok(Next::Sent(response, sent))),
                Err(error) => error,
            },
            Self::WaitingForReplacement(held_back) => match ready!(held_back.poll(cx)) {
                Ok(response) => return Poll::Ready(Ok(Next::Answer(response))),
                Err(error) => error.into(),
            },
            Self::NotSent(error) => error.take().unwrap_or_else(Error::finished).into(),
        };
        // Release the reservations of the request now, not when the caller drops the future.
        *self = Self::NotSent(None);
        Poll::Ready(Err(error))
    }
}

impl<S: Clone, B> Unsent<S, B> {
    pub(super) fn new(
        token: PendingToken,
        inner: S,
        request: Request<B>,
        auth: Arc<Auth<dyn TokenSource>>,
        chosen: Option<Arc<dyn TokenSource>>,
    ) -> Self {
        Self {
            step: Step::WaitingForToken(token),
            inner,
            clone_inner: S::clone,
            request: Some(request),
            auth,
            chosen,
            replaced: None,
        }
    }
}

impl<S, B> Unsent<S, B>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
{
    /// Sends the request once the token has come and the inner service is ready.
    #[expect(clippy::type_complexity, reason = "an alias would hide what comes out")]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(S::Future, Option<Sent>), BoxError>> {
        loop {
            let (token, has_waited) = match &mut self.step {
                Step::WaitingForToken(token) => {
                    let result = ready!(token.as_mut().poll(cx));
                    let token = self.token_or_none(result)?;
                    self.step = Step::WaitingForService {
                        token,
                        has_waited: false,
                    };
                    continue;
                }
                Step::WaitingForService { token, has_waited } => (token, has_waited),
            };
            if self.inner.poll_ready(cx).map_err(Into::into)?.is_pending() {
                *has_waited = true;
                return Poll::Pending;
            }
            // Ask again only once: a source without another token hands out a rejected token again.
            let has_ended = |token: &BearerToken| token.is_rejected() || token.is_expired();
            if *has_waited && self.replaced.is_none() && token.as_ref().is_some_and(has_ended) {
                self.replaced = token.take();
                self.check_account()?;
                match self.source().token().into_state() {
                    TokenState::Ready(result) => {
                        let token = self.token_or_none(result)?;
                        let has_waited = false;
                        self.step = Step::WaitingForService { token, has_waited };
                    }
                    TokenState::Pending(token) => {
                        // Release the reservation of `poll_ready`: the fetch may need it.
                        self.inner = (self.clone_inner)(&self.inner);
                        self.step = Step::WaitingForToken(token);
                        continue;
                    }
                }
            }
            // The account may be signed out while the source looks for another token.
            self.check_account()?;
            let mut request = self.request.take().ok_or_else(Error::finished)?;
            RetryOf::check(request.extensions())?;
            let sent = match &self.step {
                Step::WaitingForService { token, .. } => token.as_ref(),
                Step::WaitingForToken(_) => None,
            };
            let sent = sent.map(|token| self.attach(&mut request, token));
            let sent = sent.transpose()?;
            return Poll::Ready(Ok((self.inner.call(request), sent)));
        }
    }

    /// Fails if another token would be that of another account.
    fn check_account(&self) -> Result<(), Error> {
        match &self.replaced {
            Some(token) if token.is_signed_out() => {
                Err(Error::no_token(SourceError::invalidated()))
            }
            _ => Ok(()),
        }
    }

    fn source(&self) -> &dyn TokenSource {
        match &self.chosen {
            Some(chosen) => chosen,
            None => &self.auth.source,
        }
    }

    /// The token, or `None` if the request goes without a token.
    fn token_or_none(
        &self,
        result: Result<BearerToken, SourceError>,
    ) -> Result<Option<BearerToken>, Error> {
        match result {
            Ok(token) => Ok(Some(token)),
            Err(error) if self.chosen.is_none() && self.auth.rules.lets_pass(&error) => Ok(None),
            Err(error) => Err(Error::no_token(error)),
        }
    }

    fn attach(&self, request: &mut Request<B>, token: &BearerToken) -> Result<Sent, Error> {
        let attached = self.auth.rules.attach(request.headers_mut(), token);
        let overwrote = attached.map_err(|_| Error::too_many_headers())?;
        let response_rules = match &self.chosen {
            Some(chosen) => self.auth.rules_for_chosen(token, overwrote, chosen),
            None => self.auth.rules_for(token, overwrote),
        };
        Ok(Sent {
            token: token.clone(),
            response_rules,
        })
    }
}

impl<R> HeldBack<Response<R>> {
    pub(super) fn new(
        response: Response<R>,
        rejected: BearerToken,
        replacement: TokenFuture,
    ) -> Self {
        Self {
            response: Some(response),
            rejected,
            replacement,
        }
    }

    /// The response, once the source has answered.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<R>, Error>> {
        let replacement = ready!(Pin::new(&mut self.replacement).poll(cx));
        let mut response = self.response.take().ok_or_else(Error::finished)?;
        trace::replacement(&replacement, &self.rejected);
        if replacement.is_ok_and(|token| token.can_replace(&self.rejected)) {
            let extensions = response.extensions_mut();
            extensions.insert(TokenReplaced);
            RetryOf::add(extensions, &self.rejected);
        }
        Poll::Ready(Ok(response))
    }
}
