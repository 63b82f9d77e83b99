//! Several sources, of which the first that has a token wins: [`first_of`], [`Chain`].

use std::{
    error::Error as StdError,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    error::{SourceError, SourceErrorKind},
    source::{TokenFuture, TokenSource, TokenState},
    token::BearerToken,
};

/// Starts a [`Chain`] with its first source.
pub fn first_of(source: impl IntoSource) -> Chain {
    Chain {
        parts: Vec::new(),
        winner: Arc::new(AtomicUsize::new(NO_WINNER)),
    }
    .or(source)
}

/// Several sources, of which the first that has a token wins.
///
/// A source with [nothing to take a token from](SourceErrorKind::Absent), such as a variable that is
/// not set or a file that does not exist, is passed over. Any other error ends the search: a
/// malformed token is a mistake to hear of, not a reason to act as somebody else. The error lists each
/// source that was tried, and why it has no token. A source that could not be made is not made again
/// later.
///
/// The winner is remembered and asked alone, until it has only a rejected token to give. Then the
/// search starts anew; if no source has a better token, the rejected one is sent again.
///
/// A search waits for the answer of each source that it asks. One that may never answer, such as
/// [`RotatingToken::empty`](crate::RotatingToken::empty), then holds up all requests, also those
/// that could carry the rejected token of another.
///
/// ```
/// use tower_bearer::{BearerAuthLayer, EnvToken, FileToken, first_of};
///
/// let source = first_of(EnvToken::new("API_TOKEN")).or(FileToken::new("/run/agent/token"));
/// let layer = BearerAuthLayer::new(source);
/// ```
///
/// Any source can be a part, and the last may well be one that always has a token:
///
/// ```
/// use tower_bearer::{BearerToken, EnvToken, StaticToken, first_of};
///
/// let guest = StaticToken::new(BearerToken::new("PUBLIC")?);
/// let source = first_of(EnvToken::new("API_TOKEN")).or(guest);
/// # Ok::<(), tower_bearer::InvalidToken>(())
/// ```
#[derive(Clone)]
pub struct Chain {
    parts: Vec<Part>,
    /// An index into `parts`, or [`NO_WINNER`].
    winner: Arc<AtomicUsize>,
}

const NO_WINNER: usize = usize::MAX;

/// What a [`Chain`] can be made of: a [`TokenSource`], or the result of trying to make one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a part of a chain of sources",
    label = "this is neither a `TokenSource` nor a `Result<impl TokenSource, SourceError>`",
    note = "an async function becomes a source by `source_fn(f)` or `RefreshingToken::new(f)`",
    note = "a part is a source, or the result of trying to make a source, as `EnvToken::new` gives it",
    note = "a `Result` with another error: `.map_err(SourceError::from)` makes a `SourceError` of an `InvalidToken`"
)]
pub trait IntoSource: Sealed {}

mod sealed {
    pub trait Sealed {
        fn into_part(self) -> super::Part;
    }
}
use sealed::Sealed;

#[derive(Clone)]
#[doc(hidden)]
#[expect(missing_debug_implementations, reason = "private in all but name")]
pub enum Part {
    Source(Arc<dyn TokenSource>),
    NotMade(SourceError),
}

impl<T: TokenSource + 'static> IntoSource for T {}
impl<T: TokenSource + 'static> Sealed for T {
    fn into_part(self) -> Part {
        Part::Source(Arc::new(self))
    }
}

impl<T: TokenSource + 'static> IntoSource for Result<T, SourceError> {}
impl<T: TokenSource + 'static> Sealed for Result<T, SourceError> {
    fn into_part(self) -> Part {
        match self {
            Ok(source) => source.into_part(),
            Err(error) => Part::NotMade(error),
        }
    }
}

impl Part {
    fn token(&self) -> TokenFuture {
        match self {
            Self::Source(source) => source.token(),
            Self::NotMade(error) => TokenFuture::ready(Err(error.clone())),
        }
    }
}

impl Chain {
    /// Asks this source where none before it has anything to take a token from.
    #[must_use]
    pub fn or(mut self, source: impl IntoSource) -> Self {
        self.parts.push(source.into_part());
        self.winner = Arc::new(AtomicUsize::new(NO_WINNER));
        self
    }

    /// The winner's token if it is good. Otherwise, asks the others in order.
    async fn keep_or_search(
        self,
        winner: usize,
        of_winner: TokenFuture,
    ) -> Result<BearerToken, SourceError> {
        match of_winner.await {
            Ok(token) if !token.is_rejected() => Ok(token),
            Err(error) if error.kind() != SourceErrorKind::Absent => Err(error),
            answer => self.search(winner, Some(answer)).await,
        }
    }

    /// Asks all sources in order but the winner so far, if it has answered, since each is asked once
    /// for each request.
    async fn search(
        self,
        winner: usize,
        mut answered: Option<Result<BearerToken, SourceError>>,
    ) -> Result<BearerToken, SourceError> {
        // What is sent if no source has a better token.
        let mut rejected = None;
        if let Some(Ok(token)) = &answered {
            rejected = Some((winner, token.clone()));
        }
        let mut absent = Vec::new();
        for (index, part) in self.parts.iter().enumerate() {
            let answer = match answered.take_if(|_| index == winner) {
                Some(answer) => answer,
                None => part.token().await,
            };
            match answer {
                Ok(token) if token.is_rejected() => {
                    rejected.get_or_insert((index, token));
                }
                Ok(token) => {
                    self.replace(winner, index);
                    return Ok(token);
                }
                Err(error) if error.kind() == SourceErrorKind::Absent => absent.push(error),
                Err(error) if rejected.is_none() => return Err(after_absent(&absent, error)),
                Err(_) => break,
            }
        }
        match rejected {
            Some((index, token)) => {
                self.replace(winner, index);
                // The search may have waited long.
                SourceError::unless_expired(token)
            }
            None => Err(all_absent(&absent)),
        }
    }

    /// Not if another search was faster: its winner is to be asked alone, and may be good for long.
    fn replace(&self, winner: usize, next: usize) {
        let relaxed = Ordering::Relaxed;
        let _ = self.winner.compare_exchange(winner, next, relaxed, relaxed);
    }
}

/// Lists each source that was tried, and why it has no token.
fn all_absent(errors: &[SourceError]) -> SourceError {
    SourceError::new(SourceErrorKind::Absent, list(errors))
}

/// The error that ended the search, which also lists the sources that were tried before.
fn after_absent(absent: &[SourceError], error: SourceError) -> SourceError {
    if absent.is_empty() {
        return error;
    }
    error.with_message(format!("{}; {error}", list(absent)))
}

fn list(errors: &[SourceError]) -> String {
    let mut message = String::from("no source has a token");
    for (index, error) in errors.iter().enumerate() {
        message.push_str(if index == 0 { ": " } else { "; " });
        message.push_str(&error.to_string());
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
    }
    message
}

impl TokenSource for Chain {
    /// Once there is a winner, costs what the winner does, and an atomic load.
    fn token(&self) -> TokenFuture {
        let index = self.winner.load(Ordering::Relaxed);
        let Some(winner) = self.parts.get(index) else {
            return TokenFuture::boxed(self.clone().search(index, None));
        };
        let of_winner = match winner.token().into_state() {
            TokenState::Ready(Ok(token)) if !token.is_rejected() => return token.into(),
            TokenState::Ready(result) => TokenFuture::ready(result),
            TokenState::Pending(future) => TokenFuture::boxed(future),
        };
        TokenFuture::boxed(self.clone().keep_or_search(index, of_winner))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("sources", &self.parts.len())
            .finish_non_exhaustive()
    }
}
