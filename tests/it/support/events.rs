//! The spans and events of `tracing` on a thread.

use std::{
    fmt::{Debug, Write as _},
    sync::{Arc, LazyLock, Mutex},
};

use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

pub(crate) const REJECTED: &str = "DEBUG tower_bearer message=a server rejected the token";
pub(crate) const REPLACED: &str = "DEBUG tower_bearer message=the source has another token, so the rejected request can be retried";
pub(crate) const NOT_REPLACED: &str =
    "DEBUG tower_bearer message=the source has no other token for the rejected request";

/// Keeps the spans and events of this thread, as text.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

/// While there is a single subscriber, tracing-core asks only the thread that first reaches an event whether the
/// event is wanted. Another thread without a subscriber would then silence the event for every thread. A second
/// subscriber, which is no thread's, prevents that.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Log::default()));

impl Log {
    /// The spans and events that are recorded while `f` runs, of any level and from any crate.
    pub(crate) fn of(f: impl FnOnce()) -> Vec<String> {
        LazyLock::force(&SECOND);
        let log = Self::default();
        tracing::subscriber::with_default(log.clone(), f);
        let lines = log.0.lock().unwrap();
        lines.clone()
    }

    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut line = Line(format!("{} {}", metadata.level(), metadata.target()));
        event.record(&mut line);
        self.add(line.0);
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut line = Line(format!("span {}", attributes.metadata().name()));
        attributes.record(&mut line);
        self.add(line.0);
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        let mut line = Line("record".into());
        values.record(&mut line);
        self.add(line.0);
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}
