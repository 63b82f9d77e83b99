//! The layer's settings, [`Rules`], and what they say about a request, [`Verdict`].

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{AUTHORIZATION, MaxSizeReached, PROXY_AUTHORIZATION},
    uri::Authority,
};

use crate::{
    challenge::Challenger,
    error::{SourceError, SourceErrorKind},
    origin::{InvalidOrigin, Origin, Scheme, is_local, why_outside},
    rejection::SeenMark,
    response_rules::{RejectedWhen, ResponseRules},
    source::TokenSource,
    token::BearerToken,
    trace,
};

/// What all clones of a service share with each other and with each request that waits for its token.
pub(crate) struct Auth<T: ?Sized> {
    pub(crate) rules: Rules,
    pub(crate) response_rules: Option<Arc<ResponseRules>>,
    /// The last field, so that an `Auth<T>` can become the `Auth<dyn TokenSource>` that a waiting request
    /// holds.
    pub(crate) source: T,
}

/// Turns the [`Auth`] of a service into the [`Auth`] of a waiting request. The layer chooses the function
/// where the source is known to be `'static`. The service itself must not have this bound: an `async` block
/// that holds a service with an `Arc<dyn TokenSource>` would not be known to be `Send`
/// (rust-lang/rust#110338).
pub(crate) type Erase<T> = fn(&Arc<Auth<Arc<T>>>) -> Arc<Auth<dyn TokenSource>>;

impl<T: ?Sized> Auth<T> {
    /// How to read the response to a request that is sent with `token` now. `overwrote` tells whether
    /// the request had the header already.
    #[inline]
    pub(crate) fn rules_for(
        &self,
        token: &BearerToken,
        overwrote: bool,
    ) -> Option<Arc<ResponseRules>> {
        match token.seen_mark() {
            None if !overwrote => self.response_rules.clone(),
            mark => {
                let usual = self.response_rules.as_ref();
                let replacements = usual.and_then(|rules| rules.replacements.clone());
                Some(self.unusual_rules(mark, overwrote, replacements))
            }
        }
    }

    /// How to read the response to a request that is sent with `token` now. The token comes from `chosen`,
    /// the request's own source.
    pub(crate) fn rules_for_chosen(
        &self,
        token: &BearerToken,
        overwrote: bool,
        chosen: &Arc<dyn TokenSource>,
    ) -> Option<Arc<ResponseRules>> {
        let usual = self.response_rules.as_ref();
        let retries = usual.is_some_and(|rules| rules.replacements.is_some());
        match token.seen_mark() {
            None if !overwrote && !retries => self.response_rules.clone(),
            mark => {
                let replacements = retries.then(|| Arc::clone(chosen));
                Some(self.unusual_rules(mark, overwrote, replacements))
            }
        }
    }

    #[cold]
    fn unusual_rules(
        &self,
        mark: Option<SeenMark>,
        overwrote: bool,
        replacements: Option<Arc<dyn TokenSource>>,
    ) -> Arc<ResponseRules> {
        let rules = self.rules.response_rules(mark, overwrote, replacements);
        Arc::new(rules)
    }
}

/// What [`Rules`] say about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The request gets the token.
    Carry,
    /// The request goes out as it is.
    Pass,
    /// The request does not go out: it would take the token over the network in plaintext.
    Refuse,
}

/// The layer's settings: which request gets the token, and where in it.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "settings that are independent of each other"
)]
pub(crate) struct Rules {
    pub(crate) header: HeaderName,
    pub(crate) keep_existing: bool,
    pub(crate) allow_plaintext: bool,
    /// Whether the gRPC status of a response counts as well.
    pub(crate) grpc_status: bool,
    /// Whether the token goes into the header without `Bearer `.
    bare: bool,
    /// Whether the token goes under `Authorization`, with `Bearer `. Stored, so that no request has to
    /// compare the header's name.
    is_usual_header: bool,
    /// Whether a request goes out without a token if the source has none.
    pub(crate) anonymous_if_absent: bool,
    /// The user's own rule for which responses reject the token.
    pub(crate) rejected_when: Option<RejectedWhen>,
    /// Empty if the user named no origin. Then any origin may get the token.
    origins: Vec<Origin>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            header: AUTHORIZATION,
            keep_existing: false,
            allow_plaintext: false,
            grpc_status: false,
            bare: false,
            is_usual_header: true,
            anonymous_if_absent: false,
            rejected_when: None,
            origins: Vec::new(),
        }
    }
}

impl Rules {
    pub(crate) fn set_header(&mut self, header: HeaderName) {
        self.header = header;
        self.is_usual_header = self.header == AUTHORIZATION && !self.bare;
    }

    pub(crate) fn set_bare(&mut self) {
        self.bare = true;
        self.is_usual_header = false;
    }

    pub(crate) fn add_origin(&mut self, origin: &str) -> Result<(), InvalidOrigin> {
        self.origins.push(Origin::parse(origin)?);
        Ok(())
    }

    pub(crate) fn add_origin_of(&mut self, uri: &Uri) -> Result<(), InvalidOrigin> {
        self.origins.push(Origin::of(uri)?);
        Ok(())
    }

    /// How to read the response to a request. `mark` is the mark of the token when the request was sent.
    pub(crate) fn response_rules(
        &self,
        mark: Option<SeenMark>,
        overwrote: bool,
        replacements: Option<Arc<dyn TokenSource>>,
    ) -> ResponseRules {
        ResponseRules {
            challenger: Challenger::of(&self.header, self.grpc_status),
            rejected_when: self.rejected_when.clone(),
            header: self.header.clone(),
            replacements,
            mark,
            overwrote,
        }
    }

    /// Whether every request over https gets the token.
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn carry_any_https(&self) -> bool {
        self.origins.is_empty() && !self.keep_existing
    }

    #[inline]
    pub(crate) fn verdict(&self, uri: &Uri, headers: &HeaderMap) -> Verdict {
        if !self.keep_existing && uri.scheme_str() == Some("https") {
            let is_usual = |origin: &Origin| {
                origin.is_usual_for(uri.authority().map_or("", Authority::as_str))
            };
            if self.origins.is_empty() || self.origins.iter().any(is_usual) {
                return Verdict::Carry;
            }
        }
        self.any_verdict(uri, headers)
    }

    /// The verdict, without the shortcut for the usual request.
    fn any_verdict(&self, uri: &Uri, headers: &HeaderMap) -> Verdict {
        if self.keep_existing && headers.contains_key(&self.header) {
            trace::passed(trace::WhyPassed::KeepExisting);
            return Verdict::Pass;
        }
        self.verdict_by_uri(uri)
    }

    /// Whether a request goes out without a token because the source has none.
    pub(crate) fn lets_pass(&self, error: &SourceError) -> bool {
        let passes = self.anonymous_if_absent && error.kind() == SourceErrorKind::Absent;
        if passes {
            trace::passed(trace::WhyPassed::Absent);
        }
        passes
    }

    /// The verdict on a request, whatever headers the request has already. A request with a source of its
    /// own gets this verdict.
    pub(crate) fn verdict_by_uri(&self, uri: &Uri) -> Verdict {
        let scheme = uri.scheme().and_then(Scheme::of);
        if !self.origins.is_empty() {
            let in_scope = match (scheme, uri.authority()) {
                (Some(scheme), Some(authority)) => self
                    .origins
                    .iter()
                    .any(|origin| origin.contains(scheme, authority)),
                _ => false,
            };
            if !in_scope {
                trace::passed_outside(uri, || why_outside(&self.origins, uri));
                return Verdict::Pass;
            }
        }
        // The caller chose the connection if the URI has no scheme and no authority. The caller also
        // chose the connection if the URI is the target of a `CONNECT`, which has no scheme, and the
        // token is for the proxy. An unknown scheme counts as plaintext.
        let is_chosen = match uri.scheme() {
            Some(_) => false,
            None => uri.authority().is_none() || self.header == PROXY_AUTHORIZATION,
        };
        // If the user named origins, an origin contains this URI: other URIs have returned above.
        let is_named = !self.origins.is_empty();
        let is_private =
            is_chosen || scheme.is_some_and(|scheme| scheme.is_private(is_named, uri.authority()));
        if is_private || self.allow_plaintext || uri.authority().is_some_and(is_local) {
            Verdict::Carry
        } else {
            Verdict::Refuse
        }
    }

    /// Puts the token into `headers`. Tells whether `headers` had a value of that name before. Fails if
    /// `headers` had no such value and is full.
    ///
    /// Not inlined: the compiler optimises the insertion better here than in each user's crate.
    #[inline(never)]
    pub(crate) fn attach(
        &self,
        headers: &mut HeaderMap,
        token: &BearerToken,
    ) -> Result<bool, MaxSizeReached> {
        // A name that is known at compile time costs a third less to hash and to compare.
        let inserted = if self.is_usual_header {
            headers.try_insert(AUTHORIZATION, token.header_value())
        } else {
            self.attach_other(headers, token)
        };
        match inserted {
            Ok(old) => Ok(old.is_some()),
            Err(full) => self.attach_to_full(headers, token, full),
        }
    }

    #[cold]
    fn attach_other(
        &self,
        headers: &mut HeaderMap,
        token: &BearerToken,
    ) -> Result<Option<HeaderValue>, MaxSizeReached> {
        let value = if self.bare {
            token.bare_header_value()
        } else {
            token.header_value()
        };
        headers.try_insert(&self.header, value)
    }

    /// Replaces a value in a full map. Such a map takes no value, not even for a name that it has, so this
    /// removes the name first.
    #[cold]
    fn attach_to_full(
        &self,
        headers: &mut HeaderMap,
        token: &BearerToken,
        full: MaxSizeReached,
    ) -> Result<bool, MaxSizeReached> {
        headers.remove(&self.header).ok_or(full)?;
        self.attach_other(headers, token)?;
        Ok(true)
    }
}
