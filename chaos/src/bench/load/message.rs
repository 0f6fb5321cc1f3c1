//! Requests as phones and SBCs send them, of one length each, so that many fit one system call: a text with places for
//! what changes. It reads of an answer only its status and which request it answers.

use anyhow::{Context as _, bail, ensure};

/// A refresh or a new registration.
pub(super) const REGISTER: &str = "\
REGISTER sip:example.com SIP/2.0\r\n\
Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{branch}\r\n\
Max-Forwards: 69\r\n\
From: \"Extension {user}\" <sip:{user}@example.com>;tag=as{hex}\r\n\
To: \"Extension {user}\" <sip:{user}@example.com>\r\n\
Call-ID: 4b1f7c9a-{hex}-88d2-60f8c0a1e5b7@10.{a}.{b}.{c}\r\n\
CSeq: {cseq} REGISTER\r\n\
Contact: <sip:{user}@10.{a}.{b}.{c}:{at};transport=udp>;+sip.instance=\"<urn:uuid:f81d4fae-7dec-11d0-a765-0000{hex}>\";reg-id=1\r\n\
Path: <sip:sbc1@192.0.2.25:5060;lr;ob>\r\n\
User-Agent: Yealink SIP-T4{model}U 108.86.0.90\r\n\
Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, NOTIFY, REFER, UPDATE, MESSAGE\r\n\
Supported: path, outbound, replaces\r\n\
Expires: 3600\r\n\
Content-Length: 0\r\n\r\n";

/// A REGISTER that only asks (RFC 3261 §10.2.3).
pub(super) const QUERY: &str = "\
REGISTER sip:example.com SIP/2.0\r\n\
Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{branch}\r\n\
Max-Forwards: 69\r\n\
From: \"Extension {user}\" <sip:{user}@example.com>;tag=as{hex}\r\n\
To: \"Extension {user}\" <sip:{user}@example.com>\r\n\
Call-ID: 9e60c2d4-{branch}@10.{a}.{b}.{c}\r\n\
CSeq: 1 REGISTER\r\n\
User-Agent: Yealink SIP-T4{model}U 108.86.0.90\r\n\
Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, NOTIFY, REFER, UPDATE, MESSAGE\r\n\
Supported: path, outbound, replaces\r\n\
Content-Length: 0\r\n\r\n";

/// A call that wants to know where a phone is.
pub(super) const INVITE: &str = "\
INVITE sip:{user}@example.com SIP/2.0\r\n\
Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{branch}\r\n\
Max-Forwards: 69\r\n\
From: <sip:+4930901820@example.com>;tag=as{branch}\r\n\
To: <sip:{user}@example.com>\r\n\
Call-ID: 7d03a5e1-{branch}@198.51.100.17\r\n\
CSeq: 102 INVITE\r\n\
Contact: <sip:+4930901820@198.51.100.17:5060;transport=udp>\r\n\
Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE\r\n\
Content-Type: application/sdp\r\n\
Content-Length: 220\r\n\r\n\
v=0\r\no=- 3724394400 3724394401 IN IP4 198.51.100.17\r\ns=-\r\nc=IN IP4 198.51.100.17\r\nt=0 0\r\n\
m=audio 49172 RTP/AVP 9 8 0 101\r\na=rtpmap:9 G722/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=sendrecv\r\n\
a=ptime:20\r\n";

/// What acknowledges a final answer other than 2xx (RFC 3261 §17.1.1.3).
pub(super) const ACK: &str = "\
ACK sip:{user}@example.com SIP/2.0\r\n\
Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{branch}\r\n\
Max-Forwards: 69\r\n\
From: <sip:+4930901820@example.com>;tag=as{branch}\r\n\
To: <sip:{user}@example.com>;tag=z\r\n\
Call-ID: 7d03a5e1-{branch}@198.51.100.17\r\n\
CSeq: 102 ACK\r\n\
Content-Length: 0\r\n\r\n";

/// The first user: all have as many digits.
const FIRST_USER: u32 = 10_000_000;
/// The first CSeq, for the same reason.
pub(super) const FIRST_CSEQ: u32 = 100_000_000;
/// The first port of a phone.
const FIRST_AT: u32 = 10_000;
/// Kinds of phones.
const MODELS: u32 = 10;
/// Numbers in each of three parts of a phone's address, from 100 on.
const PART: u32 = 100;
/// Phones that the texts tell from one another: as many as there are users of so many digits.
pub const PHONES_MAX: u32 = 90_000_000;
/// What precedes our part of a branch (RFC 3261 §8.1.1.7).
const COOKIE: &[u8] = b"z9hG4bK";
/// Hexadecimal digits of our part.
const BRANCH_DIGITS: usize = 16;
/// Bytes of an answer in which its first Via ends.
const VIA_WITHIN: usize = 250;

/// What changes from one request to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Values {
    /// Which request it is; the answer brings it back.
    pub(super) branch: u64,
    /// Where answers go.
    pub(super) port: u16,
    /// Below [`PHONES_MAX`].
    pub(super) phone: u32,
    /// [`FIRST_CSEQ`] and above, of nine digits.
    pub(super) cseq: u32,
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Branch,
    Hex,
    /// A decimal number of so many digits, and what it is.
    Decimal(usize, fn(&Values) -> u32),
}

impl Field {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "branch" => Self::Branch,
            "hex" => Self::Hex,
            "port" => Self::Decimal(5, |values| values.port.into()),
            "user" => Self::Decimal(8, |values| FIRST_USER + values.phone),
            "cseq" => Self::Decimal(9, |values| values.cseq),
            "a" => Self::Decimal(3, |values| PART + values.phone / (PART * PART) % PART),
            "b" => Self::Decimal(3, |values| PART + values.phone / PART % PART),
            "c" => Self::Decimal(3, |values| PART + values.phone % PART),
            "model" => Self::Decimal(1, |values| values.phone % MODELS),
            "at" => Self::Decimal(5, |values| FIRST_AT + values.phone / (PART * PART * PART)),
            _ => return None,
        })
    }

    fn width(self) -> usize {
        match self {
            Self::Branch => BRANCH_DIGITS,
            Self::Hex => 8,
            Self::Decimal(digits, _) => digits,
        }
    }

    fn write(self, values: &Values, place: &mut [u8]) {
        match self {
            Self::Branch => hexadecimal(values.branch, place),
            Self::Hex => hexadecimal(values.phone.into(), place),
            Self::Decimal(_, number) => {
                let mut rest = number(values);
                for digit in place.iter_mut().rev() {
                    *digit = b'0' + (rest % 10) as u8;
                    rest /= 10;
                }
            }
        }
    }
}

fn hexadecimal(mut rest: u64, place: &mut [u8]) {
    for digit in place.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
    }
}

/// A text and its places.
#[derive(Debug)]
pub(super) struct Template {
    bytes: Vec<u8>,
    fields: Vec<(usize, Field)>,
}

impl Template {
    /// Of a text with names of fields in braces.
    ///
    /// # Errors
    /// When a name is unknown, a brace is not closed, or Content-Length is not what it says.
    pub(super) fn new(text: &str) -> anyhow::Result<Self> {
        let (mut bytes, mut fields, mut rest) = (Vec::new(), Vec::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').context("a field without an end")?;
            let Some(field) = Field::named(name) else { bail!("no field is named {name}") };
            bytes.extend_from_slice(before.as_bytes());
            fields.push((bytes.len(), field));
            bytes.resize(bytes.len() + field.width(), b'0');
            rest = after;
        }
        bytes.extend_from_slice(rest.as_bytes());
        let (head, body) = text.split_once("\r\n\r\n").context("a request without an end")?;
        let length =
            head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).context("no Content-Length")?;
        ensure!(length.parse::<usize>()? == body.len(), "the body has {} bytes, not {length}", body.len());
        Ok(Self { bytes, fields })
    }

    /// Its length with every field filled in.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends it with these values. Allocates nothing where there is room.
    pub(super) fn write(&self, values: &Values, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&self.bytes);
        let message = &mut out[begin..];
        for (at, field) in &self.fields {
            field.write(values, &mut message[*at..*at + field.width()]);
        }
    }
}

/// Status of an answer, and the branch of the request that it answers; `None` for anything else.
pub(super) fn answer(bytes: &[u8]) -> Option<(u16, u64)> {
    let status = bytes.strip_prefix(b"SIP/2.0 ")?.get(..3)?;
    let status = status.iter().try_fold(0, |sum, digit| Some(sum * 10 + u16::from(digit.checked_sub(b'0')?)))?;
    let head = &bytes[..bytes.len().min(VIA_WITHIN)];
    // The cookie's first letter is rare in what precedes it; its search is a quick one.
    let mut from = 0;
    loop {
        from += head[from..].iter().position(|byte| *byte == COOKIE[0])?;
        if let Some(rest) = head[from..].strip_prefix(COOKIE) {
            return Some((status, branch(rest.get(..BRANCH_DIGITS)?)?));
        }
        from += 1;
    }
}

fn branch(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values =
        Values { branch: 0x00ab_cdef_0123_4567, port: 40_123, phone: 1_234_567, cseq: FIRST_CSEQ + 7 };

    fn text(template: &str, values: &Values) -> String {
        let template = Template::new(template).expect("sound");
        let mut out = Vec::new();
        template.write(values, &mut out);
        assert_eq!(out.len(), template.len());
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn requests_are_whole_and_about_700_bytes() {
        let register = text(REGISTER, &VALUES);
        assert!(register.contains("<sip:11234567@10.123.145.167:10001;transport=udp>"), "{register}");
        assert!(
            register.contains("branch=z9hG4bK00abcdef01234567\r\n") && register.contains("CSeq: 100000007 REGISTER")
        );
        assert!(register.contains("-00000012d687>\"") && register.contains("127.0.0.1:40123;branch"));
        for (template, bytes) in [(REGISTER, 650..750), (QUERY, 450..550), (INVITE, 650..750), (ACK, 300..350)] {
            let text = text(template, &VALUES);
            assert!(!text.contains(['{', '}']) && bytes.contains(&text.len()), "{} bytes: {text}", text.len());
        }
    }

    #[test]
    fn no_two_phones_are_alike() {
        let all = [0, 1, 99, 100, 9_999, 10_000, 999_999, 1_000_000, PHONES_MAX - 1];
        let texts = all.map(|phone| text(REGISTER, &Values { phone, ..VALUES }));
        let mut contacts = texts.each_ref().map(|text| text.split("Contact: ").nth(1).expect("there").to_owned());
        contacts.sort();
        assert!(contacts.windows(2).all(|two| two[0] != two[1]));
        assert!(texts.iter().all(|text| text.len() == texts[0].len()));
    }

    #[test]
    fn an_answer_names_its_request() {
        let reply =
            b"SIP/2.0 302 Moved Temporarily\r\nVia: SIP/2.0/UDP z9.example:1;branch=z9hG4bK00abcdef01234567;x\r\n";
        assert_eq!(answer(reply), Some((302, VALUES.branch)));
        assert_eq!(answer(&reply[..90]), None);
        assert_eq!(answer(b"OPTIONS sip:x SIP/2.0\r\n"), None);
        assert_eq!(answer(b"SIP/2.0 2"), None);
        assert_eq!(answer(b""), None);
    }

    #[test]
    fn a_wrong_template_is_refused() {
        assert!(Template::new("A {what}\r\n\r\n").is_err());
        assert!(Template::new("A {user\r\n\r\n").is_err());
        assert!(Template::new("A\r\nContent-Length: 3\r\n\r\nxx").is_err());
    }
}
