//! Floors: a room imports only from floors below it, and rooms on one floor do not import each other. Homes: a foreign
//! crate that shapes its user lives in one place.

use crate::sources::Source;

/// Rooms and their floors. A room is the first part of a path in `src/`, but for `location/snapshot`.
const FLOORS: [(&str, u8); 14] = [
    ("clock", 1),
    ("config", 1),
    ("metrics", 1),
    ("location", 2),
    ("snapshot", 3),
    ("registrar", 3),
    ("redirect", 3),
    ("proxy", 3),
    ("replication", 3),
    ("sip", 4),
    ("cluster", 4),
    ("admin", 4),
    ("node", 5),
    ("cli", 6),
];

/// Foreign crates and the only paths that may name them.
const HOMES: [(&str, &[&str]); 10] = [
    ("rsip", &["src/sip/message"]),
    ("sled", &["src/location/snapshot"]),
    ("chitchat", &["src/cluster/membership"]),
    ("quinn", &["src/cluster/endpoint", "src/cluster/link"]),
    ("quinn_proto", &["src/cluster/endpoint"]),
    ("rcgen", &["src/cluster/certificate"]),
    ("axum", &["src/admin"]),
    ("ureq", &["src/cli"]),
    ("indicatif", &["src/cli", "chaos/src/run/progress", "chaos/src/bench/progress", "chaos/src/seeds"]),
    ("clap", &["src/cli", "chaos/"]),
];

/// Rooms that are handed everything, time included.
const PURE: [&str; 8] = [
    "proto/src",
    "src/location/",
    "src/registrar",
    "src/redirect",
    "src/replication",
    "src/sip/message",
    "src/sip/transaction",
    "src/sip/uas",
];

/// The one file of a pure folder that is not.
const IMPURE: [&str; 1] = ["src/location/snapshot"];

/// What a pure room would reach the world by.
const WORLD: [&str; 10] = [
    "Instant::now",
    "SystemTime::now",
    "clock::wall_us",
    "tokio::",
    "std::net::UdpSocket",
    "std::net::Tcp",
    "std::fs",
    "std::thread",
    "std::env",
    "fastrand::",
];

/// What nobody may use, and why, but in the files named.
const FORBIDDEN: [(&str, &str, &[&str]); 5] = [
    ("SystemTime::now", "only the clock reads the wall clock", &["src/clock/mod.rs"]),
    ("unbounded_channel", "every queue has a bound", &[]),
    ("mpsc::channel()", "every queue has a bound", &[]),
    ("crossbeam_channel::unbounded", "every queue has a bound", &[]),
    ("mem::forget", "what is leaked is never bounded", &[]),
];

/// Crates and what must not be among their dependencies.
const INDEPENDENT: [(&str, &[&str]); 2] = [
    ("proto/Cargo.toml", &["tokio", "quinn", "sled", "rsip", "chitchat"]),
    ("chaos/phones/Cargo.toml", &["aorta", "aorta-proto", "rsip"]),
];

/// The room that a file of `src/` belongs to; `None` for the two roots.
fn room(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    if matches!(inside, "lib.rs" | "main.rs") {
        return None;
    }
    if inside.starts_with("location/snapshot") {
        return Some("snapshot");
    }
    Some(inside.split(['/', '.']).next().unwrap_or(inside))
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// Rooms that the table does not know.
pub(crate) fn homeless(source: &Source) -> Vec<String> {
    let room = room(&source.path).filter(|room| floor(room).is_none());
    room.map(|room| format!("{}: room '{room}' has no floor", source.path)).into_iter().collect()
}

/// Imports from the same floor or a higher one.
pub(crate) fn climbs(source: &Source) -> Vec<String> {
    let Some(here) = room(&source.path) else { return Vec::new() };
    let Some(own) = floor(here) else { return Vec::new() };
    let mut found = Vec::new();
    for (line, code) in source.code() {
        for there in named_rooms(code) {
            if there != here && floor(there).is_some_and(|other| other >= own) {
                found.push(format!("{}:{line}: {here} (floor {own}) imports {there}", source.path));
            }
        }
    }
    found
}

/// The rooms that a line names as `crate::room` or `crate::{room, …}`.
fn named_rooms(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let depth_one = group.split('}').next().unwrap_or(group);
            found.extend(depth_one.split(',').map(|item| first_name(item.trim())));
        } else if rest.starts_with("location::snapshot") {
            found.push("snapshot");
        } else {
            found.push(first_name(rest));
        }
    }
    found
}

fn first_name(path: &str) -> &str {
    path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(path)
}

/// Foreign crates named away from home.
pub(crate) fn strays(source: &Source) -> Vec<String> {
    if source.path.starts_with("tests/") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (line, code) in source.code() {
        for (name, homes) in HOMES {
            let named = code.contains(&format!("{name}::")) && !is_part_of_a_name(code, name);
            if named && !homes.iter().any(|home| source.path.starts_with(home)) {
                found.push(format!("{}:{line}: {name} lives in {}", source.path, homes.join(", ")));
            }
        }
    }
    found
}

fn is_part_of_a_name(code: &str, name: &str) -> bool {
    let Some(at) = code.find(&format!("{name}::")) else { return false };
    code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
}

/// Clocks, sockets, disks and threads in pure rooms.
pub(crate) fn impure(source: &Source) -> Vec<String> {
    let is_pure = PURE.iter().any(|room| source.path.starts_with(room))
        && !IMPURE.iter().any(|file| source.path.starts_with(file))
        && !source.path.contains("tests");
    if !is_pure {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (line, code) in source.code() {
        if code.starts_with("mod tests") {
            break; // what tests do is their own affair
        }
        let reached = WORLD.iter().filter(|name| code.contains(**name));
        found.extend(reached.map(|name| format!("{}:{line}: a pure room uses {name}", source.path)));
    }
    found
}

/// What nobody may use.
pub(crate) fn forbidden(source: &Source) -> Vec<String> {
    if source.path.contains("tests/") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (line, code) in source.code() {
        for (name, why, homes) in FORBIDDEN {
            if code.contains(name) && !homes.contains(&source.path.as_str()) {
                found.push(format!("{}:{line}: {name}: {why}", source.path));
            }
        }
    }
    found
}

/// Dependencies that would make a judge depend on the judged, or the law on a runtime.
pub(crate) fn dependencies(texts: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, refused) in INDEPENDENT {
        let Some(manifest) = texts.iter().find(|source| source.path == path) else {
            found.push(format!("{path} is not there"));
            continue;
        };
        let names = manifest.text.lines().filter_map(|line| line.split(['.', '=', ' ']).next());
        found.extend(names.filter(|name| refused.contains(name)).map(|name| format!("{path}: depends on {name}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::sample;

    #[test]
    fn a_climb_is_seen_in_every_form() {
        let climb = |path: &str, text: &str| climbs(&sample(path, text)).len();
        assert_eq!(climb("src/location/mod.rs", "use crate::registrar::judge;"), 1);
        assert_eq!(climb("src/registrar.rs", "use crate::{location::Location, replication};"), 1);
        assert_eq!(climb("src/registrar/mod.rs", "let x = crate::location::snapshot::open();"), 1);
        assert_eq!(climb("src/registrar/mod.rs", "use crate::location::Location; // crate::node"), 0);
        assert_eq!(climb("src/sip/uas.rs", "use crate::sip::message::Message;"), 0);
    }

    #[test]
    fn a_stray_is_seen() {
        assert_eq!(strays(&sample("src/node.rs", "use quinn::Endpoint;")).len(), 1);
        assert_eq!(strays(&sample("src/cluster/endpoint.rs", "use quinn::Endpoint;")).len(), 0);
        assert_eq!(strays(&sample("src/node.rs", "use crate::unsled::X;")).len(), 0);
    }

    #[test]
    fn impurity_is_seen() {
        assert_eq!(impure(&sample("src/replication/mod.rs", "let now = Instant::now();")).len(), 1);
        assert_eq!(impure(&sample("src/location/snapshot.rs", "std::fs::read(x)")).len(), 0);
        assert_eq!(forbidden(&sample("src/node.rs", "let (a, b) = unbounded_channel();")).len(), 1);
    }

    #[test]
    fn a_dependency_is_seen() {
        let phones = sample("chaos/phones/Cargo.toml", "aorta-proto.workspace = true");
        let proto = sample("proto/Cargo.toml", "serde = \"1\"\ntokio = { version = \"1\" }");
        assert_eq!(dependencies(&[phones, proto]).len(), 2);
    }
}
