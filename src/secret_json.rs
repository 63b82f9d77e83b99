//! Reads the members of a JSON object without leaving a copy of a secret: [`Object`].
//!
//! `serde_json` resolves escapes in a buffer that is not wiped, and some of its errors quote the
//! text. So this module uses `serde_json` only to find where a value ends. For that, `serde_json`
//! copies no string.

use secrecy::zeroize::Zeroizing;
use serde_json::{Deserializer, value::RawValue};

/// The members of an object, as they stand in its text.
pub(crate) struct Object<'a>(Vec<(&'a str, &'a str)>);

pub(crate) struct NotAString;

impl<'a> Object<'a> {
    /// `None` if the text is not a single JSON object. Skips a byte order mark before the object,
    /// since editors write such marks (RFC 8259 §8.1).
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rest = after_space(after_space(text).strip_prefix('{')?);
        let mut members = Vec::new();
        let mut more = !rest.starts_with('}');
        while more {
            let (name, after) = split_value(rest)?;
            let (value, after) = split_value(after.strip_prefix(':')?)?;
            members.push((unquote(name)?, value));
            more = after.starts_with(',');
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        let end = after_space(rest.strip_prefix('}')?);
        end.is_empty().then_some(Self(members))
    }

    /// The text of a member, or `None` if the member is `null` or absent.
    pub(crate) fn string(&self, name: &str) -> Result<Option<Zeroizing<String>>, NotAString> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => unquote(value)
                .and_then(unescape)
                .map(Some)
                .ok_or(NotAString),
        }
    }

    /// The number of a member that is a number, or a string that holds a number.
    #[cfg(feature = "oauth2")]
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        let value = self.value(name)?;
        unquote(value).unwrap_or(value).trim().parse().ok()
    }

    /// Whether there is such a member that is not `null`.
    #[cfg(feature = "oauth2")]
    pub(crate) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The JSON text of a member, unless the member is `null` or absent. Of two members with the same
    /// name, the last counts, as in Python.
    fn value(&self, name: &str) -> Option<&'a str> {
        let is_named = |escaped| unescape(escaped).is_some_and(|text| *text == name);
        let mut members = self.0.iter().rev();
        let (_, value) = members.find(|(escaped, _)| is_named(escaped))?;
        (*value != "null").then_some(*value)
    }
}

/// The value at the start of a text, and the text after it.
fn split_value(text: &str) -> Option<(&str, &str)> {
    let mut values = Deserializer::from_str(text).into_iter::<&RawValue>();
    let value = values.next()?.ok()?.get();
    Some((value, after_space(&text[values.byte_offset()..])))
}

fn unquote(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

fn after_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r'])
}

/// Resolves the escapes of a JSON string that has been checked (RFC 8259 §7), in a buffer that does
/// not grow. `None` for an unpaired surrogate.
fn unescape(escaped: &str) -> Option<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(escaped.len()));
    let mut rest = escaped;
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        let mut after = escape.chars();
        let c = match after.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (c, length) = unescape_utf16(escape.get(1..)?)?;
                after = escape.get(1 + length..)?.chars();
                c
            }
            c => c,
        };
        text.push(c);
        rest = after.as_str();
    }
    text.push_str(rest);
    Some(text)
}

/// The character of `XXXX` or `XXXX\uXXXX`, and how many bytes of the text it took.
fn unescape_utf16(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| u16::from_str_radix(text.get(at..at + 4)?, 16).ok();
    let high = unit(0)?;
    if let Some(c) = char::from_u32(high.into()) {
        return Some((c, 4));
    }
    text.get(4..6).filter(|&prefix| prefix == "\\u")?;
    let pair = char::decode_utf16([high, unit(6)?]).next()?.ok()?;
    Some((pair, 10))
}

#[cfg(test)]
mod tests;
