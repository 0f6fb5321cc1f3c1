//! What an operator decides about answers. Built from the configuration by who starts the node.

use std::borrow::Cow;
use std::net::{Ipv6Addr, SocketAddr};

use aorta_proto::NodeId;
use aorta_proto::uri::AorRules;

use crate::config::{Config, NotReadyOptions, PathInRedirect, PathMode};
use crate::registrar::RegistrarLimits;

/// The settings of a [`super::Uas`].
#[derive(Debug, Clone)]
pub struct UasSettings {
    /// This node, as bindings name the one that accepted them.
    pub node: NodeId,
    /// Which URIs mean which AoR.
    pub rules: AorRules,
    /// What a REGISTER may ask for.
    pub limits: RegistrarLimits,
    /// `path_mode`. A Path is stored in any case.
    pub path_mode: PathMode,
    /// `path_in_redirect`.
    pub path_in_redirect: PathInRedirect,
    /// `redirect_multiple`: 302 or 300.
    pub redirect_multiple: u16,
    /// `no_binding_status`: 404 or 480.
    pub no_binding_status: u16,
    /// `probe_users`, unescaped.
    pub probe_users: Vec<String>,
    /// `not_ready_options`.
    pub not_ready_options: NotReadyOptions,
    /// `retry_after_s`, in the 503 to OPTIONS.
    pub retry_after_s: u32,
    /// Where SIP is served: `sip.listen` as bound. The address that a request came to counts as one in any case.
    pub own_addresses: Vec<SocketAddr>,
    /// `sip.ack_header`.
    pub ack_header: bool,
    /// Key of To-tags, the same on every node of a cluster: then another node answers a retransmission with the same tag.
    pub tag_key: [u8; 16],
}

impl UasSettings {
    /// The settings of a node of this name that serves SIP at `own_addresses`; `rules` are those of [`aor_rules`].
    #[must_use]
    pub fn from_config(
        config: &Config,
        node: NodeId,
        rules: AorRules,
        own_addresses: Vec<SocketAddr>,
        tag_key: [u8; 16],
    ) -> Self {
        Self {
            rules,
            limits: RegistrarLimits {
                expires_min_s: config.expires_min_s,
                expires_default_s: config.expires_default_s,
                expires_max_s: config.expires_max_s,
                max_contacts_per_aor: config.max_contacts_per_aor,
                entries_per_aor_max: config.entries_per_aor_max,
                ..RegistrarLimits::default()
            },
            path_mode: config.path_mode,
            path_in_redirect: config.path_in_redirect,
            redirect_multiple: config.redirect_multiple,
            no_binding_status: config.no_binding_status,
            probe_users: config.probe_users.clone(),
            not_ready_options: config.not_ready_options,
            retry_after_s: config.retry_after_s,
            own_addresses,
            ack_header: config.sip.ack_header,
            tag_key,
            node,
        }
    }

    /// The defaults of the configuration, for a node of this name.
    #[must_use]
    pub fn of(node: NodeId) -> Self {
        Self {
            node,
            rules: AorRules::default(),
            limits: RegistrarLimits::default(),
            path_mode: PathMode::Lazy,
            path_in_redirect: PathInRedirect::Route,
            redirect_multiple: 302,
            no_binding_status: 404,
            probe_users: Vec::new(),
            not_ready_options: NotReadyOptions::Unavailable,
            retry_after_s: 2,
            own_addresses: Vec::new(),
            ack_header: false,
            tag_key: [0; 16],
        }
    }
}

fn bracketed(host: &str) -> Cow<'_, str> {
    if host.parse::<Ipv6Addr>().is_ok() { Cow::Owned(format!("[{host}]")) } else { Cow::Borrowed(host) }
}

/// How phones' and operators' URIs become AoRs, as a configuration has it. There an IPv6 address needs no brackets; in a
/// URI it has them.
///
/// # Errors
/// Names the domain, alias or `tel_domain` that is no host.
pub fn aor_rules(config: &Config) -> Result<AorRules, String> {
    let domains: Vec<Cow<'_, str>> = config.domains.iter().map(|domain| bracketed(domain)).collect();
    let aliases: Vec<(Cow<'_, str>, Cow<'_, str>)> =
        config.domain_aliases.iter().map(|(host, domain)| (bracketed(host), bracketed(domain))).collect();
    let tel_domain = config.tel_domain.as_deref().map(bracketed);
    let rules = AorRules::new(
        domains.iter().map(|domain| &**domain),
        aliases.iter().map(|(host, domain)| (&**host, &**domain)),
        tel_domain.as_deref(),
        config.aor_case_sensitive,
    );
    rules.map_err(|why| format!("domains, domain_aliases or tel_domain: {why}"))
}

#[cfg(test)]
mod tests {
    use aorta_proto::uri::{Uri, aor};

    use super::*;

    #[test]
    fn domains_and_aliases_may_be_addresses_of_both_kinds() {
        let set = [
            "domains=[\"example.com\", \"2001:db8::5\", \"[2001:db8::6]\"]",
            "domain_aliases={\"2001:db8::1\" = \"example.com\", \"192.0.2.1\" = \"2001:db8::5\"}",
            "expires_min_s=30",
        ];
        let config = Config::load(None, &set.map(str::to_owned)).expect("a configuration");
        let node = NodeId::new("n").expect("a node id");
        let rules = aor_rules(&config).expect("hosts");
        let settings = UasSettings::from_config(&config, node, rules, Vec::new(), [0; 16]);
        assert_eq!((settings.limits.expires_min_s, settings.limits.max_contacts_per_aor), (30, 10));
        for (uri, expected) in [
            ("sip:a@[2001:DB8::1]:5060", "a@example.com"),
            ("sip:a@example.com", "a@example.com"),
            ("sip:a@192.0.2.1", "a@[2001:db8::5]"),
            ("sip:a@[2001:db8:0::6]", "a@[2001:db8::6]"),
        ] {
            let uri = Uri::parse(uri.as_bytes()).expect("a URI");
            assert_eq!(aor(&uri, &settings.rules).expect("an AoR").as_str(), expected);
        }
    }
}
