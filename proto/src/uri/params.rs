//! `;name=value` lists, of URIs and of headers alike: an iterator over raw slices. Judges nothing but their shape.

use std::borrow::Cow;

/// One parameter as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param<'a> {
    /// The name, any case.
    pub name: &'a [u8],
    /// The value with its quotes, if it has any; `None` without `=`.
    pub value: Option<&'a [u8]>,
    /// The whole parameter from its `;` to the last byte of its value.
    pub raw: &'a [u8],
}

impl<'a> Param<'a> {
    /// Whether the parameter has this name; `name` is in lower case.
    #[must_use]
    #[inline]
    pub fn is(&self, name: &str) -> bool {
        is_word(self.name, name)
    }

    /// The value without quotes and backslashes; empty when there is none.
    #[must_use]
    pub fn text(&self) -> Cow<'a, [u8]> {
        unquoted(self.value.unwrap_or_default())
    }
}

/// Walks a parameter list: `;a;b=c;d="quoted;, \" string"`, white space and folds allowed around `;` and `=`. The first
/// `;` may be missing. Once it is exhausted, [`Params::malformed`] says whether all of the input had this shape.
#[derive(Debug, Clone)]
pub struct Params<'a> {
    rest: &'a [u8],
    first: bool,
    malformed: bool,
}

impl<'a> Params<'a> {
    /// A walk over `raw`.
    #[must_use]
    pub fn new(raw: &'a [u8]) -> Self {
        Self { rest: raw, first: true, malformed: false }
    }

    /// Whether something was met that is no parameter: an empty one, an empty value other than that of `expires`, an open or
    /// stray quote, bytes after a quoted string, `<` or `>` outside quotes.
    #[must_use]
    pub fn malformed(&self) -> bool {
        self.malformed
    }

    /// The first parameter of that name (in lower case).
    #[must_use]
    pub fn find(raw: &'a [u8], name: &str) -> Option<Param<'a>> {
        Self::new(raw).find(|param| param.is(name))
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        loop {
            let start = trim_start(self.rest);
            let rest = match start {
                [] => return None,
                [b';', rest @ ..] => trim_start(rest),
                _ if self.first => start,
                _ => {
                    self.malformed = true;
                    self.rest = from_semicolon(start);
                    continue;
                }
            };
            self.first = false;
            let (name, after_name) = self.run(rest, WHITE | SEMICOLON | EQUALS);
            let (value, after) = match trim_start(after_name) {
                [b'=', rest @ ..] => {
                    let (value, after) = self.value(trim_start(rest));
                    (Some(value), after)
                }
                _ => (None, after_name),
            };
            // A malformed `expires` is a default (RFC 3261 §10.3 step 7) and no reason to refuse all of it.
            self.malformed |= value.is_some_and(<[u8]>::is_empty) && !name.eq_ignore_ascii_case(b"expires");
            self.rest = after;
            if name.is_empty() {
                self.malformed = true;
                continue;
            }
            return Some(Param { name, value, raw: &start[..start.len() - after.len()] });
        }
    }
}

impl Params<'_> {
    /// The value at the start of `bytes`, and what follows.
    fn value<'b>(&mut self, bytes: &'b [u8]) -> (&'b [u8], &'b [u8]) {
        if let [b'"', ..] = bytes {
            let end = quoted_end(bytes, 0);
            self.malformed |= end.is_none();
            return bytes.split_at(end.unwrap_or(bytes.len()));
        }
        self.run(bytes, WHITE | SEMICOLON)
    }

    /// The bytes up to the first of one of the classes in `ends`, and what follows. Bytes that would change how the rest of a
    /// header is read, when they are copied into one, are not to be among them.
    fn run<'b>(&mut self, bytes: &'b [u8], ends: u8) -> (&'b [u8], &'b [u8]) {
        let mut met = 0;
        let end = bytes.iter().position(|byte| {
            let class = CLASS[usize::from(*byte)];
            met |= class;
            class & ends != 0
        });
        self.malformed |= met & BREAKS_OUT != 0;
        bytes.split_at(end.unwrap_or(bytes.len()))
    }
}

const WHITE: u8 = 1;
const SEMICOLON: u8 = 2;
const EQUALS: u8 = 4;
const BREAKS_OUT: u8 = 8;

/// What a byte outside quotes does to a list of parameters; 0 for nearly all.
const CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = match byte {
            b';' => SEMICOLON,
            b'=' => EQUALS,
            b'"' | b'<' | b'>' => BREAKS_OUT,
            _ if is_white(byte) => WHITE,
            _ => 0,
        };
        byte += 1;
    }
    table
};

/// Whether `text` is `word`, which is in lower case, in any case.
#[must_use]
#[inline]
pub fn is_word(text: &[u8], word: &str) -> bool {
    // Most are written in lower case, and to compare with a known text is cheap.
    text == word.as_bytes() || (text.len() == word.len() && is_word_in_any_case(text, word))
}

#[cold]
fn is_word_in_any_case(text: &[u8], word: &str) -> bool {
    text.eq_ignore_ascii_case(word.as_bytes())
}

/// Space, tab, and what is left of a fold.
#[must_use]
pub const fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Without white space at both ends.
#[must_use]
pub fn trim(bytes: &[u8]) -> &[u8] {
    let mut bytes = trim_start(bytes);
    while let [rest @ .., last] = bytes
        && is_white(*last)
    {
        bytes = rest;
    }
    bytes
}

fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_white(*first)
    {
        bytes = rest;
    }
    bytes
}

/// The index after the quote that closes the quoted string which opens at `open`; `None` if nothing closes it.
#[must_use]
pub fn quoted_end(bytes: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// A quoted string's text; anything else as it is.
#[must_use]
pub fn unquoted(value: &[u8]) -> Cow<'_, [u8]> {
    let [b'"', inner @ .., b'"'] = value else { return Cow::Borrowed(value) };
    if !inner.contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied();
    while let Some(byte) = bytes.next() {
        text.extend(if byte == b'\\' { bytes.next() } else { Some(byte) });
    }
    Cow::Owned(text)
}

fn from_semicolon(bytes: &[u8]) -> &[u8] {
    let at = bytes.iter().position(|byte| *byte == b';').unwrap_or(bytes.len());
    &bytes[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(raw: &str) -> (Vec<(&str, Option<&str>)>, bool) {
        let mut params = Params::new(raw.as_bytes());
        let text = |bytes| std::str::from_utf8(bytes).expect("ascii");
        let found = params.by_ref().map(|param| (text(param.name), param.value.map(text))).collect();
        (found, params.malformed())
    }

    #[test]
    fn values_may_hold_anything_that_the_grammar_allows() {
        let raw = r#";lr;gr=urn:uuid:f81d4fae;pn-prid=a/b$c&d ; expires = 60;+sip.instance="<urn:x;y,\"z>""#;
        let expected = vec![
            ("lr", None),
            ("gr", Some("urn:uuid:f81d4fae")),
            ("pn-prid", Some("a/b$c&d")),
            ("expires", Some("60")),
            ("+sip.instance", Some(r#""<urn:x;y,\"z>""#)),
        ];
        assert_eq!(walk(raw), (expected, false));
        assert_eq!(walk("received=2001:db8::1"), (vec![("received", Some("2001:db8::1"))], false));
    }

    #[test]
    fn what_is_no_parameter_is_noticed_and_stepped_over() {
        assert_eq!(walk(";;a"), (vec![("a", None)], true));
        assert_eq!(walk(";a;"), (vec![("a", None)], true));
        assert_eq!(walk(";a b;c"), (vec![("a", None), ("c", None)], true));
        assert_eq!(walk(";a=;c"), (vec![("a", Some("")), ("c", None)], true));
        assert_eq!(walk(r#";a="open;c"#), (vec![("a", Some(r#""open;c"#))], true));
        assert_eq!(walk(r#";a="x"y;c"#), (vec![("a", Some(r#""x""#)), ("c", None)], true));
        assert_eq!(walk(";a\"b;c"), (vec![("a\"b", None), ("c", None)], true));
        assert_eq!(walk(";a=<b>"), (vec![("a", Some("<b>"))], true));
        assert_eq!(walk(""), (vec![], false));
    }

    #[test]
    fn quotes_come_off_with_their_backslashes() {
        assert_eq!(&*unquoted(br#""a\"b\\c""#), br#"a"b\c"#);
        assert_eq!(&*unquoted(b"plain"), b"plain");
        assert_eq!(&*unquoted(b"\""), b"\"");
        assert_eq!(quoted_end(br#""a\""#, 0), None);
    }
}
