//! `aorta dev`: a whole cluster on this machine, for trying things out. Real processes, throw-away certificates.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::fleet::{Fleet, told};
use super::layout::{self, Place, Ports};
use super::signals::Stops;
use super::status::aligned;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: u16,
    /// Folder for configurations, certificates, data and logs; what is there is used again [default: a new one under
    /// the system's temporary folder, removed at the end].
    #[arg(long, value_name = "DIR", required_if_eq("write_only", "true"))]
    dir: Option<PathBuf>,
    /// Print one JSON object a node and event instead of a table and a live line.
    #[arg(long)]
    json: bool,
    /// Only write DIR/node1/aorta.toml … and say how to start each.
    #[arg(long)]
    write_only: bool,
    /// SIP port of the first node; the next ones follow.
    #[arg(long, default_value_t = 5060, value_name = "PORT")]
    sip_port: u16,
    /// HTTP port of the first node.
    #[arg(long, default_value_t = 8060, value_name = "PORT")]
    http_port: u16,
    /// Cluster port of the first node.
    #[arg(long, default_value_t = 7060, value_name = "PORT")]
    cluster_port: u16,
}

/// Time between two looks at all nodes.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How long nodes may take to write their last snapshot after Ctrl-C.
const FAREWELL: Duration = Duration::from_secs(5);

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let first = Ports { sip: options.sip_port, http: options.http_port, cluster: options.cluster_port };
    let ports = layout::consecutive_ports(usize::from(options.nodes), first)?;
    let (dir, _fresh) = match &options.dir {
        Some(dir) => (dir.clone(), None),
        None => {
            let fresh = layout::FreshFolder::make("aorta-dev")?;
            (fresh.path().to_path_buf(), Some(fresh))
        }
    };
    let places = layout::write(&dir, &ports, "")?;
    if options.write_only {
        written(options, &places);
        return Ok(ExitCode::SUCCESS);
    }
    let stops = Stops::watch()?;
    let mut fleet = Fleet::of_this_program(places)?;
    let mut show = Show::new(options.json);
    for index in 0..fleet.nodes().len() {
        fleet.start(index)?;
        let node = &fleet.nodes()[index];
        show.event("started", &node.place, json!({ "pid": node.pid() }));
    }
    show.table(&fleet, &dir);
    let failed = watch(&mut fleet, &stops, &mut show)?;
    show.line("stopping …");
    let killed = fleet.stop(FAREWELL);
    show.done(&fleet, &killed);
    Ok(ExitCode::from(u8::from(failed)))
}

/// Shows what the nodes do until somebody stops it or none is left; whether a node ended by itself.
fn watch(fleet: &mut Fleet, stops: &Stops, show: &mut Show) -> anyhow::Result<bool> {
    let mut states: Vec<String> = vec![String::new(); fleet.nodes().len()];
    let mut ended = vec![false; fleet.nodes().len()];
    while !stops.within(LOOK_AGAIN) {
        let mut words = Vec::new();
        for index in 0..states.len() {
            if let Some(status) = fleet.ended(index)? {
                ended[index] = true;
                show.ended(&fleet.nodes()[index], &told(status));
            }
            let node = &fleet.nodes()[index];
            let (state, contacts) = if ended[index] { ("ended".to_owned(), None) } else { looked_at(node) };
            if states[index] != state && !ended[index] {
                show.event(&state, &node.place, json!({}));
            }
            let contacts = contacts.map(|count| format!(" · {count} contacts")).unwrap_or_default();
            words.push(format!("{} {state}{contacts}", node.place.name));
            states[index] = state;
        }
        show.line(&words.join("   "));
        if ended.iter().all(|ended| *ended) {
            return Ok(true);
        }
    }
    Ok(ended.iter().any(|ended| *ended))
}

/// State and contacts of a node.
fn looked_at(node: &super::fleet::Node) -> (String, Option<u64>) {
    let client = node.client();
    match client.readiness() {
        Err(_) => ("starting".to_owned(), None),
        Ok(Err(_)) => ("not ready".to_owned(), None),
        Ok(Ok(())) => ("ready".to_owned(), client.cluster().ok().map(|view| view.contacts)),
    }
}

fn written(options: &Options, places: &[Place]) {
    for place in places {
        if options.json {
            println!("{}", described("written", place, json!({})));
        } else {
            println!("{}: aorta node --config {}", place.name, place.config.display());
        }
    }
    if let (false, Some(first)) = (options.json, places.first()) {
        println!("then: aorta status --http {}", first.http);
    }
}

fn described(event: &str, place: &Place, more: Value) -> Value {
    let mut line = json!({
        "event": event, "node": place.name, "sip": place.sip, "http": place.http, "cluster": place.cluster,
        "config": place.config,
    });
    if let (Value::Object(line), Value::Object(more)) = (&mut line, more) {
        line.extend(more);
    }
    line
}

/// Where the nodes' doings are shown: a table and a line that changes, or JSON lines.
struct Show {
    json: bool,
    bar: ProgressBar,
}

impl Show {
    fn new(json: bool) -> Self {
        let bar = if json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        bar.set_style(
            ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        Self { json, bar }
    }

    fn event(&mut self, event: &str, place: &Place, more: Value) {
        if self.json {
            println!("{}", described(event, place, more));
        } else if self.bar.is_hidden() {
            println!("{} {event}", place.name); // nobody sees a live line where there is no terminal
        }
    }

    fn ended(&mut self, node: &super::fleet::Node, how: &str) {
        if self.json {
            println!("{}", described("ended", &node.place, json!({ "how": how })));
        } else {
            self.bar.suspend(|| println!("{} ended: {how}\n{}", node.place.name, node.last_words()));
        }
    }

    fn table(&self, fleet: &Fleet, dir: &Path) {
        if self.json {
            return;
        }
        let mut lines = vec![["NODE", "SIP (UDP, TCP)", "HTTP", "CLUSTER", "LOG"].map(str::to_owned)];
        for node in fleet.nodes() {
            let place = &node.place;
            lines.push([
                place.name.clone(),
                place.sip.to_string(),
                format!("http://{}/v1/cluster", place.http),
                place.cluster.to_string(),
                place.log.display().to_string(),
            ]);
        }
        print!("{}", aligned(&lines));
        if let [first, ..] = fleet.nodes() {
            let (sip, http) = (first.place.sip, first.place.http);
            println!("\nFiles are in {}.", dir.display());
            println!("Point a phone at any of them: registrar and outbound proxy {sip}, any user name, no password;");
            println!("it is then sip:NAME@{} on all of them. Ask: aorta status --http {http}", sip.ip());
            println!("Ctrl-C stops all.\n");
        }
    }

    fn line(&mut self, text: &str) {
        self.bar.set_message(text.to_owned());
        self.bar.tick();
    }

    fn done(&mut self, fleet: &Fleet, killed: &[String]) {
        self.bar.finish_and_clear();
        for node in fleet.nodes() {
            self.event("stopped", &node.place, json!({ "killed": killed.contains(&node.place.name) }));
        }
        if !self.json {
            println!("All nodes are stopped.");
            killed.iter().for_each(|name| println!("{name} took longer than {FAREWELL:?} and was killed."));
        }
    }
}
