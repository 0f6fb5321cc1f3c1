//! A node's HTTP interface, seen from outside. It asks and reports; what an answer means is its caller's matter.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::de::DeserializeOwned;

use crate::admin::ClusterView;
use crate::config::Config;

/// Where a node answers, as arguments of a command.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// HTTP address of a node [default: 127.0.0.1:8060].
    #[arg(long, value_name = "HOST:PORT")]
    pub http: Option<String>,
    /// Its http.token, where it has one.
    #[arg(long)]
    pub token: Option<String>,
    /// Take address and token from the node's configuration file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["http", "token"])]
    pub config: Option<PathBuf>,
}

/// Where a node answers that is configured with nothing else.
const DEFAULT_HTTP: &str = "127.0.0.1:8060";

/// A node to ask.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    token: Option<String>,
    agent: ureq::Agent,
}

/// Longest wait for a connection and for the head of an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Longest wait for the next bytes of an answer that is streamed.
const STALL: Duration = Duration::from_secs(30);

impl Client {
    /// A client of the node that answers at `http`, `host:port`.
    #[must_use]
    pub fn new(http: &str, token: Option<&str>) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(STALL))
            .http_status_as_error(false)
            .build()
            .new_agent();
        let base = if http.contains("://") { http.trim_end_matches('/').to_owned() } else { format!("http://{http}") };
        Self { base, token: token.map(str::to_owned), agent }
    }

    /// A client of the node that a command's arguments name.
    ///
    /// # Errors
    /// When the configuration file has mistakes or serves no HTTP.
    pub fn of(target: &Target) -> anyhow::Result<Self> {
        let Some(file) = &target.config else {
            return Ok(Self::new(target.http.as_deref().unwrap_or(DEFAULT_HTTP), target.token.as_deref()));
        };
        let http = Config::load(Some(file), &[])?.http;
        let mut address = http.listen.with_context(|| format!("{} serves no HTTP", file.display()))?;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        Ok(Self::new(&address.to_string(), http.token.as_deref()))
    }

    /// Where it asks: `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// The same token for another node of the cluster.
    #[must_use]
    pub fn to(&self, http: &str) -> Self {
        Self::new(http, self.token.as_deref())
    }

    /// GET, whatever the status: status and body.
    ///
    /// # Errors
    /// When nobody answers in time.
    pub fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        self.text(request.call())
    }

    /// GET of JSON.
    ///
    /// # Errors
    /// When nobody answers in time, refuses, or answers something else.
    pub fn json<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let body = self.accepted(self.get(path)?)?;
        serde_json::from_str(&body).with_context(|| format!("{}{path} is not what this aorta expects", self.base))
    }

    /// GET of lines, each handed over as it comes; the line has no end.
    ///
    /// # Errors
    /// When nobody answers, the answer breaks off, or `each` fails.
    pub fn lines(&self, path: &str, mut each: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let response = request.call().with_context(|| self.silent())?;
        if !response.status().is_success() {
            self.accepted(self.text(Ok(response))?)?;
            return Ok(());
        }
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            each(&line.with_context(|| format!("the answer of {} broke off", self.base))?)?;
        }
        Ok(())
    }

    /// POST without a body; the answer's body.
    ///
    /// # Errors
    /// When nobody answers in time, or refuses.
    pub fn post(&self, path: &str) -> anyhow::Result<String> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        self.accepted(self.text(request.send_empty())?)
    }

    /// DELETE; status and body.
    ///
    /// # Errors
    /// When nobody answers in time.
    pub fn delete(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let mut request = self.agent.delete(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        self.text(request.call())
    }

    fn text(&self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> anyhow::Result<(u16, String)> {
        let response = answer.with_context(|| self.silent())?;
        let status = response.status().as_u16();
        let body = response.into_body().into_with_config().limit(u64::MAX).read_to_string();
        Ok((status, body.with_context(|| format!("reading the answer of {}", self.base))?))
    }

    fn silent(&self) -> String {
        format!("no node answers at {} (--http names another)", self.base)
    }

    /// The body of an answer that is none of a refusal.
    ///
    /// # Errors
    /// What the node said against it.
    pub fn accepted(&self, (status, body): (u16, String)) -> anyhow::Result<String> {
        match status {
            200..300 => Ok(body),
            401 => anyhow::bail!("{} wants its http.token: give --token", self.base),
            _ => anyhow::bail!("{} answers {status}: {}", self.base, complaint(&body)),
        }
    }

    /// Whether the node says that it is ready, else its reason.
    ///
    /// # Errors
    /// When nobody answers in time.
    pub fn readiness(&self) -> anyhow::Result<Result<(), String>> {
        let (status, body) = self.get("/readyz")?;
        Ok(if status == 200 { Ok(()) } else { Err(body.trim().to_owned()) })
    }

    /// The sum of one metric over those of its label sets that hold `label` (`direction="in"`); 0 when there is none.
    ///
    /// # Errors
    /// When nobody answers in time, or refuses.
    pub fn metric(&self, name: &str, label: &str) -> anyhow::Result<f64> {
        let text = self.accepted(self.get("/metrics")?)?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let whole = labels.is_empty() || labels.starts_with('{');
            (whole && labels.contains(label)).then(|| value.parse::<f64>().ok()).flatten()
        });
        Ok(values.sum())
    }

    /// What the node says of itself and its cluster.
    ///
    /// # Errors
    /// When nobody answers in time, or answers something else.
    pub fn cluster(&self) -> anyhow::Result<ClusterView> {
        self.json("/v1/cluster")
    }
}

/// What is in `{"error": "…"}`, else the text as it is.
fn complaint(body: &str) -> String {
    let error =
        serde_json::from_str::<serde_json::Value>(body).ok().and_then(|json| Some(json["error"].as_str()?.to_owned()));
    error.unwrap_or_else(|| body.trim().to_owned())
}

/// A piece of a path or a query, with every byte escaped that could mean something there.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn a_path_piece_cannot_leave_its_place() {
        assert_eq!(escaped("alice@example.com"), "alice@example.com");
        assert_eq!(escaped("a/b?c=%41&d e#f"), "a%2Fb%3Fc%3D%2541%26d%20e%23f");
    }
}
