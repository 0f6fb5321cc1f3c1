//! `aorta cert`: the cluster's CA and the nodes' certificates as files. What stands in them is decided in
//! [`crate::cluster::certificate`].

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use aorta_proto::NodeId;
use clap::{Args, Subcommand};

use crate::clock;
use crate::cluster::certificate::{AUTHORITY_DAYS, Authority, Issued, NODE_DAYS};

/// File of the CA's certificate in its folder.
pub(super) const CA_FILE: &str = "ca.pem";
/// File of the CA's private key.
pub(super) const CA_KEY_FILE: &str = "ca.key";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a CA: its certificate goes to every node, its key stays where certificates are issued.
    Init(Init),
    /// Issue a node's certificate and key.
    Issue(Issue),
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// Name of the cluster: nodes of another do not get in even with this CA.
    #[arg(long, default_value = "aorta", value_name = "NAME")]
    cluster: String,
    /// Folder to write ca.pem and ca.key to.
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// Days that the CA is valid.
    #[arg(long, default_value_t = AUTHORITY_DAYS)]
    days: u32,
}

#[derive(Debug, Args)]
pub(super) struct Issue {
    /// Name of the node, unique in the cluster.
    node: String,
    /// Folder that holds ca.pem and ca.key.
    #[arg(long, default_value = ".", value_name = "DIR")]
    ca_dir: PathBuf,
    /// Folder to write NODE.pem and NODE.key to.
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// Days that the certificate is valid, at most as long as the CA.
    #[arg(long, default_value_t = NODE_DAYS)]
    days: u32,
}

pub(super) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Init(init) => {
            let (certificate, key) = (init.dir.join(CA_FILE), init.dir.join(CA_KEY_FILE));
            create(&init.cluster, &certificate, &key, init.days)?;
            println!("CA of cluster '{}': {}", init.cluster, certificate.display());
            println!("Its key, for issuing only: {}", key.display());
        }
        Command::Issue(order) => {
            let node = NodeId::new(&order.node)?;
            let (certificate, key) = (order.dir.join(format!("{node}.pem")), order.dir.join(format!("{node}.key")));
            issue(&order.ca_dir, &node, &certificate, &key, order.days)?;
            println!("Certificate of node '{node}': {}", certificate.display());
            println!("Its key: {}", key.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a CA and writes both files.
pub(super) fn create(cluster: &str, certificate: &Path, key: &Path, days: u32) -> anyhow::Result<()> {
    let issued = Authority::create(cluster, wall_s(), days)?;
    write_pair(&issued, certificate, key)
}

/// Issues a node's certificate from the CA in `ca_dir` and writes both files.
pub(super) fn issue(ca_dir: &Path, node: &NodeId, certificate: &Path, key: &Path, days: u32) -> anyhow::Result<()> {
    let authority = Authority::load(&read(&ca_dir.join(CA_FILE))?, &read(&ca_dir.join(CA_KEY_FILE))?)?;
    let issued = authority.issue(node, wall_s(), days)?;
    write_pair(&issued, certificate, key)
}

fn wall_s() -> i64 {
    i64::try_from(clock::wall_us() / 1_000_000).unwrap_or(i64::MAX)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn write_pair(issued: &Issued, certificate: &Path, key: &Path) -> anyhow::Result<()> {
    for path in [certificate, key] {
        anyhow::ensure!(!path.exists(), "{} exists already and is not overwritten", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("making folder {}", folder.display()))?;
        }
    }
    write_new(key, &issued.key, 0o600)?;
    write_new(certificate, &issued.certificate, 0o644)
}

fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| format!("writing {}", path.display()))
}
