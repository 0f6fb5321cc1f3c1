//! Builds the floors, starts them in order, stops them in reverse. Each part's own affairs are in its room; what two parts
//! have to do with each other is here.
//!
//! | file | what |
//! |---|---|
//! | `mod` | starting, waiting for orders, leaving |
//! | `settings` | from the configuration to what each room takes |
//! | `core` | what the parts share, and what follows from replication's effects |
//! | `service`, `peers`, `operator` | SIP's, the links' and HTTP's way in |
//! | `sockets`, `links` | the thread of SIP over UDP and of the links; the cluster room |
//! | `disk`, `members` | the threads that write; members remembered over restarts |
//! | `gauges`, `events`, `clocks` | what an operator reads |

mod clocks;
mod core;
mod disk;
mod events;
mod gauges;
mod links;
mod members;
mod operator;
mod peers;
mod service;
mod settings;
mod sockets;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aorta_proto::digest::BUCKETS;
use aorta_proto::{BootId, NodeId};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::core::{Core, HTTP_KEY, Leaving};
use self::disk::Worker;
use self::gauges::{Gauges, Seen};
use self::links::Links;
use self::members::KeptMember;
use self::settings::Keys;
pub use self::settings::digest_key_hash;
use self::sockets::Sockets;
use crate::admin::{Admin, Settings as AdminSettings, Shown};
use crate::clock::{Clock, WallClocks, wall_us};
use crate::cluster::{Identity, IdentityError};
use crate::config::Config;
use crate::location::Location;
use crate::location::snapshot::{Loaded, Snapshot};
use crate::metrics::Metrics;
use crate::replication::{Replication, Start, TICK_US};
use crate::sip::transport::{Bound, Transports};
use crate::sip::uas::{Uas, UasSettings, aor_rules};

/// Time between two steps of the sweeper; ten of them pass over the whole table. As often it is looked whether the table
/// takes more memory than it may: what is accepted until then goes beyond.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// Buckets that one step of the sweeper looks at.
const SWEEP_BUCKETS: u32 = BUCKETS.div_ceil(10);

/// Time between two looks at what the rooms counted.
const COPY_EVERY: Duration = Duration::from_secs(1);

/// Every so many copies, samples are sorted into buckets.
const UPKEEP_EVERY: u32 = 5;

/// Every so many copies, a certificate that ends soon is mentioned again: once a day.
const WARN_EVERY: u32 = 86_400;

/// What `aorta config check` can know of a node's certificate, CA and key before it starts: that they can be read, belong
/// together and give the configured name.
///
/// # Errors
///
/// When the node would not start with them.
pub fn check_certificates(config: &Config) -> Result<(), IdentityError> {
    let Some(cluster) = &config.cluster else { return Ok(()) };
    settings::identity(cluster, config.node_id.as_ref()).map(drop)
}

/// Runs a node until it has left.
///
/// # Errors
/// When it cannot start: with the key, file or address, and the way out.
pub fn run(config: Config) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let node = Node::start(&config).await?;
        node.run(&config).await
    })
}

/// Who this node is, before anything is bound.
struct Bearings {
    node: NodeId,
    identity: Option<Identity>,
    keys: Keys,
    boot: BootId,
}

impl Bearings {
    fn take(config: &Config) -> anyhow::Result<Self> {
        let boot = BootId(settings::random_u64());
        let Some(cluster) = &config.cluster else {
            return Ok(Self { node: settings::lone_node_id(config)?, identity: None, keys: Keys::random(), boot });
        };
        let identity = settings::identity(cluster, config.node_id.as_ref())?;
        let keys = Keys::of_cluster(&identity.bearer.cluster);
        Ok(Self { node: identity.bearer.node.clone(), identity: Some(identity), keys, boot })
    }
}

/// A running node.
struct Node {
    core: Arc<Core>,
    sockets: Sockets,
    transports: Arc<Transports>,
    links: Option<Links>,
    http: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
    stop_http: CancellationToken,
    /// Stopped first: they only look.
    lookers: Vec<Worker>,
    snapshot: Worker,
    ceiling: Worker,
}

impl Node {
    async fn start(config: &Config) -> anyhow::Result<Self> {
        let bearings = Bearings::take(config)?;
        let rules = aor_rules(config).map_err(anyhow::Error::msg)?;
        // Addresses first: one that is taken is found out before the disk is touched.
        let sip =
            Bound::bind(settings::transport(config)).context("sip.listen; give a free address of this machine")?;
        let http = match config.http.listen {
            None => None,
            Some(listen) => {
                let token = config.http.token.clone();
                let settings = AdminSettings { listen, token, rules: rules.clone() };
                Some(Admin::bind(settings).await.context("http.listen; give a free address of this machine")?)
            }
        };
        let clock = Arc::new(Clock::system(bearings.boot));
        let location = Arc::new(Location::new(bearings.keys.digest, true));
        let (snapshot, ceiling, loaded) = Snapshot::open(&config.data_dir, &bearings.node, &location)
            .with_context(|| format!("data_dir = \"{}\"", config.data_dir.display()))?;
        tell_loaded(&loaded);
        let known = loaded.members.as_deref().map(members::decode).unwrap_or_default();
        let generation = wall_us().max(loaded.clock.map_or(0, |kept| kept.ceiling_us));
        let addresses = sip.addresses().into_iter().map(|(_, address)| address).collect();
        let uas = UasSettings::from_config(config, bearings.node.clone(), rules, addresses, bearings.keys.tag);
        let uas = Uas::new(uas, Arc::clone(&location), Arc::clone(&clock));
        let start = start_with(config, &loaded, &known);
        let settings = settings::replication(config, bearings.node.clone(), bearings.boot, &bearings.keys);
        let now = clock.now();
        let replication = Replication::new(settings, start, Arc::clone(&location), Arc::clone(&clock), now);
        let metrics = Arc::new(Metrics::new());
        let gauges = Gauges::new(metrics, bearings.identity.as_ref().map(|identity| identity.validity));
        let told = http.as_ref().and_then(|admin| settings::http_for_others(admin.address(), config.cluster.as_ref()));
        let own_addresses = vec![(HTTP_KEY, told)];
        let clocks = WallClocks::new(bearings.node.clone(), config.clock_skew_warn_s);
        let core =
            Core::new(Arc::clone(&location), Arc::clone(&clock), replication, uas, gauges, clocks, own_addresses);
        let core = Arc::new(core);
        core.remember_addresses(known);
        let ceiling = disk::keep_ceiling(&core, ceiling).context("starting the ceiling's thread")?;
        let interval = Duration::from_millis(config.snapshot_interval_ms);
        let snapshot = disk::keep_snapshot(&core, snapshot, interval).context("starting the snapshot's thread")?;
        let runtime = tokio::runtime::Handle::current();
        let sockets = Sockets::start()?;
        let transports =
            sip.start(Arc::clone(&core), Arc::clone(&clock), &sockets.handle, &runtime).context("starting SIP")?;
        let transports = Arc::new(transports);
        for (transport, address) in transports.addresses() {
            info!(%transport, %address, "SIP");
        }
        let links = Links::start(config, &bearings.node, bearings.identity, &core, generation, &sockets.handle).await?;
        let stop_http = CancellationToken::new();
        let http = http.map(|admin| {
            info!(address = %admin.address(), "HTTP");
            tokio::spawn(admin.serve(shown(&core), stop_http.clone()))
        });
        let lookers = lookers(&core, &transports).context("starting the node's threads")?;
        Ok(Self { core, sockets, transports, links, http, stop_http, lookers, snapshot, ceiling })
    }

    /// Waits for an order to leave, and leaves.
    async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
        let mut serves = self.core.serves.subscribe();
        let mut orders = self.core.leave_orders.subscribe();
        let mut leaving = self.core.leaving.subscribe();
        let grace_us = config.drain_grace_s * 1_000_000;
        let timeout_us = (config.drain_timeout_s - config.drain_grace_s) * 1_000_000;
        loop {
            tokio::select! {
                _ = terminate.recv() => self.core.order_to_leave(),
                _ = interrupt.recv() => self.core.order_to_leave(),
                Ok(()) = serves.changed() => notify(*serves.borrow_and_update()),
                Ok(()) = orders.changed() => {
                    let again = *orders.borrow_and_update() > 1;
                    info!(again, "told to leave: drains");
                    sd_notify_stopping();
                    let now = self.core.clock.now();
                    let effects = self.core.replication.drain(grace_us, timeout_us, now);
                    self.core.act(effects, now);
                }
                Ok(leaving) = leaving.wait_for(|leaving| *leaving != Leaving::Not) => {
                    let how = *leaving;
                    drop(leaving);
                    self.leave().await;
                    return Ok(exit_code(how));
                }
            }
        }
    }

    /// Last snapshot, good-bye, silence.
    async fn leave(self) {
        let Self { core, sockets, transports, links, http, stop_http, lookers, snapshot, ceiling } = self;
        let now = core.clock.now();
        let effects = core.replication.leave(now);
        core.act(effects, now);
        if let Some(links) = links {
            links.leave(&core).await;
        }
        let writers = tokio::task::spawn_blocking(move || {
            lookers.into_iter().for_each(Worker::stop);
            snapshot.stop();
            ceiling.stop();
        });
        if writers.await.is_err() {
            error!("the last snapshot ended in a panic");
        }
        stop_http.cancel();
        if let Some(http) = http {
            // What the HTTP server says of its end changes nothing any more.
            drop(http.await);
        }
        match Arc::try_unwrap(transports) {
            Ok(transports) => transports.stop().await,
            Err(_) => error!("the SIP transports are still in use"),
        }
        sockets.stop().await;
        info!("left");
    }
}

/// What replication is told of the past.
fn start_with(config: &Config, loaded: &Loaded, known: &[KeptMember]) -> Start {
    let wall_us = wall_us();
    // What was loaded was stamped at the latest when it was, whatever became of the ceiling.
    let ceiling_us = loaded.clock.map_or(0, |kept| kept.ceiling_us).max(loaded.latest_us);
    Start {
        wall_us,
        clock_guess_us: loaded.clock.map(|kept| kept.resumed_us(wall_us)),
        clock_ceiling_us: (ceiling_us > 0).then_some(ceiling_us),
        clock_only_from_peers: loaded.full || (loaded.clock.is_none() && loaded.aors > 0),
        last_known: known.iter().map(|kept| kept.known.clone()).collect(),
        seeds_unreached: config.cluster.as_ref().map(|cluster| cluster.seeds.clone()).unwrap_or_default(),
    }
}

fn tell_loaded(loaded: &Loaded) {
    let Loaded { aors, damaged, newer, set_aside, full, .. } = loaded;
    info!(aors, "loaded from disk");
    if *damaged > 0 || *newer > 0 {
        warn!(damaged, newer, "some records on disk could not be read; peers hold them");
    }
    if let Some(path) = set_aside {
        error!(path = %path.display(), "the snapshot was damaged and is set aside; this node starts from its peers");
    }
    if *full {
        error!("the disk is full: nothing was loaded; this node waits for a peer's clock");
    }
}

fn shown(core: &Arc<Core>) -> Shown<Core> {
    Shown {
        node: Arc::clone(core),
        location: Arc::clone(&core.location),
        clock: Arc::clone(&core.clock),
        metrics: Arc::clone(&core.gauges.metrics),
    }
}

/// The threads that look after time, lapses and numbers.
fn lookers(core: &Arc<Core>, transports: &Arc<Transports>) -> std::io::Result<Vec<Worker>> {
    let ticking = Arc::clone(core);
    let tick = Worker::spawn("tick", move |_last| {
        let now = ticking.clock.now();
        let effects = ticking.replication.timeout(now);
        ticking.act(effects, now);
        let due_us = ticking.replication.next_timeout_us().saturating_sub(now.mono_us);
        Duration::from_micros(due_us.clamp(1000, TICK_US))
    })?;
    let sweeping = Arc::clone(core);
    let sweep = Worker::spawn("sweep", move |_last| {
        let now = sweeping.clock.now();
        if sweeping.clock.is_set() {
            sweeping.gauges.swept(sweeping.location.sweep(now, SWEEP_BUCKETS));
        }
        let effects = sweeping.replication.memory(sweeping.location.counts().bytes, now);
        sweeping.act(effects, now);
        SWEEP_EVERY
    })?;
    let (copying, transports) = (Arc::clone(core), Arc::clone(transports));
    let mut turn = 0u32;
    let copy = Worker::spawn("metrics", move |_last| {
        let (table, cluster) = (copying.location.counts(), copying.replication.view(copying.clock.now()));
        copying.tell_table(table, cluster.root);
        copying.compare_clocks();
        copying.gauges.copy(&Seen {
            now: copying.clock.now(),
            serves: copying.serving().probes,
            table,
            cluster,
            changes_received: copying.replication.changes_received(),
            answered: copying.uas.counts(),
            transports: transports.counts(),
        });
        let problem = copying.gauges.certificate_problem();
        copying.replication.forbid_cold_start(problem);
        if turn.is_multiple_of(WARN_EVERY) && copying.gauges.certificate_ends_soon() {
            warn!(
                "this node's certificate ends within 30 days, or has ended; issue a new one with `aorta cert issue` and restart"
            );
        }
        if turn.is_multiple_of(UPKEEP_EVERY) {
            copying.gauges.metrics.upkeep();
        }
        turn = turn.wrapping_add(1);
        COPY_EVERY
    })?;
    Ok(vec![tick, sweep, copy])
}

/// Tells systemd, where it started this process, that the node serves, or why it does not.
fn notify(serves: bool) {
    let states: &[NotifyState<'_>] = if serves {
        &[NotifyState::Ready, NotifyState::Status("ready")]
    } else {
        &[NotifyState::Status("not ready: rejoins")]
    };
    if let Err(error) = sd_notify::notify(false, states) {
        warn!(%error, "systemd could not be told");
    }
}

fn sd_notify_stopping() {
    if let Err(error) = sd_notify::notify(false, &[NotifyState::Stopping, NotifyState::Status("drains")]) {
        warn!(%error, "systemd could not be told");
    }
}

fn exit_code(how: Leaving) -> ExitCode {
    match how {
        Leaving::TimedOut { only_here } => {
            error!(only_here, "left with entries that, as far as known, no other node has; its disk has them");
            ExitCode::FAILURE
        }
        Leaving::Not | Leaving::Drained => ExitCode::SUCCESS,
    }
}
