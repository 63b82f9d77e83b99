//! Several sources, of which the first that is not absent wins: [`Chain`], which [`first_of`] starts.

use std::{
    error::Error as StdError,
    fmt,
    sync::{Arc, OnceLock},
};

use crate::{
    error::{SourceError, SourceErrorKind},
    source::{TokenFuture, TokenSource},
    token::BearerToken,
};

/// Starts a [`Chain`] with its first source.
///
/// A source may be optional, such as a token from a flag of the command line. `None` is absent, so the chain asks
/// its next source. In this example, a flag that is given and is not a token is an error at once:
///
/// ```no_run
/// use tower_bearer::{BearerToken, EnvToken, FileToken, first_of};
///
/// # fn example(flag: Option<String>, path: &str) -> Result<(), Box<dyn std::error::Error>> {
/// // `flag` is an `Option<String>`: the value of `--token`, if there is one.
/// let source = first_of(flag.map(BearerToken::new).transpose()?)
///     .or(EnvToken::new("API_TOKEN"))
///     .or(FileToken::new(path));
/// # Ok(()) }
/// ```
pub fn first_of(source: impl IntoSource) -> Chain {
    Chain {
        parts: Vec::new(),
        winner: Arc::default(),
    }
    .or(source)
}

/// Several sources, of which the first that is not absent wins, for good.
///
/// A source is absent if it has [nothing to take a token from](SourceErrorKind::Absent), such as a variable
/// that is not set or a file that does not exist. The chain passes over an absent source. The first source
/// with any other answer is the winner, with a token or with an error: a malformed token is a mistake to
/// report, not a reason to act as somebody else. If the search ends with an error, the error also lists each
/// source that was passed over, and why that source has no token.
///
/// The winner stays the winner, even if a server rejects its token, and even if the winner has no token
/// any more: **no answer of a server makes a program act as somebody else**. The chain never asks the other
/// sources again, whatever they have by then. While every source is absent there is no winner, and each
/// request searches anew. A part that is an error stays that error: the chain cannot make the source later.
///
/// A search asks the sources in order, and waits for each answer. Requests that search at the same time may
/// get different answers from a source that changes. All requests use the same winner: the first winner that
/// a search finds.
///
/// ```
/// use tower_bearer::{BearerAuthLayer, EnvToken, FileToken, first_of};
///
/// let source = first_of(EnvToken::new("API_TOKEN")).or(FileToken::new("/run/agent/token"));
/// let layer = BearerAuthLayer::new(source);
/// ```
///
/// Any source can be a part. The last part may be a source that always has a token:
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
    /// The index of the winner in `parts`, once there is a winner.
    winner: Arc<OnceLock<usize>>,
}

/// A part of a [`Chain`]: a [`TokenSource`], the result of trying to make a source, or an optional source.
/// `None` is absent.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a part of a chain of sources",
    label = "this is not a `TokenSource`, a `Result<impl TokenSource, SourceError>` or an `Option<impl TokenSource>`",
    note = "to make a source from an async function, call `source_fn(f)` or `RefreshingToken::new(f)`",
    note = "a part is a source, the result of trying to make a source, such as the result of `EnvToken::new`, or an optional source",
    note = "a `Result` with another error: `.map_err(SourceError::from)` makes a `SourceError` of an `InvalidToken`",
    note = "an `Option` of a `Result`: `.transpose()?` makes an `Option` of a source"
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

impl<T: TokenSource + 'static> IntoSource for Option<T> {}
impl<T: TokenSource + 'static> Sealed for Option<T> {
    fn into_part(self) -> Part {
        match self {
            Some(source) => source.into_part(),
            None => Part::NotMade(SourceError::new(SourceErrorKind::Absent, "not given")),
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
    /// Asks this source if every source before it is absent.
    #[must_use]
    pub fn or(mut self, source: impl IntoSource) -> Self {
        self.parts.push(source.into_part());
        self.winner = Arc::default();
        self
    }

    fn winner(&self) -> Option<&Part> {
        self.parts.get(*self.winner.get()?)
    }

    /// Asks the sources in order until a source is not absent. That source is then the winner.
    async fn search(self) -> Result<BearerToken, SourceError> {
        let mut absent = Vec::new();
        for (index, part) in self.parts.iter().enumerate() {
            match part.token().await {
                Err(error) if error.kind() == SourceErrorKind::Absent => absent.push(error),
                answer if *self.winner.get_or_init(|| index) == index => {
                    return answer.map_err(|error| after_absent(&absent, error));
                }
                // Another search has found another winner meanwhile. Drop the answer of this source.
                _ => break,
            }
        }
        match self.winner() {
            Some(winner) => winner.token().await,
            None => Err(all_absent(&absent)),
        }
    }
}

/// Lists each source, and why the source has no token.
fn all_absent(errors: &[SourceError]) -> SourceError {
    SourceError::new(SourceErrorKind::Absent, list(errors))
}

/// The error of the winner, under a message that also lists the sources that were passed over.
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
    /// Once there is a winner, costs as much as the winner, and an atomic load.
    fn token(&self) -> TokenFuture {
        match self.winner() {
            Some(winner) => winner.token(),
            None => TokenFuture::boxed(self.clone().search()),
        }
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("sources", &self.parts.len())
            .finish_non_exhaustive()
    }
}
