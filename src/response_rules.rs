//! The rules by which a response is read: which rule judges the token, and whether the response
//! speaks of this layer's token.

use std::{fmt, sync::Arc};

use http::{Extensions, HeaderMap, HeaderName, StatusCode, header::AUTHORIZATION};

use crate::{challenge::Challenger, rejection::SeenMark, source::TokenSource, token::BearerToken};

/// Settings that change how a response is read. Most layers have no such settings, so a future
/// holds an optional pointer.
pub(crate) struct ResponseRules {
    pub(crate) challenger: Challenger,
    /// The user's rule, in place of the challenger's rule.
    pub(crate) rejected_when: Option<RejectedWhen>,
    /// The header that carries the token.
    pub(crate) header: HeaderName,
    /// Where another token comes from, if rejected requests are to be retried.
    pub(crate) replacements: Option<Arc<dyn TokenSource>>,
    /// The mark of a token that was rejected before the request was sent. A success takes this mark
    /// off.
    pub(crate) mark: Option<SeenMark>,
    /// Whether the request already had the header, perhaps with the token of a layer above.
    pub(crate) overwrote: bool,
}

impl ResponseRules {
    /// Whether nothing but the default rule for `Authorization` is set.
    pub(crate) fn are_usual(&self) -> bool {
        self.challenger == Challenger::Origin
            && self.header == AUTHORIZATION
            && self.rejected_when.is_none()
            && self.replacements.is_none()
    }

    /// Marks the token if the response rejects it, takes a mark off if the response is a success,
    /// and tells whether the response rejects the token.
    pub(crate) fn judge(
        &self,
        token: &BearerToken,
        status: StatusCode,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> bool {
        let is_rejected = match &self.rejected_when {
            Some(RejectedWhen(rule)) => rule(status, headers, extensions),
            None => self.challenger.rejects_token(status, headers),
        };
        let is_ours =
            (is_rejected || self.mark.is_some()) && !is_overwritten(extensions, &self.header);
        if is_ours && is_rejected {
            self.challenger.mark(token, status, headers);
        } else if let (true, Some(mark)) = (is_ours, self.mark) {
            self.challenger.accept(token, mark, status, headers);
        }
        is_ours && is_rejected
    }

    /// Tells a layer above whether this layer has overwritten the token of the layer above.
    #[inline]
    pub(crate) fn note(&self, extensions: &mut Extensions) {
        if self.overwrote {
            note_overwritten(extensions, &self.header);
        }
    }

    /// Does what [`judge`](Self::judge) does if no setting is changed.
    #[inline]
    pub(crate) fn judge_as_usual(
        token: &BearerToken,
        status: StatusCode,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> bool {
        let is_rejected = Challenger::Origin.rejects_token(status, headers)
            && !is_overwritten(extensions, &AUTHORIZATION);
        if is_rejected {
            Challenger::Origin.mark(token, status, headers);
        }
        is_rejected
    }
}

/// The user's rule for which responses reject a token.
#[derive(Clone)]
#[expect(clippy::type_complexity, reason = "the type of a field, once")]
pub(crate) struct RejectedWhen(
    Arc<dyn Fn(StatusCode, &HeaderMap, &Extensions) -> bool + Send + Sync>,
);

impl RejectedWhen {
    pub(crate) fn new(
        rule: impl Fn(StatusCode, &HeaderMap, &Extensions) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(rule))
    }
}

impl fmt::Debug for RejectedWhen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RejectedWhen")
    }
}

/// Response extension: a layer below has overwritten these headers of the request. The response
/// then says nothing about the token that a layer above had put there.
#[derive(Clone)]
struct Overwritten(Vec<HeaderName>);

#[cold]
fn note_overwritten(extensions: &mut Extensions, header: &HeaderName) {
    match extensions.get_mut::<Overwritten>() {
        Some(Overwritten(headers)) => headers.push(header.clone()),
        None => {
            extensions.insert(Overwritten(vec![header.clone()]));
        }
    }
}

#[cold]
fn is_overwritten(extensions: &Extensions, header: &HeaderName) -> bool {
    extensions
        .get::<Overwritten>()
        .is_some_and(|Overwritten(headers)| headers.contains(header))
}
