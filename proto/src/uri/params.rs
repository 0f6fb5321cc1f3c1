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
            let mut at = skip_white(self.rest, 0);
            let semicolon = self.rest.get(at) == Some(&b';');
            if at == self.rest.len() {
                return None;
            }
            let start = at;
            if semicolon {
                at = skip_white(self.rest, at + 1);
            } else if !self.first {
                self.malformed = true;
                at = next_semicolon(self.rest, at);
                self.rest = self.rest.get(at..).unwrap_or_default();
                continue;
            }
            self.first = false;
            let name_end = self.run_end(at, WHITE | SEMICOLON | EQUALS);
            let name = self.rest.get(at..name_end).unwrap_or_default();
            at = skip_white(self.rest, name_end);
            let (value, end) = if self.rest.get(at) == Some(&b'=') {
                let value_start = skip_white(self.rest, at + 1);
                let value_end = self.value_end(value_start);
                (self.rest.get(value_start..value_end), value_end)
            } else {
                (None, name_end)
            };
            // A malformed `expires` is a default (RFC 3261 §10.3 step 7) and no reason to refuse all of it.
            self.malformed |= value.is_some_and(<[u8]>::is_empty) && !name.eq_ignore_ascii_case(b"expires");
            let raw = self.rest.get(start..end).unwrap_or_default();
            self.rest = self.rest.get(end..).unwrap_or_default();
            if name.is_empty() {
                self.malformed = true;
                continue;
            }
            return Some(Param { name, value, raw });
        }
    }
}

impl Params<'_> {
    fn value_end(&mut self, start: usize) -> usize {
        if self.rest.get(start) == Some(&b'"') {
            let end = quoted_end(self.rest, start);
            self.malformed |= end.is_none();
            return end.unwrap_or(self.rest.len());
        }
        self.run_end(start, WHITE | SEMICOLON)
    }

    /// Where the run of bytes from `start` meets one of the classes in `ends`. Bytes that would change how the rest of a
    /// header is read, when they are copied into one, are not to be among them.
    fn run_end(&mut self, start: usize, ends: u8) -> usize {
        let mut at = start;
        while let Some(byte) = self.rest.get(at) {
            let class = CLASS[usize::from(*byte)];
            if class & ends != 0 {
                break;
            }
            self.malformed |= class & BREAKS_OUT != 0;
            at += 1;
        }
        at
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
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_white(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_white(*last)
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

fn skip_white(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(|byte| is_white(*byte)) {
        at += 1;
    }
    at
}

fn next_semicolon(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().position(|byte| *byte == b';').map_or(bytes.len(), |offset| at + offset)
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
