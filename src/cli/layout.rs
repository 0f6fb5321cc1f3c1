//! The folders, addresses and files of several nodes on one machine. It starts none of them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aorta_proto::NodeId;

use super::certificate;
use crate::cluster::certificate::{AUTHORITY_DAYS, NODE_DAYS};

/// Name of the cluster of such nodes.
const CLUSTER: &str = "dev";

/// One node: where its things are and where it can be reached.
#[derive(Debug, Clone)]
pub struct Place {
    /// `node1`, `node2`, …
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Where its output goes.
    pub log: PathBuf,
    /// SIP, UDP and TCP.
    pub sip: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
    /// QUIC, between nodes.
    pub cluster: SocketAddr,
}

/// Ports of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// SIP, UDP and TCP.
    pub sip: u16,
    /// HTTP.
    pub http: u16,
    /// Between nodes.
    pub cluster: u16,
}

/// First port tried where any will do: below the kernel's ephemeral ports, so that no client socket takes it meanwhile.
const FREE_FROM: u16 = 20_000;
/// The last one.
const FREE_TO: u16 = 32_000;

/// Ports for `nodes` nodes that nobody holds now.
///
/// # Errors
/// When there are not enough.
pub fn free_ports(nodes: usize) -> anyhow::Result<Vec<Ports>> {
    let mut port = fastrand::u16(FREE_FROM..FREE_TO);
    let mut found = Vec::new();
    for _ in FREE_FROM..FREE_TO {
        port = if port + 1 < FREE_TO { port + 1 } else { FREE_FROM };
        let address = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            found.push(port);
        }
        if found.len() == nodes * 3 {
            let ports = found.chunks_exact(3).map(|three| Ports { sip: three[0], http: three[1], cluster: three[2] });
            return Ok(ports.collect());
        }
    }
    anyhow::bail!("no {} free ports between {FREE_FROM} and {FREE_TO}", nodes * 3)
}

/// Ports that follow one another from a first one of each kind.
///
/// # Errors
/// When they go beyond 65535.
pub fn consecutive_ports(nodes: usize, first: Ports) -> anyhow::Result<Vec<Ports>> {
    let nth = |first: u16, n: usize| u16::try_from(usize::from(first) + n).context("a port beyond 65535 is needed");
    let ports = |n| Ok(Ports { sip: nth(first.sip, n)?, http: nth(first.http, n)?, cluster: nth(first.cluster, n)? });
    (0..nodes).map(ports).collect()
}

/// Writes certificates and a configuration for each node into `dir`; a CA, certificates and data that are there stay.
/// `extra` is TOML without a section that goes into every configuration.
///
/// # Errors
/// When a file cannot be written.
pub fn write(dir: &Path, ports: &[Ports], extra: &str) -> anyhow::Result<Vec<Place>> {
    std::fs::create_dir_all(dir).with_context(|| format!("making folder {}", dir.display()))?;
    let dir = dir.canonicalize().with_context(|| format!("finding folder {}", dir.display()))?;
    let (ca, ca_key) = (dir.join(certificate::CA_FILE), dir.join(certificate::CA_KEY_FILE));
    if !ca.exists() {
        certificate::create(CLUSTER, &ca, &ca_key, AUTHORITY_DAYS)?;
    }
    let places: Vec<Place> = ports.iter().enumerate().map(|(index, ports)| place(&dir, index + 1, *ports)).collect();
    let seeds: Vec<String> = places.iter().map(|place| format!("\"{}\"", place.cluster)).collect();
    for place in &places {
        std::fs::create_dir_all(&place.folder).with_context(|| format!("making folder {}", place.folder.display()))?;
        let (pem, key) = (place.folder.join("node.pem"), place.folder.join("node.key"));
        if !pem.exists() {
            certificate::issue(&dir, &NodeId::new(&place.name)?, &pem, &key, NODE_DAYS)?;
        }
        let text = configuration(place, &ca, &seeds.join(", "), extra);
        std::fs::write(&place.config, text).with_context(|| format!("writing {}", place.config.display()))?;
    }
    Ok(places)
}

fn place(dir: &Path, number: usize, ports: Ports) -> Place {
    let name = format!("node{number}");
    let folder = dir.join(&name);
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Place {
        config: folder.join("aorta.toml"),
        log: folder.join("log"),
        name,
        folder,
        sip: at(ports.sip),
        http: at(ports.http),
        cluster: at(ports.cluster),
    }
}

fn configuration(place: &Place, ca: &Path, seeds: &str, extra: &str) -> String {
    let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    format!(
        "# Written by `aorta dev`. Start with: aorta node --config {config}\n\
         node_id = \"{name}\"\n\
         data_dir = {data}\n\
         {extra}\n\
         [sip]\n\
         listen = [\"{sip}\"]\n\n\
         [http]\n\
         listen = \"{http}\"\n\n\
         [cluster]\n\
         listen = \"{cluster}\"\n\
         seeds = [{seeds}]\n\
         ca = {ca}\n\
         certificate = {certificate}\n\
         key = {key}\n",
        config = place.config.display(),
        name = place.name,
        data = quoted(&place.folder.join("data")),
        sip = place.sip,
        http = place.http,
        cluster = place.cluster,
        ca = quoted(ca),
        certificate = quoted(&place.folder.join("node.pem")),
        key = quoted(&place.folder.join("node.key")),
    )
}

/// A new folder under the system's temporary one; it goes when it is dropped, unless it is kept.
#[derive(Debug)]
pub struct FreshFolder {
    path: PathBuf,
    keep: bool,
}

impl FreshFolder {
    /// Makes one whose name begins so.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn make(name: &str) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("{name}-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        std::fs::create_dir(&path).with_context(|| format!("making folder {}", path.display()))?;
        Ok(Self { path, keep: false })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it there for whoever wants to see what happened.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for FreshFolder {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_written_is_a_sound_configuration_and_a_second_time_keeps_the_certificates() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = Ports { sip: 5060, http: 8060, cluster: 7060 };
        let ports = consecutive_ports(3, first).expect("in range");
        let places = write(dir.path(), &ports, "ack_timeout_ms = 250").expect("written");
        let config = Config::load(Some(&places[2].config), &[]).expect("sound");
        assert_eq!(config.unreadable_files(), Vec::<String>::new());
        assert_eq!(config.ack_timeout_ms, 250);
        assert_eq!(config.sip.listen[0].address.port(), 5062);
        assert_eq!(config.http.listen.expect("there").port(), 8062);
        let cluster = config.cluster.expect("there");
        assert_eq!(cluster.seeds, ["127.0.0.1:7060", "127.0.0.1:7061", "127.0.0.1:7062"]);
        let before = std::fs::read(&cluster.certificate).expect("a certificate");
        write(dir.path(), &consecutive_ports(4, first).expect("in range"), "").expect("written again");
        assert_eq!(std::fs::read(&cluster.certificate).expect("still there"), before);
    }

    #[test]
    fn ports_end_at_65535() {
        let first = Ports { sip: 65_534, http: 8060, cluster: 7060 };
        assert!(consecutive_ports(2, first).is_ok());
        assert!(consecutive_ports(3, first).is_err());
    }

    #[test]
    fn free_ports_differ() {
        let ports = free_ports(3).expect("enough");
        let mut all: Vec<u16> = ports.iter().flat_map(|three| [three.sip, three.http, three.cluster]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 9);
    }
}
