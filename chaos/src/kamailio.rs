//! One running Kamailio, from Debian's packages: its folder, its words, its control socket, and its end. What it is
//! configured to be, an SBC or a registrar, is for others to say.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longest wait until it has ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Lines of its log that an error shows.
const WORDS_LINES: usize = 8;

/// The first of its processes; the others end with it, and it ends with this.
#[derive(Debug)]
pub(crate) struct Kamailio {
    child: Child,
    control: String,
    log: PathBuf,
}

/// Whether Kamailio and the tool that asks it are installed.
pub(crate) fn is_here() -> bool {
    let runs = |tool| Command::new(tool).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    runs("kamailio") && runs("kamcmd")
}

impl Kamailio {
    /// Starts it with this configuration, these definitions and arguments; what it writes goes to `folder`, which is made.
    /// `spawn` runs the command where it is to run.
    ///
    /// # Errors
    /// When the folder cannot be made or the process cannot be started.
    pub(crate) fn start(
        folder: &Path,
        configuration: &str,
        defines: &[String],
        args: &[&str],
        spawn: impl FnOnce(&mut Command) -> anyhow::Result<Child>,
    ) -> anyhow::Result<Self> {
        let run = folder.join("run");
        std::fs::create_dir_all(&run).with_context(|| format!("making {}", run.display()))?;
        let (file, log) = (folder.join("kamailio.cfg"), folder.join("log"));
        std::fs::write(&file, configuration)?;
        let output = File::create(&log)?;
        let control = format!("unix:{}", folder.join("control").display());
        let socket = format!("CONTROL_SOCKET=\"{control}\"");
        let mut command = Command::new("kamailio");
        command.args(["-DD", "-E", "-f"]).arg(&file).args(args);
        command.args(defines.iter().chain([&socket]).flat_map(|define| ["-A", define]));
        command.arg("-Y").arg(&run).arg("-P").arg(run.join("pid"));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = spawn(&mut command).context("starting kamailio")?;
        Ok(Self { child, control, log })
    }

    /// Waits until `so` holds of it.
    ///
    /// # Errors
    /// When it ends before, or `so` does not hold within `patience`: `what` is then what it does not do.
    pub(crate) fn until(
        &mut self,
        what: &str,
        patience: Duration,
        mut so: impl FnMut(&Self) -> bool,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !so(self) {
            let goes_on = self.child.try_wait()?.is_none();
            ensure!(goes_on, "kamailio ended: {}", self.words());
            ensure!(begun.elapsed() < patience, "kamailio does not {what}: {}", self.words());
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// How many lines of its answer are `line`, spaces around it aside.
    pub(crate) fn lines(&self, command: &str, line: impl Fn(&str) -> bool) -> usize {
        let output = Command::new("kamcmd").args(["-s", &self.control, command]).output();
        let output = output.ok().filter(|output| output.status.success());
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().filter(|text| line(text.trim())).count()
    }

    /// The process that the others belong to.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of its log.
    fn words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        format!("{}\n{}", self.log.display(), lines[lines.len().saturating_sub(WORDS_LINES)..].join("\n"))
    }

    /// Tells it to end. Killed, it would leave its other processes.
    pub(crate) fn end(&self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        self.end();
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK_AGAIN);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
