//! The command line as an operator meets it: the real program, its output and its exit codes. No node runs here.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

fn aorta(arguments: &[&str], dir: &Path) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_aorta")).args(arguments).current_dir(dir).output();
    command.expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn config_check_names_every_mistake_and_fails() {
    let dir = folder();
    let file = dir.path().join("aorta.toml");
    std::fs::write(&file, "ack = \"al\"\n[sip]\nlisen = []\nallow = [\"10.0.0.0/99\"]\n").expect("written");
    let output = aorta(&["config", "check", "aorta.toml"], dir.path());
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert!(lines[0].starts_with("aorta.toml:1: ack: \"al\" is none of all, one, none, disk"), "{said}");
    assert!(lines[1].starts_with("aorta.toml:3: sip.lisen: no such key; the nearest is sip.listen"), "{said}");
    assert!(lines[2].starts_with("aorta.toml:4: sip.allow: '10.0.0.0/99' is no network"), "{said}");
    assert_eq!(lines[3], "3 mistakes in all");
}

#[test]
fn config_check_takes_what_config_example_prints() {
    let dir = folder();
    let example = aorta(&["config", "example"], dir.path());
    std::fs::write(dir.path().join("aorta.toml"), &example.stdout).expect("written");
    let output = aorta(&["config", "check", "aorta.toml"], dir.path());
    assert_eq!((output.status.code(), text(&output.stdout).trim()), (Some(0), "aorta.toml: no mistake"));
    let missing = aorta(&["config", "check", "nowhere.toml"], dir.path());
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("nowhere.toml: the file cannot be read: No such file"), "{missing:?}");
}

#[test]
fn a_node_with_a_mistaken_configuration_does_not_start() {
    let dir = folder();
    let output = aorta(&["node", "--set", "sip.lisen=127.0.0.1:5060"], dir.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--set number 1: sip.lisen: no such key"), "{output:?}");
}

#[test]
fn certificates_are_written_once_and_keys_for_their_owner_only() {
    let dir = folder();
    assert!(aorta(&["cert", "init", "--cluster", "blue", "--dir", "pki"], dir.path()).status.success());
    let issue = ["cert", "issue", "node-1", "--ca-dir", "pki", "--dir", "out"];
    assert!(aorta(&issue, dir.path()).status.success());
    for (file, mode) in
        [("pki/ca.pem", 0o644), ("pki/ca.key", 0o600), ("out/node-1.pem", 0o644), ("out/node-1.key", 0o600)]
    {
        let found = std::fs::metadata(dir.path().join(file)).expect(file).permissions().mode() & 0o777;
        assert_eq!(found & !0o022, mode & !0o022, "{file}: {found:o}");
    }
    for again in [&issue[..], &["cert", "init", "--dir", "pki"]] {
        let output = aorta(again, dir.path());
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("exists already and is not overwritten"), "{output:?}");
    }
    let named = aorta(&["cert", "issue", "No Such Name", "--ca-dir", "pki"], dir.path());
    assert!(text(&named.stderr).contains("is no node id"), "{named:?}");
}

#[test]
fn config_check_knows_certificates_with_which_no_node_would_start() {
    let dir = folder();
    assert!(aorta(&["cert", "init", "--dir", "."], dir.path()).status.success());
    for node in ["one", "two"] {
        assert!(aorta(&["cert", "issue", node, "--ca-dir", ".", "--dir", "."], dir.path()).status.success());
    }
    let file = "data_dir = \"data\"\n[cluster]\nlisten = \"127.0.0.1:7060\"\nseeds = []\nca = \"ca.pem\"\n\
        certificate = \"one.pem\"\nkey = \"one.key\"\n";
    std::fs::write(dir.path().join("aorta.toml"), file).expect("written");
    let check = |set: &str| aorta(&["config", "check", "aorta.toml", "--set", set], dir.path());
    assert_eq!(check("node_id=one").status.code(), Some(0));
    for (set, says) in [
        ("node_id=two", "aorta cert issue two"),
        ("cluster.key=two.key", "is not the key of cluster.certificate"),
        ("cluster.certificate=one.key", "holds no certificate in PEM form"),
    ] {
        let output = check(set);
        assert_eq!(output.status.code(), Some(1), "{set}: {output:?}");
        assert!(text(&output.stderr).contains(says), "{output:?}");
    }
}

#[test]
fn dev_writes_configurations_that_are_sound() {
    let dir = folder();
    let output = aorta(&["dev", "--nodes", "3", "--dir", "D", "--write-only", "--sip-port", "15060"], dir.path());
    assert!(output.status.success(), "{output:?}");
    for node in 1..=3 {
        let file = format!("D/node{node}/aorta.toml");
        let checked = aorta(&["config", "check", &file], dir.path());
        assert!(checked.status.success(), "{checked:?}");
        let start = format!("aorta node --config {}", dir.path().join(&file).canonicalize().expect("there").display());
        assert!(text(&output.stdout).contains(&start), "{output:?}");
        let written = std::fs::read_to_string(dir.path().join(&file)).expect("there");
        assert!(written.contains(&format!("127.0.0.1:{}", 15_059 + node)), "{written}");
    }
}

#[test]
fn who_asks_where_no_node_answers_is_told_so() {
    let dir = folder();
    // Port 1 is never a node's.
    for command in [&["status"][..], &["dump"], &["show", "alice@example.com"], &["drain"], &["forget", "n2"]] {
        let output = aorta(&[command, &["--http", "127.0.0.1:1"]].concat(), dir.path());
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        assert!(text(&output.stderr).contains("no node answers at http://127.0.0.1:1"), "{output:?}");
    }
    assert_eq!(aorta(&["ready", "--http", "127.0.0.1:1"], dir.path()).status.code(), Some(2), "--force must be said");
}

#[test]
fn a_configuration_without_mistakes_starts_with_addresses_for_domains_too() {
    let dir = folder();
    let file = "data_dir = \"data\"\ndomains = [\"2001:db8::1\", \"[2001:db8::2]\"]\ntel_domain = \"2001:db8::1\"\n\
        [sip]\nlisten = [\"127.0.0.1:0\"]\n[http]\nlisten = \"nowhere\"\n[domain_aliases]\n\"::1\" = \"2001:db8::1\"\n";
    // What comes after the domains is refused: so the node ends by itself, and only by that.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    std::fs::write(dir.path().join("aorta.toml"), file.replace("nowhere", &address)).expect("written");
    let check = aorta(&["config", "check", "aorta.toml"], dir.path());
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    let node = aorta(&["node", "--config", "aorta.toml"], dir.path());
    assert!(text(&node.stderr).contains("aorta: http.listen"), "{node:?}");
}
