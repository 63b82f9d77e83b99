//! Reads the parameters of Bearer challenges (RFC 9110 §11.6.1), even where a server breaks the RFC.

#[cfg(test)]
mod tests;

use http::HeaderValue;

/// The parameters of all Bearer challenges, in order. The lines of a field form a single list
/// (RFC 9110 §5.3), so a challenge may go on in the next line.
pub(crate) fn bearer_parameters<'a>(
    lines: impl IntoIterator<Item = &'a HeaderValue>,
) -> impl Iterator<Item = Parameter<'a>> {
    let items = lines
        .into_iter()
        .flat_map(|line| Scanner::new(line.as_bytes()));
    let mut is_bearer = false;
    items.filter_map(move |item| match item {
        Item::Scheme(scheme) => {
            is_bearer = scheme.eq_ignore_ascii_case(b"Bearer");
            None
        }
        Item::Parameter(parameter) => is_bearer.then_some(parameter),
    })
}

#[derive(Clone, Copy)]
pub(crate) struct Parameter<'a> {
    name: &'a [u8],
    /// Without its quotes, with its escapes. Empty if the closing quote is missing.
    value: &'a [u8],
    is_quoted: bool,
}

impl Parameter<'_> {
    /// Compares names without regard to case (RFC 9110 §11.2).
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// Whether the value is this text, without regard to case.
    pub(crate) fn says(&self, text: &str) -> bool {
        let bytes = self.unescaped().map(|byte| byte.to_ascii_lowercase());
        bytes.eq(text.bytes().map(|byte| byte.to_ascii_lowercase()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.unescaped().collect::<Vec<_>>()).into_owned()
    }

    fn unescaped(&self) -> impl Iterator<Item = u8> {
        let may_escape = self.is_quoted;
        let mut escaped = false;
        self.value.iter().copied().filter(move |&byte| {
            escaped = may_escape && byte == b'\\' && !escaped;
            !escaped
        })
    }
}

enum Item<'a> {
    Scheme(&'a [u8]),
    Parameter(Parameter<'a>),
}

/// Splits a field value into its items.
///
/// The scanner never goes back, so the time is proportional to the length of the value.
struct Scanner<'a> {
    rest: &'a [u8],
    /// How often the scanner has looked at a byte. A byte counts again each time it ends a part of an item.
    #[cfg(test)]
    looks: usize,
}

impl<'a> Scanner<'a> {
    fn new(value: &'a [u8]) -> Self {
        Self {
            rest: value,
            #[cfg(test)]
            looks: 0,
        }
    }

    fn take_while(&mut self, mut goes_on: impl FnMut(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|&byte| !goes_on(byte));
        let (taken, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        #[cfg(test)]
        {
            self.looks += taken.len() + usize::from(end.is_some());
        }
        self.rest = rest;
        taken
    }

    /// Takes the next byte if it is `byte`.
    fn take(&mut self, byte: u8) -> bool {
        let rest = self.rest.strip_prefix(&[byte]);
        #[cfg(test)]
        {
            self.looks += 1;
        }
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// The rest of a quoted text after its opening quote. `None` if the closing quote is missing.
    fn quoted(&mut self, quote: u8) -> Option<&'a [u8]> {
        let mut escaped = false;
        let text = self.take_while(|byte| {
            let goes_on = escaped || byte != quote;
            escaped = byte == b'\\' && !escaped;
            goes_on
        });
        self.take(quote).then_some(text)
    }

    /// Reads the value after `name` and the equals sign. Single quotes are in no RFC; some servers send them.
    fn parameter(&mut self, name: &'a [u8]) -> Parameter<'a> {
        self.take_while(is_space);
        let quote = [b'"', b'\''].into_iter().find(|&quote| self.take(quote));
        let value = match quote {
            Some(quote) => self.quoted(quote).unwrap_or_default(),
            None => self.take_while(|byte| !is_separator(byte)),
        };
        Parameter {
            name,
            value,
            is_quoted: quote.is_some(),
        }
    }
}

impl<'a> Iterator for Scanner<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        loop {
            self.take_while(is_separator);
            let word = self.take_while(|byte| !is_separator(byte) && byte != b'=' && byte != b'"');
            let is_apart = !self.take_while(is_space).is_empty();
            if self.take(b'=') {
                return Some(Item::Parameter(self.parameter(word)));
            }
            // A quote next to a word is a sign of unescaped quotes: `realm="the "admin" area"`.
            if !is_apart && self.take(b'"') {
                self.quoted(b'"');
            } else if word.is_empty() {
                return None;
            } else {
                return Some(Item::Scheme(word));
            }
        }
    }
}

fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn is_separator(byte: u8) -> bool {
    is_space(byte) || byte == b',' || byte == b';'
}
