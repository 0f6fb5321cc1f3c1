//! `aorta drain`, `ready` and `forget`: what an operator orders a node to do.

use std::process::ExitCode;
use std::time::Duration;

use aorta_proto::NodeId;
use clap::Args;

use super::client::{Client, Target, escaped};

#[derive(Debug, Args)]
pub(super) struct Drain {
    #[command(flatten)]
    target: Target,
    /// Do not wait until the node has left.
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Args)]
pub(super) struct Ready {
    #[command(flatten)]
    target: Target,
    /// The node may lack contacts that others hold, and will answer 404 for them.
    #[arg(long, required = true)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Forget {
    /// The node that will not come back.
    node: String,
    #[command(flatten)]
    target: Target,
}

/// Time between two looks at a node that leaves.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The node itself gives up after `drain_timeout_s`; then its process ends, and so does this wait.
pub(super) fn drain(order: &Drain) -> anyhow::Result<ExitCode> {
    let client = Client::of(&order.target)?;
    let node = client.cluster()?.node;
    client.post("/v1/drain")?;
    println!("{node} drains");
    if order.no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    let mut said = String::new();
    while let Ok(view) = client.cluster() {
        let reason = view.reason.unwrap_or_default();
        if !reason.is_empty() && reason != said {
            println!("{node}: {reason}");
            said = reason;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    println!("{node} has left; its log and exit code say whether anything was lost");
    Ok(ExitCode::SUCCESS)
}

pub(super) fn ready(order: &Ready) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(order.force, "a node becomes ready by itself; only --force overrules it");
    let answer = Client::of(&order.target)?.post("/v1/ready")?;
    println!("{}", said(&answer, "the node is ready"));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn forget(order: &Forget) -> anyhow::Result<ExitCode> {
    let node = NodeId::new(&order.node)?;
    let answer = Client::of(&order.target)?.post(&format!("/v1/forget/{}", escaped(node.as_str())))?;
    println!("{}", said(&answer, &format!("{node} is forgotten")));
    Ok(ExitCode::SUCCESS)
}

fn said<'a>(answer: &'a str, otherwise: &'a str) -> &'a str {
    if answer.trim().is_empty() { otherwise } else { answer.trim() }
}
