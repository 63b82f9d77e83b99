//! The layer's settings, and what they say about a request: [`Rules`], [`Verdict`], [`Auth`].

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

/// What all clones of a service share, and each request that waits for its token.
pub(crate) struct Auth<T: ?Sized> {
    pub(crate) rules: Rules,
    pub(crate) response_rules: Option<Arc<ResponseRules>>,
    /// The last field, so that a waiting request can have it as a `dyn TokenSource`.
    pub(crate) source: T,
}

/// Makes a waiting request's [`Auth`] of that of a service. Chosen where the source is known to be
/// `'static`: with that bound on the service itself, no future of an `async` block that holds a service
/// with an `Arc<dyn TokenSource>` is known to be `Send` (rust-lang/rust#110338).
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

    /// How to read the response to a request that has a source of its own.
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
    /// It gets the token.
    Carry,
    /// It goes out as it is.
    Pass,
    /// It does not go out: it would take the token over the network in plaintext.
    Refuse,
}

/// The layer's settings: which request gets the token, and where in it.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "settings that know nothing of each other"
)]
pub(crate) struct Rules {
    pub(crate) header: HeaderName,
    pub(crate) keep_existing: bool,
    pub(crate) allow_plaintext: bool,
    /// Whether responses are read as gRPC's, too.
    pub(crate) grpc_status: bool,
    /// Whether the token goes without its scheme.
    bare: bool,
    /// Whether it goes under `Authorization` with its scheme: the usual case, known without a look at the
    /// name.
    is_usual_header: bool,
    /// Whether a request goes out without a token if the source has none.
    pub(crate) anonymous_if_absent: bool,
    /// The user's own rule for which responses reject the token.
    pub(crate) rejected_when: Option<RejectedWhen>,
    /// None given: any.
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

    /// How to read the response to a request that was sent with a token that had `mark` on.
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

    /// Whether any request over https gets the token.
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn are_none(&self) -> bool {
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

    /// Without the shortcut for the usual request.
    fn any_verdict(&self, uri: &Uri, headers: &HeaderMap) -> Verdict {
        if self.keep_existing && headers.contains_key(&self.header) {
            trace::passed(trace::WhyPassed::KeepExisting);
            return Verdict::Pass;
        }
        self.verdict_for_chosen(uri)
    }

    /// Whether a request goes out without a token because the source has none.
    pub(crate) fn lets_pass(&self, error: &SourceError) -> bool {
        let passes = self.anonymous_if_absent && error.kind() == SourceErrorKind::Absent;
        if passes {
            trace::passed(trace::WhyPassed::Absent);
        }
        passes
    }

    /// On a request that has a source of its own, whatever its header says.
    pub(crate) fn verdict_for_chosen(&self, uri: &Uri) -> Verdict {
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
        // A URI without an authority is for a connection that the caller chose, and so is one that
        // asks a proxy for a tunnel, where the token is for the proxy. A scheme that we do not know
        // is not known to be encrypted.
        let is_chosen = match uri.scheme() {
            Some(_) => false,
            None => uri.authority().is_none() || self.header == PROXY_AUTHORIZATION,
        };
        // With origins, the URI is within one of them.
        let is_named = !self.origins.is_empty();
        let is_private =
            is_chosen || scheme.is_some_and(|scheme| scheme.is_private(is_named, uri.authority()));
        if is_private || self.allow_plaintext || uri.authority().is_some_and(is_local) {
            Verdict::Carry
        } else {
            Verdict::Refuse
        }
    }

    /// Tells whether the headers had one of that name already. An error if they are full.
    ///
    /// Not inlined: the insertion is optimised better once, here, than in each user's crate.
    #[inline(never)]
    pub(crate) fn attach(
        &self,
        headers: &mut HeaderMap,
        token: &BearerToken,
    ) -> Result<bool, MaxSizeReached> {
        // Known when this is compiled, the name is hashed and compared for a third less.
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

    /// A full map takes no value for a name that it has either, so the name has to go first.
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
