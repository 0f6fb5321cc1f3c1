//! The processes of the SBC test: Aorta nodes, Kamailio with the configuration of `deploy/sbc`, sipp as phones and
//! callers. Everything on loopback, on ports that were free; everything ends with its owner.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aorta::cli::fleet::Fleet;
use aorta::cli::layout::{self, Ports};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What the SBC waits for a node before it asks the next one.
pub(crate) const NODE_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest wait for anything that should come soon.
const PATIENCE: Duration = Duration::from_secs(20);

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Whether Debian's kamailio and sip-tester are here; says so if not.
pub(crate) fn tools_are_here() -> bool {
    let here = |tool: &str, version: &str| {
        Command::new(tool).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let all = here("kamailio", "-v") && here("kamcmd", "-v") && here("sipp", "-v");
    if !all {
        println!("SKIPPED: kamailio or sip-tester is not installed");
    }
    all
}

/// Waits until `what` holds; panics with its name when it does not in time.
pub(crate) fn until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < within, "not after {within:?}: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
    begun.elapsed()
}

/// Three nodes, an SBC, and ports for phones and callers.
pub(crate) struct Bench {
    pub(crate) fleet: Fleet,
    dir: tempfile::TempDir,
    sbc: Option<Child>,
    sbc_port: u16,
    phone_port: u16,
    other_port: u16,
    caller_port: u16,
}

impl Bench {
    /// Starts three nodes and the SBC, and waits until it uses all of them.
    pub(crate) fn start(extra: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut ports = layout::free_ports(5).expect("free ports");
        let [sbc, spare]: [Ports; 2] = ports.split_off(3).try_into().expect("five were asked for");
        let places = layout::write(dir.path(), &ports, extra).expect("configurations");
        let mut fleet = Fleet::new(Path::new(env!("CARGO_BIN_EXE_aorta")), places);
        (0..3).for_each(|node| fleet.start(node).expect("a node starts"));
        for node in 0..3 {
            fleet.wait_ready(node, PATIENCE).expect("a node is ready");
        }
        let mut bench = Self {
            fleet,
            dir,
            sbc: None,
            sbc_port: sbc.sip,
            phone_port: sbc.http,
            other_port: sbc.cluster,
            caller_port: spare.sip,
        };
        bench.sbc = Some(bench.start_sbc());
        until("the SBC uses all nodes", PATIENCE, || bench.nodes_in_use() == [true; 3]);
        bench
    }

    fn start_sbc(&self) -> Child {
        let nodes: String = self.fleet.nodes().iter().map(|node| format!("1 sip:{}\n", node.place.sip)).collect();
        std::fs::write(self.path("dispatcher.list"), nodes).expect("a list of nodes");
        std::fs::create_dir(self.path("run")).expect("a folder");
        let log = File::create(self.path("kamailio.log")).expect("a log");
        let quoted = |name: &str, value: String| format!("{name}=\"{value}\"");
        let defines = [
            format!("SBC_PORT={}", self.sbc_port),
            format!("NODE_TIMEOUT_MS={}", NODE_TIMEOUT.as_millis()),
            "PROBE_INTERVAL_S=1".to_owned(),
            "WORKERS=4".to_owned(),
            quoted("NODES_FILE", self.path("dispatcher.list").display().to_string()),
            quoted("CONTROL_SOCKET", self.control_socket()),
        ];
        Command::new("kamailio")
            .args(["-DD", "-E", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/sbc/kamailio.cfg")])
            .args(defines.iter().flat_map(|define| ["-A", define]))
            .arg("-Y")
            .arg(self.path("run"))
            .arg("-P")
            .arg(self.path("run/pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("kamailio starts")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn control_socket(&self) -> String {
        format!("unix:{}", self.path("control").display())
    }

    /// Which nodes the SBC sends requests to, in the order of the nodes.
    pub(crate) fn nodes_in_use(&self) -> Vec<bool> {
        let output = Command::new("kamcmd").args(["-s", &self.control_socket(), "dispatcher.list"]).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let active = |uri: String| {
            let at = lines.iter().position(|line| *line == format!("URI: {uri}"))?;
            lines[at..].iter().find_map(|line| line.strip_prefix("FLAGS: ")).map(|flags| flags.starts_with('A'))
        };
        let nodes = self.fleet.nodes().iter();
        nodes.map(|node| active(format!("sip:{}", node.place.sip)).unwrap_or(false)).collect()
    }

    /// How many INVITEs this node has had since it started; 0 while it does not answer.
    pub(crate) fn invites(&self, node: usize) -> u64 {
        let Ok((200, text)) = self.fleet.nodes()[node].client().get("/metrics") else { return 0 };
        let counter = text.lines().find(|line| line.starts_with("aorta_sip_requests_total{method=\"invite\"}"));
        counter.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    }

    /// Users `first` to `first + count − 1` with the last number of their phones' addresses, as sipp reads them.
    fn users(&self, first: usize, count: usize) -> PathBuf {
        let path = self.path(&format!("users{first}.csv"));
        let lines: String = (first..first + count).map(|user| format!("user{user};{};\n", user % 250 + 1)).collect();
        std::fs::write(&path, format!("SEQUENTIAL\n{lines}")).expect("a list of users");
        path
    }

    fn sipp(&self, scenario: &str, port: u16) -> Command {
        let mut command = Command::new("sipp");
        let log = |name: &str| File::create(self.path(&format!("{scenario}{port}.{name}"))).expect("a log");
        command
            .current_dir(self.dir.path())
            .arg("-sf")
            .arg(format!("{}/tests/sbc_kamailio/{scenario}.xml", env!("CARGO_MANIFEST_DIR")))
            .args(["-i", "127.0.0.1", "-p", &port.to_string(), "-nostdin", "-trace_err"])
            .args(["-error_file", &format!("{scenario}{port}.err")])
            .stdin(Stdio::null())
            .stdout(log("out"))
            .stderr(log("out2"));
        command
    }

    fn client(&self, scenario: &str, port: u16, users: &Path, count: usize, rate: usize) -> Load {
        let mut command = self.sipp(scenario, port);
        command
            .arg(format!("127.0.0.1:{}", self.sbc_port))
            .arg("-inf")
            .arg(users)
            .args(["-m", &count.to_string(), "-r", &rate.to_string(), "-l", "100000"])
            .args(["-timeout", &format!("{}s", count / rate + 60), "-timeout_error"])
            .args(["-trace_rtt", "-rtt_freq", "1", "-trace_stat", "-fd", "1"])
            .args(["-stf", &format!("{scenario}{port}.csv")]);
        let child = Process(command.spawn().expect("sipp starts"));
        Load {
            child,
            dir: self.dir.path().to_owned(),
            name: format!("{scenario}{port}"),
            scenario: scenario.to_owned(),
        }
    }

    /// Registers phones that will be called; they all listen on one port.
    pub(crate) fn register_phones(&self, count: usize) {
        self.client("register", self.phone_port, &self.users(1, count), count, 200).all_succeed();
    }

    /// Where the SBC takes calls.
    pub(crate) fn sbc_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.sbc_port).into()
    }

    /// Registrations of other phones, again and again.
    pub(crate) fn registrations(&self, count: usize, rate: usize) -> Load {
        self.client("register", self.other_port, &self.users(10_000, 500), count, rate)
    }

    /// The registered phones answer from now on, until it is dropped.
    pub(crate) fn phones(&self) -> Process {
        let phones = Process(self.sipp("phone", self.phone_port).spawn().expect("sipp starts"));
        let port = self.phone_port;
        until("the phones listen", PATIENCE, || UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_err());
        phones
    }

    /// Calls to the first `users` phones.
    pub(crate) fn calls(&self, users: usize, count: usize, rate: usize) -> Load {
        self.client("caller", self.caller_port, &self.users(1, users), count, rate)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = std::fs::read(self.path("kamailio.log")).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().filter(|line| !line.contains("INFO:")).collect();
            println!("the SBC said:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
        // Killed at once it would leave its workers behind.
        let Some(mut sbc) = self.sbc.take() else { return };
        if let Ok(pid) = i32::try_from(sbc.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = sbc.wait();
    }
}

/// A process that ends when it is dropped.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// sipp at work as a client.
pub(crate) struct Load {
    child: Process,
    dir: PathBuf,
    name: String,
    scenario: String,
}

/// What sipp measured.
pub(crate) struct Measured {
    /// Longest time from a first request to its final answer.
    pub(crate) longest: Duration,
    /// How many of those times there are.
    pub(crate) answers: usize,
    /// Requests that had to be sent again.
    pub(crate) retransmissions: u64,
}

impl Load {
    /// Waits for the end; panics unless every call or registration succeeded.
    pub(crate) fn all_succeed(mut self) -> Measured {
        let status = self.child.0.wait().expect("sipp ends");
        let read = |ending: &str| {
            let bytes = std::fs::read(self.dir.join(format!("{}.{ending}", self.name))).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let errors = read("err");
        let head: String = errors.chars().take(3000).collect();
        let failed = self.last_statistic(&read("csv"), "FailedCall(C)");
        assert!(status.success(), "{}: {status}, {failed:?} failed:\n{head}", self.scenario);
        let times = self.times();
        Measured {
            longest: Duration::from_millis(times.iter().copied().max().unwrap_or_default()),
            answers: times.len(),
            retransmissions: self.last_statistic(&read("csv"), "Retransmissions(C)").unwrap_or_default(),
        }
    }

    /// Milliseconds of every answer.
    fn times(&self) -> Vec<u64> {
        let path = self.dir.join(format!("{}_{}_rtt.csv", self.scenario, self.child.0.id()));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| line.split(';').nth(1)?.parse::<f64>().ok()).map(|time| time as u64).collect()
    }

    fn last_statistic(&self, csv: &str, column: &str) -> Option<u64> {
        let mut lines = csv.lines();
        let index = lines.next()?.split(';').position(|name| name == column)?;
        lines.next_back()?.split(';').nth(index)?.parse().ok()
    }
}
