//! From plain values to the types of [`Config`]: each value by itself. What two keys say together is judged in
//! [`super::checks`].

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::IpNet;

use super::keys::{self, Key, Kind};
use super::mistake::Place;
use super::source::{Source, Value, Written};
use super::{
    Ack, ClusterConfig, Config, HttpConfig, Listen, LogConfig, LogFormat, LookupMode, NotReadyOptions, PathInRedirect,
    PathMode, SipConfig, SipTransport,
};

/// Port of SIP where none is written.
const SIP_PORT: u16 = 5060;
/// Port of the cluster where none is written.
pub(super) const CLUSTER_PORT: u16 = 7060;

/// Reads every key; a mistaken one is reported and counts as its default.
pub(super) fn config(source: &mut Source, base: &Path) -> Config {
    let mut read = Reader { source, base };
    Config {
        node_id: read.optional("node_id", |text| aorta_proto::NodeId::new(text).map_err(|error| error.to_string())),
        data_dir: read.path("data_dir"),
        domains: read.list("domains", host),
        domain_aliases: read.aliases(),
        aor_case_sensitive: read.flag("aor_case_sensitive"),
        tel_domain: read.optional("tel_domain", host),
        max_contacts_per_aor: read.number("max_contacts_per_aor"),
        entries_per_aor_max: read.number("entries_per_aor_max"),
        memory_max_mb: read.number("memory_max_mb"),
        expires_min_s: read.number("expires_min_s"),
        expires_default_s: read.number("expires_default_s"),
        expires_max_s: read.number("expires_max_s"),
        path_mode: read.word("path_mode", |word| match word {
            "off" => PathMode::Off,
            "strict" => PathMode::Strict,
            _ => PathMode::Lazy,
        }),
        path_in_redirect: read.word("path_in_redirect", |word| match word {
            "none" => PathInRedirect::None,
            _ => PathInRedirect::Route,
        }),
        redirect_multiple: read.number("redirect_multiple"),
        no_binding_status: read.number("no_binding_status"),
        probe_users: read.list("probe_users", some_text),
        not_ready_options: read.word("not_ready_options", |word| match word {
            "silent" => NotReadyOptions::Silent,
            _ => NotReadyOptions::Unavailable,
        }),
        retry_after_s: read.number("retry_after_s"),
        ack: read.word("ack", |word| match word {
            "one" => Ack::One,
            "none" => Ack::None,
            "disk" => Ack::Disk,
            _ => Ack::All,
        }),
        ack_timeout_ms: read.number("ack_timeout_ms"),
        pending_replies_max: read.number("pending_replies_max"),
        outbox_bytes_max: read.number("outbox_bytes_max"),
        seed_fallback_ms: read.number("seed_fallback_ms"),
        bootstrap_min_nodes: read.number("bootstrap_min_nodes"),
        doubt_ms: read.number("doubt_ms"),
        clock_ahead_max_s: read.number("clock_ahead_max_s"),
        clock_skew_warn_s: read.number("clock_skew_warn_s"),
        snapshot_interval_ms: read.number("snapshot_interval_ms"),
        drain_grace_s: read.number("drain_grace_s"),
        drain_timeout_s: read.number("drain_timeout_s"),
        lookup_mode: read.word("lookup.mode", |word| match word {
            "proxy" => LookupMode::Proxy,
            _ => LookupMode::Redirect,
        }),
        sip: read.sip(),
        cluster: read.cluster(),
        http: HttpConfig {
            listen: read.optional("http.listen", |text| address(text, None)),
            token: read.optional("http.token", some_text),
        },
        log: LogConfig {
            filter: read.text("log.filter"),
            format: read.word("log.format", |word| if word == "json" { LogFormat::Json } else { LogFormat::Text }),
        },
    }
}

struct Reader<'a> {
    source: &'a mut Source,
    base: &'a Path,
}

impl Reader<'_> {
    fn sip(&mut self) -> SipConfig {
        SipConfig {
            listen: self.list("sip.listen", listen).into_iter().flatten().collect(),
            allow: self.list("sip.allow", network),
            allow_any: self.flag("sip.allow_any"),
            threads: self.number("sip.threads"),
            udp_buffer_bytes: self.number("sip.udp_buffer_bytes"),
            max_message_bytes: self.number("sip.max_message_bytes"),
            max_age_ms: self.number("sip.max_age_ms"),
            ack_header: self.flag("sip.ack_header"),
            tcp_connections_max: self.number("sip.tcp_connections_max"),
            tcp_idle_s: self.number("sip.tcp_idle_s"),
            tcp_message_s: self.number("sip.tcp_message_s"),
        }
    }

    /// `None` when `cluster.listen` is empty; the other keys are read all the same, for their mistakes.
    fn cluster(&mut self) -> Option<ClusterConfig> {
        let listen = self.optional("cluster.listen", |text| address(text, Some(CLUSTER_PORT)));
        let advertise = self.optional("cluster.advertise", |text| address(text, Some(CLUSTER_PORT)));
        let seeds = self.list("cluster.seeds", seed);
        let (ca, certificate, key) =
            (self.path("cluster.ca"), self.path("cluster.certificate"), self.path("cluster.key"));
        let listen = listen?;
        Some(ClusterConfig { listen, advertise: advertise.unwrap_or(listen), seeds, ca, certificate, key })
    }

    fn aliases(&mut self) -> Vec<(String, String)> {
        let (key, written) = self.take("domain_aliases");
        let Value::Table(entries) = written.value else { return Vec::new() };
        let mut aliases = Vec::new();
        for (name, target) in entries {
            let Value::Text(text) = &target.value else {
                self.wrong(
                    key,
                    target.place,
                    format!("'{name}' must name a domain as text, not {}", target.value.kind()),
                );
                continue;
            };
            match alias_host(&name).and_then(|name| Ok((name, host(text)?))) {
                Ok(pair) => aliases.push(pair),
                Err(why) => self.wrong(key, target.place, why),
            }
        }
        aliases
    }

    /// What was written for a key when it is of the key's kind, else the default.
    fn take(&mut self, name: &'static str) -> (&'static Key, Written) {
        // A name that is not in the table is a mistake of this file, which the test of defaults finds at once.
        let key = keys::find(name).unwrap_or(&keys::KEYS[0]);
        if let Some(written) = self.source.written.get(name).cloned() {
            match fitted(key, written) {
                Ok(written) => return (key, written),
                Err((place, why)) => self.wrong(key, place, why),
            }
        }
        let mut defaults = Source::default();
        defaults.read_set(0, &format!("{}={}", key.name, key.default));
        let value = defaults.written.remove(key.name).map_or(Value::Other("nothing"), |written| written.value);
        (key, Written { value, place: Place::Default })
    }

    fn wrong(&mut self, key: &Key, place: Place, why: String) {
        self.source.mistake(place, key.name, why, format!("the default is {}", key.default));
    }

    fn number<T: TryFrom<i64> + Default>(&mut self, name: &'static str) -> T {
        match self.take(name).1.value {
            Value::Whole(number) => T::try_from(number).unwrap_or_default(),
            _ => T::default(),
        }
    }

    fn flag(&mut self, name: &'static str) -> bool {
        self.take(name).1.value == Value::Flag(true)
    }

    fn text(&mut self, name: &'static str) -> String {
        match self.take(name).1.value {
            Value::Text(text) => text,
            _ => String::new(),
        }
    }

    fn word<T>(&mut self, name: &'static str, choose: impl FnOnce(&str) -> T) -> T {
        choose(&self.text(name))
    }

    /// Empty is `None`; a relative path counts from the file's folder.
    fn path(&mut self, name: &'static str) -> PathBuf {
        match self.text(name) {
            text if text.is_empty() => PathBuf::new(),
            text => self.base.join(text),
        }
    }

    /// Empty is `None`.
    fn optional<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let (key, written) = self.take(name);
        match &written.value {
            Value::Text(text) if !text.is_empty() => {
                parse(text).map_err(|why| self.wrong(key, written.place, why)).ok()
            }
            _ => None,
        }
    }

    fn list<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let (key, written) = self.take(name);
        let Value::List(items) = written.value else { return Vec::new() };
        let mut list = Vec::new();
        for item in items {
            let parsed = match &item.value {
                Value::Text(text) => parse(text),
                other => Err(format!("a list of texts is wanted, and {} is in it", other.kind())),
            };
            match parsed {
                Ok(value) => list.push(value),
                Err(why) => self.wrong(key, item.place, why),
            }
        }
        list
    }
}

/// A value of the key's kind, or what is wrong with it.
fn fitted(key: &Key, written: Written) -> Result<Written, (Place, String)> {
    let place = written.place;
    let value = match (key.kind, written.value) {
        (Kind::Whole { min, max }, Value::Whole(number)) if !(min..=max).contains(&number) => {
            return Err((place, format!("{number} is not between {min} and {max}")));
        }
        (Kind::Numbers(numbers), Value::Whole(number)) if !numbers.contains(&number) => {
            return Err((place, format!("{number} is none of {}", joined(numbers))));
        }
        (Kind::Words(words), Value::Text(word)) if !words.contains(&word.as_str()) => {
            return Err((place, format!("\"{word}\" is none of {}", joined(words))));
        }
        (Kind::List, Value::Text(text)) if text.is_empty() => Value::List(Vec::new()),
        (Kind::List, Value::Text(text)) => Value::List(vec![Written { value: Value::Text(text), place }]),
        // `--set ack=…`, `--set no_binding_status=…`: a bare word may look like a number, a number may be meant as text.
        (Kind::Words(words), Value::Whole(number)) if words.contains(&number.to_string().as_str()) => {
            Value::Text(number.to_string())
        }
        (Kind::Text, Value::Whole(number)) if matches!(place, Place::Set(_)) => Value::Text(number.to_string()),
        (Kind::Whole { .. } | Kind::Numbers(_), value @ Value::Whole(_))
        | (Kind::Flag, value @ Value::Flag(_))
        | (Kind::Text | Kind::Words(_), value @ Value::Text(_))
        | (Kind::List, value @ Value::List(_))
        | (Kind::Table, value @ Value::Table(_)) => value,
        (kind, value) => return Err((place, format!("{} is wanted, not {}", wanted(kind), value.kind()))),
    };
    Ok(Written { value, place })
}

fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Whole { .. } | Kind::Numbers(_) => "a whole number",
        Kind::Flag => "true or false",
        Kind::Text | Kind::Words(_) => "a text",
        Kind::List => "a list of texts",
        Kind::Table => "a table",
    }
}

fn joined<T: std::fmt::Display>(choices: &[T]) -> String {
    choices.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn some_text(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("an empty text says nothing".to_owned()) } else { Ok(text.to_owned()) }
}

/// A host name in lower case, or an IP address; no port.
fn host(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = IpAddr::from_str(bare) {
        return Ok(address.to_string());
    }
    let clean = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if text.is_empty() || !clean {
        return Err(format!("'{text}' is neither a host name nor an IP address"));
    }
    Ok(text.trim_end_matches('.').to_ascii_lowercase())
}

/// As [`host`], with a hint for who wrote a port.
fn alias_host(text: &str) -> Result<String, String> {
    host(text).map_err(|why| match text.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => format!("write '{name}' without the port"),
        _ => why,
    })
}

/// `address:port`; with a default port the port may be missing.
fn address(text: &str, port: Option<u16>) -> Result<SocketAddr, String> {
    if let Ok(address) = SocketAddr::from_str(text) {
        return Ok(address);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match (IpAddr::from_str(bare), port) {
        (Ok(ip), Some(port)) => Ok(SocketAddr::new(ip, port)),
        (Ok(_), None) => Err(format!("'{text}' lacks a port")),
        (Err(_), _) => Err(format!(
            "'{text}' is no address: write an IP address and a port, as 192.0.2.10:5060 or [2001:db8::10]:5060"
        )),
    }
}

/// One entry of `sip.listen`: both transports where none is named.
fn listen(text: &str) -> Result<Vec<Listen>, String> {
    let (transports, rest): (&[SipTransport], &str) = match text.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("udp") => (&[SipTransport::Udp], rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("tcp") => (&[SipTransport::Tcp], rest),
        _ => (&[SipTransport::Udp, SipTransport::Tcp], text),
    };
    let address = address(rest.trim_start_matches("//"), Some(SIP_PORT))?;
    Ok(transports.iter().map(|transport| Listen { transport: *transport, address }).collect())
}

fn network(text: &str) -> Result<IpNet, String> {
    let bare = IpAddr::from_str(text).map(IpNet::from);
    let network =
        IpNet::from_str(text).or(bare).map_err(|_| format!("'{text}' is no network: write it as 192.0.2.0/24"))?;
    if network.trunc() != network {
        return Err(format!(
            "'{text}' has bits beyond its mask: {} is meant, or {}/{}",
            network.trunc(),
            network.addr(),
            network.max_prefix_len()
        ));
    }
    Ok(network)
}

/// `host:port` with a name or an address; the port may be missing.
fn seed(text: &str) -> Result<String, String> {
    if let Ok(address) = address(text, Some(CLUSTER_PORT)) {
        return Ok(address.to_string());
    }
    let (name, port) = text.rsplit_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let port = match port {
        None => CLUSTER_PORT,
        Some(port) => {
            port.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("'{text}' has no port behind its ':'"))?
        }
    };
    Ok(format!("{}:{port}", host(name)?))
}
