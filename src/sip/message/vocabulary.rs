//! Words of SIP as rsip has them: methods and reason phrases. For what is sent; nothing received is judged by it.

use std::sync::LazyLock;

use rsip::{Method, StatusCode};

/// The methods this server answers itself with something else than 405, as an Allow header lists them.
const ALLOWED: [Method; 6] =
    [Method::Register, Method::Invite, Method::Ack, Method::Cancel, Method::Options, Method::Bye];

/// The value of an Allow header.
#[must_use]
pub fn allow() -> String {
    ALLOWED.map(|method| method.to_string()).join(", ")
}

/// The reason phrase of a status code (RFC 3261 §21): `404` → `Not Found`.
#[must_use]
pub fn phrase(status: u16) -> &'static str {
    static PHRASES: LazyLock<Vec<String>> = LazyLock::new(|| (0..700).map(spaced).collect());
    PHRASES.get(usize::from(status)).map_or(UNKNOWN, String::as_str)
}

const UNKNOWN: &str = "Unknown";

/// rsip prints a phrase as one word, "404 NotFound": puts the spaces back.
fn spaced(status: u16) -> String {
    let code = StatusCode::from(status);
    if matches!(code, StatusCode::Other(..)) {
        return UNKNOWN.to_owned();
    }
    let printed = code.to_string();
    let word = printed.split_once(' ').map_or(printed.as_str(), |(_, word)| word);
    let mut phrase = String::with_capacity(word.len() + 4);
    let mut before = ' ';
    for letter in word.chars() {
        if letter.is_ascii_uppercase() && before.is_ascii_lowercase() {
            phrase.push(' ');
        }
        phrase.push(letter);
        before = letter;
    }
    phrase
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_those_of_the_rfc() {
        for (status, text) in [
            (100, "Trying"),
            (200, "OK"),
            (302, "Moved Temporarily"),
            (404, "Not Found"),
            (423, "Interval Too Brief"),
            (480, "Temporarily Unavailable"),
            (503, "Service Unavailable"),
            (299, "Unknown"),
        ] {
            assert_eq!(phrase(status), text);
        }
    }

    #[test]
    fn methods() {
        assert_eq!(allow(), "REGISTER, INVITE, ACK, CANCEL, OPTIONS, BYE");
    }
}
