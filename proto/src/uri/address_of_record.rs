//! From a URI to whose contacts it means (RFC 3261 §10.3 step 5). Decides by configured rules, never by asking DNS.

use std::collections::{BTreeMap, BTreeSet};

use super::canonical::{is_separator, push_host, push_number};
use super::escape::{push_escape, unescape};
use super::{Host, Scheme, StackBytes, Uri, host_port};
use crate::aor::{AOR_BYTES_MAX, Aor};

/// A host in its one spelling, as bytes: what a URI has.
type Domain = StackBytes<64>;

/// How URIs become addresses of record on this cluster; the same on every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AorRules {
    domains: BTreeSet<Domain>,
    aliases: BTreeMap<Domain, Domain>,
    tel_domain: Option<Domain>,
    case_sensitive: bool,
}

impl Default for AorRules {
    fn default() -> Self {
        Self { domains: BTreeSet::new(), aliases: BTreeMap::new(), tel_domain: None, case_sensitive: true }
    }
}

/// The text of an AoR that nobody keeps: what a look-up needs. On the stack, but for the longest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AorText(StackBytes<96>);

impl AorText {
    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn push_str(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    fn push(&mut self, letter: char) {
        self.push_str(letter.encode_utf8(&mut [0; 4]));
    }

    fn escape(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| push_escape(&mut self.0, *byte));
    }
}

/// Why a URI names no AoR of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AorError {
    /// The scheme is not sip, sips or tel: 416.
    #[error("unsupported URI scheme")]
    Scheme,
    /// The URI has no user.
    #[error("no user in the address of record")]
    NoUser,
    /// A domain that is not among the configured ones: 404 for a REGISTER (RFC 3261 §10.3 step 1).
    #[error("foreign domain")]
    ForeignDomain,
    /// A `tel:` number that leads to no domain: global without a configured domain, or local without a domain as context.
    #[error("telephone number without a domain")]
    NoTelDomain,
    /// Longer than [`AOR_BYTES_MAX`].
    #[error("address of record too long")]
    TooLong,
}

impl AorRules {
    /// `domains` served (none = any), `aliases` host → domain, the domain of global `tel:` numbers, and whether users
    /// differ by case. Hosts are names or addresses in any spelling, IPv6 in brackets, without port.
    ///
    /// # Errors
    /// With the first text that is no host.
    pub fn new<'a>(
        domains: impl IntoIterator<Item = &'a str>,
        aliases: impl IntoIterator<Item = (&'a str, &'a str)>,
        tel_domain: Option<&str>,
        case_sensitive: bool,
    ) -> Result<Self, String> {
        let domains = domains.into_iter().map(canonical_domain).collect::<Result<_, _>>()?;
        let aliases = aliases
            .into_iter()
            .map(|(host, domain)| Ok((canonical_domain(host)?, canonical_domain(domain)?)))
            .collect::<Result<_, String>>()?;
        let tel_domain = tel_domain.map(canonical_domain).transpose()?;
        Ok(Self { domains, aliases, tel_domain, case_sensitive })
    }

    /// An AoR as an operator writes it: `alice@example.com`, `sip:alice@example.com` or `tel:+1-201-555-0123`.
    ///
    /// # Errors
    /// As [`aor`]; a text that is no URI either is [`AorError::Scheme`].
    pub fn read(&self, text: &str) -> Result<Aor, AorError> {
        if let Ok(uri) = Uri::parse(text.as_bytes())
            && uri.scheme != Scheme::Other
        {
            return aor(&uri, self);
        }
        // Not a URI: the canonical text itself, whose user may hold bytes that a URI escapes, and has escapes of its own.
        let (user, domain) = text.rsplit_once('@').ok_or(AorError::Scheme)?;
        let host = canonical_domain(domain).map_err(|_| AorError::Scheme)?;
        self.place(&unescape(user.as_bytes()), &host).map(|text| Aor::from_canonical(text.as_str()))
    }

    /// Whether `host` is one of `domains` or `aliases`; false for every host when neither is configured.
    #[must_use]
    pub fn names(&self, host: Host<'_>) -> bool {
        let name = domain(host);
        self.domains.contains(&name) || self.aliases.contains_key(&name)
    }

    /// Whether a REGISTER sent to the registrar at `host` may be for `aor` (RFC 3261 §10.3 steps 1 and 5): a domain that is
    /// served takes its own AoRs, an alias takes those of every domain that is served. Any pair if no domain is configured.
    #[must_use]
    pub fn admits(&self, host: Host<'_>, aor: &Aor) -> bool {
        if self.domains.is_empty() {
            return true;
        }
        let name = domain(host);
        let domain = aor.as_str().rsplit_once('@').map(|(_, domain)| domain.as_bytes());
        self.aliases.contains_key(&name) || (self.domains.contains(&name) && domain == Some(&name))
    }

    fn place(&self, user: &[u8], host: &Domain) -> Result<AorText, AorError> {
        let domain = self.aliases.get(host).unwrap_or(host);
        if !self.domains.is_empty() && !self.domains.contains(domain) {
            return Err(AorError::ForeignDomain);
        }
        self.spell(user, domain)
    }

    /// `user@domain`. The user's bytes are text as far as they are UTF-8; controls, `%` and other bytes stay escaped, so
    /// that different users never share a text and the text is fit for a line of a log.
    fn spell(&self, user: &[u8], domain: &Domain) -> Result<AorText, AorError> {
        if user.is_empty() {
            return Err(AorError::NoUser);
        }
        if user.len() + 1 + domain.len() > AOR_BYTES_MAX {
            return Err(AorError::TooLong);
        }
        let mut text = AorText::default();
        let is_plain = |byte: &u8| (b' '..0x7f).contains(byte) && *byte != b'%';
        if user.iter().all(|byte| is_plain(byte) && (self.case_sensitive || !byte.is_ascii_uppercase())) {
            text.0.extend_from_slice(user);
        } else {
            self.spell_user(user, &mut text);
        }
        text.push('@');
        text.0.extend_from_slice(domain);
        if text.0.len() > AOR_BYTES_MAX { Err(AorError::TooLong) } else { Ok(text) }
    }

    fn spell_user(&self, user: &[u8], text: &mut AorText) {
        for chunk in user.utf8_chunks() {
            for letter in chunk.valid().chars() {
                match letter {
                    '%' => text.push_str("%25"),
                    _ if letter.is_control() => text.escape(letter.encode_utf8(&mut [0; 4]).as_bytes()),
                    _ if self.case_sensitive => text.push(letter),
                    _ => text.push(letter.to_ascii_lowercase()),
                }
            }
            text.escape(chunk.invalid());
        }
    }
}

/// The address of record that `uri` means: user unescaped, password, port, parameters and headers dropped, host in lower
/// case and through the aliases; so sip and sips are one. With `user=phone`, and for `tel:`, visual separators go from
/// what is a number; global `tel:` numbers belong to the configured domain, local ones to a context that is a domain.
///
/// # Errors
/// When the URI names no AoR of ours; see [`AorError`].
pub fn aor(uri: &Uri<'_>, rules: &AorRules) -> Result<Aor, AorError> {
    aor_text(uri, rules).map(|text| Aor::from_canonical(text.as_str()))
}

/// The text of [`aor`], for who only looks it up.
///
/// # Errors
/// When the URI names no AoR of ours; see [`AorError`].
pub fn aor_text(uri: &Uri<'_>, rules: &AorRules) -> Result<AorText, AorError> {
    match uri.scheme {
        Scheme::Other => Err(AorError::Scheme),
        Scheme::Tel => tel(uri, rules),
        Scheme::Sip | Scheme::Sips => {
            let user = unescape(uri.user.ok_or(AorError::NoUser)?);
            let host = &domain(uri.host);
            let phone = uri.param("user").is_some_and(|param| param.text().eq_ignore_ascii_case(b"phone"));
            let number_end = user.iter().position(|byte| *byte == b';').unwrap_or(user.len());
            let (number, parameters) = user.split_at(number_end);
            if phone && is_number(number) {
                let mut bare = Vec::with_capacity(user.len());
                push_number(&mut bare, number);
                bare.extend(parameters);
                return rules.place(&bare, host);
            }
            rules.place(&user, host)
        }
    }
}

fn tel(uri: &Uri<'_>, rules: &AorRules) -> Result<AorText, AorError> {
    let mut number = Vec::new();
    push_number(&mut number, &unescape(uri.user.unwrap_or_default()));
    if number.first() == Some(&b'+') {
        return rules.spell(&number, rules.tel_domain.as_ref().ok_or(AorError::NoTelDomain)?);
    }
    let context = uri.param("phone-context").map(|param| param.text()).ok_or(AorError::NoTelDomain)?;
    let context = std::str::from_utf8(&context).map_err(|_| AorError::NoTelDomain)?;
    let domain = canonical_domain(context).map_err(|_| AorError::NoTelDomain)?;
    rules.place(&number, &domain)
}

/// Only digits, `*`, `#` and separators after an optional `+`: firmware that adds `user=phone` to every URI must not turn
/// `john.doe` into `johndoe`.
fn is_number(user: &[u8]) -> bool {
    let digits = user.strip_prefix(b"+").unwrap_or(user);
    digits.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'*' | b'#') || is_separator(*byte))
        && digits.iter().any(|byte| !is_separator(*byte))
}

fn domain(host: Host<'_>) -> Domain {
    let mut domain = Domain::new();
    push_host(&mut domain, host);
    domain
}

fn canonical_domain(text: &str) -> Result<Domain, String> {
    match host_port(text.as_bytes()) {
        Ok((host, None, [])) => Ok(domain(host)),
        _ => Err(format!("'{text}' is no host: a name or an address, IPv6 in brackets, without port")),
    }
}
