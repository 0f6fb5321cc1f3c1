//! What keys say together: combinations that cannot work, would mislead, or are not built yet.

use std::path::Path;

use super::bounds;
use super::mistake::Place;
use super::source::Source;
use super::{Config, LookupMode, PathInRedirect, SipTransport};

/// Most bytes that one AoR's record may reach; it travels in parts, but a node holds and hashes it whole.
const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Least `memory_max_mb` that is one: the buckets of a table that holds next to nothing take 5 MB.
const MEMORY_MAX_MB_MIN: u64 = 8;

/// Adds every mistake that only the whole shows.
pub(super) fn check(config: &Config, source: &mut Source) {
    let mut checks = Checks { source };
    checks.lifetimes(config);
    checks.limits(config);
    checks.sip(config);
    checks.cluster(config);
    checks.http(config);
    checks.domains(config);
    checks.ungrown(config);
}

struct Checks<'a> {
    source: &'a mut Source,
}

impl Checks<'_> {
    /// A mistake at the first of `keys` that was written at all.
    fn refuse(&mut self, keys: &[&'static str], why: impl Into<String>, way_out: impl Into<String>) {
        let written = keys.iter().find_map(|key| self.source.written.get(key).map(|written| (*key, written.place)));
        let (key, place) = written.unwrap_or((keys[0], Place::Default));
        self.source.mistake(place, key, why.into(), way_out.into());
    }

    fn is_written(&self, key: &str) -> bool {
        self.source.written.contains_key(key)
    }

    fn lifetimes(&mut self, config: &Config) {
        let (min, default, max) = (config.expires_min_s, config.expires_default_s, config.expires_max_s);
        if min > default {
            let why = format!("expires_min_s = {min} is above expires_default_s = {default}");
            self.refuse(&["expires_min_s", "expires_default_s"], why, "min ≤ default ≤ max must hold");
        }
        if default > max {
            let why = format!("expires_default_s = {default} is above expires_max_s = {max}");
            self.refuse(&["expires_default_s", "expires_max_s"], why, "min ≤ default ≤ max must hold");
        }
        if min > max {
            let why = format!("expires_min_s = {min} is above expires_max_s = {max}");
            self.refuse(&["expires_min_s", "expires_max_s"], why, "min ≤ default ≤ max must hold");
        }
        if config.drain_timeout_s <= config.drain_grace_s {
            let (grace, timeout) = (config.drain_grace_s, config.drain_timeout_s);
            let why = format!("drain_timeout_s = {timeout} leaves no time after drain_grace_s = {grace}");
            self.refuse(&["drain_timeout_s", "drain_grace_s"], why, "make drain_timeout_s larger");
        }
    }

    fn limits(&mut self, config: &Config) {
        let contacts = config.max_contacts_per_aor;
        if contacts > config.entries_per_aor_max {
            let why =
                format!("{contacts} contacts do not fit into entries_per_aor_max = {}", config.entries_per_aor_max);
            self.refuse(&["max_contacts_per_aor", "entries_per_aor_max"], why, "raise entries_per_aor_max");
        }
        if (1..MEMORY_MAX_MB_MIN).contains(&config.memory_max_mb) {
            let why = format!("a table that holds next to nothing takes more than {} MB", config.memory_max_mb);
            let way_out = format!("{MEMORY_MAX_MB_MIN} is the least; 0 sets no limit");
            self.refuse(&["memory_max_mb"], why, way_out);
        }
        let datagram = bounds::DATAGRAM_BYTES_MAX;
        let with_path = config.path_in_redirect == PathInRedirect::Route;
        let too_long = |largest: usize| largest > datagram;
        if too_long(bounds::largest_200(contacts)) {
            let why = format!(
                "the largest 200 would have {} bytes, and a datagram takes {datagram}",
                bounds::largest_200(contacts)
            );
            self.refuse(&["max_contacts_per_aor"], why, most(contacts, |n| too_long(bounds::largest_200(n))));
        }
        if too_long(bounds::largest_302(contacts, with_path)) {
            let largest = bounds::largest_302(contacts, with_path);
            let why = format!(
                "the largest {} would have {largest} bytes, and a datagram takes {datagram}",
                config.redirect_multiple
            );
            let mut way_out = most(contacts, |n| too_long(bounds::largest_302(n, with_path)));
            if with_path && !too_long(bounds::largest_302(contacts, false)) {
                way_out.push_str(", or path_in_redirect = \"none\"");
            }
            self.refuse(&["max_contacts_per_aor"], why, way_out);
        }
        let record = bounds::largest_record(config.entries_per_aor_max);
        if record > RECORD_BYTES_MAX {
            let why = format!("the largest record would have {record} bytes, and {RECORD_BYTES_MAX} is the limit");
            let way_out = most(config.entries_per_aor_max, |n| bounds::largest_record(n) > RECORD_BYTES_MAX);
            self.refuse(&["entries_per_aor_max"], why, way_out);
        }
    }

    fn sip(&mut self, config: &Config) {
        let sip = &config.sip;
        if sip.listen.is_empty() && !self.source.mistakes.iter().any(|mistake| mistake.key == "sip.listen") {
            self.refuse(&["sip.listen"], "SIP is served nowhere", "name at least one address");
        }
        for (index, listen) in sip.listen.iter().enumerate() {
            if listen.address.port() != 0 && sip.listen[..index].contains(listen) {
                self.refuse(&["sip.listen"], format!("{listen} is there twice"), "");
            }
            if listen.transport == SipTransport::Tcp
                && config.http.listen == Some(listen.address)
                && listen.address.port() != 0
            {
                self.refuse(
                    &["http.listen", "sip.listen"],
                    format!("{listen} is taken by both SIP and HTTP"),
                    "choose another port",
                );
            }
        }
        if sip.allow_any && self.is_written("sip.allow") && !sip.allow.is_empty() {
            self.refuse(
                &["sip.allow_any"],
                "sip.allow names networks, and sip.allow_any lets everybody in",
                "remove one of them",
            );
        }
        let open = sip.listen.iter().find(|listen| !listen.address.ip().is_loopback());
        if let Some(listen) = open
            && sip.allow.is_empty()
            && !sip.allow_any
            && !self.source.mistakes.iter().any(|mistake| mistake.key == "sip.allow")
        {
            let why = format!("{listen} is not on loopback, and sip.allow does not say who may talk there");
            self.refuse(&["sip.listen"], why, "name the SBCs' networks in sip.allow, or set sip.allow_any = true");
        }
    }

    fn cluster(&mut self, config: &Config) {
        let Some(cluster) = &config.cluster else {
            if !self.source.mistakes.iter().any(|mistake| mistake.key == "cluster.listen") {
                self.no_cluster();
            }
            return;
        };
        if cluster.advertise.ip().is_unspecified() {
            if self.is_written("cluster.advertise") && config_text(self.source, "cluster.advertise") != Some("") {
                self.refuse(
                    &["cluster.advertise"],
                    "no node can be reached at a wildcard address",
                    "give this node's own address",
                );
            } else {
                let why = format!("{} is a wildcard, and no other node can be told to come there", cluster.listen);
                self.refuse(&["cluster.listen"], why, "give this node's own address in cluster.advertise");
            }
        }
        let files: [(&'static str, &Path); 3] =
            [("cluster.ca", &cluster.ca), ("cluster.certificate", &cluster.certificate), ("cluster.key", &cluster.key)];
        for (key, _) in files.into_iter().filter(|(_, path)| path.as_os_str().is_empty()) {
            self.refuse(
                &[key, "cluster.listen"],
                format!("a cluster needs {key}"),
                "`aorta cert init` and `aorta cert issue` make the files",
            );
        }
        if config.bootstrap_min_nodes > 1 && cluster.seeds.is_empty() {
            let why = format!(
                "{} nodes are to start together, and no seed says where the others are",
                config.bootstrap_min_nodes
            );
            self.refuse(&["bootstrap_min_nodes"], why, "fill cluster.seeds");
        }
    }

    /// A node with seeds that runs alone would answer 404 for every phone of the others.
    fn no_cluster(&mut self) {
        for key in ["cluster.advertise", "cluster.seeds", "cluster.ca", "cluster.certificate", "cluster.key"] {
            let empty =
                matches!(config_text(self.source, key), Some("")) || config_list_len(self.source, key) == Some(0);
            if self.is_written(key) && !empty {
                self.refuse(
                    &[key],
                    "this has no effect without cluster.listen: the node would run alone",
                    "set cluster.listen",
                );
            }
        }
    }

    fn http(&mut self, config: &Config) {
        let Some(listen) = config.http.listen else { return };
        if !listen.ip().is_loopback() && config.http.token.is_none() {
            let why = format!("{listen} is not on loopback, and everybody there could manage this node");
            self.refuse(&["http.listen"], why, "set http.token");
        }
    }

    fn domains(&mut self, config: &Config) {
        if config.domains.is_empty() {
            return;
        }
        let targets = config.domain_aliases.iter().map(|(_, domain)| ("domain_aliases", domain));
        for (key, domain) in targets.chain(config.tel_domain.iter().map(|domain| ("tel_domain", domain))) {
            if !config.domains.contains(domain) {
                self.refuse(&[key], format!("'{domain}' is not among domains"), "add it to domains");
            }
        }
    }

    /// What has a key, but is not built yet.
    fn ungrown(&mut self, config: &Config) {
        if config.lookup_mode == LookupMode::Proxy {
            self.refuse(&["lookup.mode"], "\"proxy\" is not built yet", "\"redirect\" suits an SBC that follows 302");
        }
    }
}

/// The largest number not above `from` that is not refused.
fn most(from: usize, refused: impl Fn(usize) -> bool) -> String {
    let most = (0..from).rev().find(|n| !refused(*n)).unwrap_or_default();
    format!("{most} is the most that fits")
}

fn config_text<'a>(source: &'a Source, key: &str) -> Option<&'a str> {
    match &source.written.get(key)?.value {
        super::source::Value::Text(text) => Some(text),
        _ => None,
    }
}

fn config_list_len(source: &Source, key: &str) -> Option<usize> {
    match &source.written.get(key)?.value {
        super::source::Value::List(list) => Some(list.len()),
        _ => None,
    }
}
