//! `aorta show`, `dump` and `rm`: what a node knows of AoRs, for people and for scripts.

use std::io::{BufWriter, ErrorKind, Write as _};
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::client::{Client, Target, escaped};
use crate::admin::Removal;

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The AoR: alice@example.com.
    aor: String,
    /// Print what the node says as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct Dump {
    /// Also what is only remembered: removed and lapsed contacts.
    #[arg(long)]
    gone: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The AoR: alice@example.com.
    aor: String,
    /// One Contact URI of it; without it all of them.
    contact: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// Status of an AoR that the node knows nothing of.
const NOT_FOUND: u16 = 404;

pub(super) fn show(show: &Show) -> anyhow::Result<ExitCode> {
    let client = Client::of(&show.target)?;
    let aor = bare(&show.aor);
    let (status, body) = client.get(&format!("/v1/aors/{}", escaped(aor)))?;
    if status == NOT_FOUND {
        println!("{aor}: nothing is known");
        return Ok(ExitCode::FAILURE);
    }
    let body = client.accepted((status, body))?;
    if show.json {
        println!("{}", body.trim_end());
    } else {
        print!("{}", described(&serde_json::from_str(&body)?));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn dump(dump: &Dump) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut piped = true;
    let result = Client::of(&dump.target)?.lines(if dump.gone { "/v1/aors?gone=true" } else { "/v1/aors" }, |line| {
        let written = writeln!(out, "{line}");
        piped = !matches!(&written, Err(error) if error.kind() == ErrorKind::BrokenPipe);
        Ok(written?)
    });
    // `aorta dump | head` has what it wanted.
    if !piped {
        return Ok(ExitCode::SUCCESS);
    }
    result?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn remove(remove: &Remove) -> anyhow::Result<ExitCode> {
    let client = Client::of(&remove.target)?;
    let aor = bare(&remove.aor);
    let mut path = format!("/v1/aors/{}", escaped(aor));
    if let Some(contact) = &remove.contact {
        path.push_str(&format!("?contact={}", escaped(contact)));
    }
    let (status, body) = client.delete(&path)?;
    if status == NOT_FOUND {
        println!("{aor}: no such contact");
        return Ok(ExitCode::FAILURE);
    }
    let removal: Removal = serde_json::from_str(&client.accepted((status, body))?)?;
    let contacts = if removal.removed == 1 { "contact is" } else { "contacts are" };
    println!("{aor}: {} {contacts} removed", removal.removed);
    if removal.short {
        println!("not every node has acknowledged it yet; it will reach them");
    }
    Ok(ExitCode::SUCCESS)
}

/// An AoR without what came along when it was copied from a header. Its scheme stays: only with it are escapes and
/// parameters read as a URI's.
fn bare(aor: &str) -> &str {
    aor.trim().trim_start_matches('<').trim_end_matches('>')
}

/// An AoR for reading: a block a contact, then what is only remembered.
fn described(aor: &Value) -> String {
    let mut out = format!("{}\n", plain(&aor["aor"]));
    let contacts = aor["contacts"].as_array().map_or(&[][..], Vec::as_slice);
    if contacts.is_empty() {
        out.push_str("  no live contact\n");
    }
    for contact in contacts {
        let (left, granted) = (plain(&contact["remaining_s"]), plain(&contact["granted_s"]));
        out.push_str(&format!("  {}   {left} s left of {granted}\n", plain(&contact["contact"])));
        let path: Vec<String> = contact["path"].as_array().into_iter().flatten().map(plain).collect();
        let register = format!("{} CSeq {}", plain(&contact["call_id"]), plain(&contact["cseq"]));
        let lines = [
            ("parameters", plain(&contact["params"])),
            ("Path", path.join(", ")),
            ("from", plain(&contact["source"])),
            ("accepted by", plain(&contact["node"])),
            ("User-Agent", plain(&contact["user_agent"])),
            ("Call-ID", register),
        ];
        for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
            out.push_str(&format!("      {name:12}{value}\n"));
        }
    }
    for gone in aor["gone"].as_array().into_iter().flatten() {
        out.push_str(&format!("  {}   {}\n", plain(&gone["key"]), plain(&gone["why"])));
    }
    out
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aor_is_taken_as_people_write_it() {
        for (written, sent) in [
            ("alice@example.com", "alice@example.com"),
            (" <sips:alice@example.com> ", "sips:alice@example.com"),
            ("sip:a%40b@example.com;user=phone", "sip:a%40b@example.com;user=phone"),
        ] {
            assert_eq!(bare(written), sent);
        }
    }

    #[test]
    fn what_a_node_says_is_readable() {
        let value = serde_json::json!({
            "aor": "a@b",
            "contacts": [{ "contact": "sip:a@1", "remaining_s": 9, "granted_s": 60, "path": ["<sip:p>"], "user_agent": "" }],
            "gone": [{ "key": "sip:a@2", "why": "removed" }],
        });
        let text = described(&value);
        assert!(text.starts_with("a@b\n  sip:a@1   9 s left of 60\n"), "{text}");
        assert!(text.contains("      Path        <sip:p>\n"), "{text}");
        assert!(text.ends_with("  sip:a@2   removed\n"), "{text}");
        assert!(!text.contains("User-Agent"), "{text}");
    }
}
