//! Certificates and configurations of a lab's nodes. It starts nothing.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use aorta::cluster::certificate::{AUTHORITY_DAYS, Authority, NODE_DAYS};
use aorta_proto::NodeId;
use toml::{Table, Value};

/// Name of a lab's cluster.
const CLUSTER: &str = "lab";

pub(super) struct Desk {
    folder: PathBuf,
    phones: IpAddr,
    authority: Authority,
    ca: PathBuf,
    seeds: Mutex<Seeds>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Whom every configuration names: the nodes that were there before the first start.
#[derive(Debug, Default)]
struct Seeds {
    addresses: Vec<SocketAddr>,
    settled: bool,
}

/// One node as its configuration names it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) node: NodeId,
    /// Where certificate and key lie.
    pub(super) folder: PathBuf,
    pub(super) data: PathBuf,
    pub(super) sip: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) cluster: SocketAddr,
}

impl Desk {
    /// Makes the CA in `folder`.
    pub(super) fn new(folder: &Path, phones: IpAddr) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("making folder {}", folder.display()))?;
        let folder = folder.canonicalize().with_context(|| format!("finding folder {}", folder.display()))?;
        let made = Authority::create(CLUSTER, wall_s(), AUTHORITY_DAYS)?;
        let ca = folder.join("ca.pem");
        written(&ca, &made.certificate)?;
        let authority = Authority::load(&made.certificate, &made.key)?;
        Ok(Self { folder, phones, authority, ca, seeds: Mutex::default() })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The CA's certificate.
    pub(super) fn ca(&self) -> &Path {
        &self.ca
    }

    /// Issues a node's certificate as `node.pem` and `node.key` of `folder`.
    pub(super) fn issue(&self, node: &NodeId, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("making folder {}", folder.display()))?;
        let issued = self.authority.issue(node, wall_s(), NODE_DAYS)?;
        written(&folder.join("node.pem"), &issued.certificate)?;
        written(&folder.join("node.key"), &issued.key)
    }

    /// Notes a node: a seed, unless one has started already.
    pub(super) fn note(&self, cluster: SocketAddr) {
        let mut seeds = self.seeds.lock().unwrap_or_else(PoisonError::into_inner);
        if !seeds.settled {
            seeds.addresses.push(cluster);
        }
    }

    /// The seeds, from now on for good.
    fn seeds(&self) -> Vec<SocketAddr> {
        let mut seeds = self.seeds.lock().unwrap_or_else(PoisonError::into_inner);
        seeds.settled = true;
        seeds.addresses.clone()
    }

    /// Writes a configuration; later extras win over earlier ones, and all over what is said here.
    pub(super) fn write(&self, file: &Path, entry: &Entry, extras: &[&str]) -> anyhow::Result<()> {
        let mut all = self.basis(entry);
        for extra in extras {
            let table: Table = extra.parse().with_context(|| format!("this extra is no TOML:\n{extra}"))?;
            merge(&mut all, table);
        }
        written(file, &all.to_string())
    }

    fn basis(&self, entry: &Entry) -> Table {
        let text = |path: &Path| Value::String(path.display().to_string());
        let list = |all: &[SocketAddr]| Value::Array(all.iter().map(|one| Value::String(one.to_string())).collect());
        let mut sip = Table::from_iter([("listen".to_owned(), list(&[entry.sip]))]);
        if !self.phones.is_loopback() {
            sip.insert("allow".to_owned(), Value::Array(vec![Value::String(format!("{}/32", self.phones))]));
        }
        let cluster = [
            ("listen", Value::String(entry.cluster.to_string())),
            ("seeds", list(&self.seeds())),
            ("ca", text(&self.ca)),
            ("certificate", text(&entry.folder.join("node.pem"))),
            ("key", text(&entry.folder.join("node.key"))),
        ];
        let cluster = cluster.map(|(key, value)| (key.to_owned(), value));
        let http = [("listen".to_owned(), Value::String(entry.http.to_string()))];
        Table::from_iter([
            ("node_id".to_owned(), Value::String(entry.node.to_string())),
            ("data_dir".to_owned(), text(&entry.data)),
            ("sip".to_owned(), Value::Table(sip)),
            ("http".to_owned(), Value::Table(Table::from_iter(http))),
            ("cluster".to_owned(), Value::Table(Table::from_iter(cluster))),
        ])
    }
}

/// Puts `more` over `all`, section by section.
fn merge(all: &mut Table, more: Table) {
    for (key, value) in more {
        match (all.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => _ = all.insert(key, value),
        }
    }
}

fn written(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// The wall clock, microseconds since 1970.
pub(super) fn wall_us() -> u64 {
    aorta::clock::wall_us()
}

fn wall_s() -> i64 {
    i64::try_from(wall_us() / 1_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aorta::config::Config;

    #[test]
    fn what_is_written_is_a_sound_configuration_and_the_last_extra_wins() {
        let folder = tempfile::tempdir().expect("a folder");
        let desk = Desk::new(folder.path(), IpAddr::from([10, 77, 0, 1])).expect("a desk");
        let at = |port| SocketAddr::from(([10, 77, 0, 11], port));
        let node = NodeId::new("node1").expect("a name");
        let home = folder.path().join("node1");
        desk.issue(&node, &home).expect("issued");
        desk.note(at(7060));
        let entry = Entry { node, data: home.clone(), folder: home, sip: at(5060), http: at(8060), cluster: at(7060) };
        let file = folder.path().join("aorta.toml");
        let extras = ["ack_timeout_ms = 250\n[http]\ntoken = \"x\"\n[sip]\nthreads = 2", "ack_timeout_ms = 200"];
        desk.write(&file, &entry, &extras).expect("written");
        let config = Config::load(Some(&file), &[]).expect("sound");
        assert_eq!(config.ack_timeout_ms, 200);
        assert_eq!(config.sip.listen[0].address, at(5060));
        assert_eq!(config.unreadable_files(), Vec::<String>::new());
        desk.note(at(7061));
        assert_eq!(desk.seeds(), [at(7060)], "who comes after the first start is no seed");
    }
}
