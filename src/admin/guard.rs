//! Who may ask: the token where there is one, and on loopback nobody that a web page sent.
//!
//! Health and readiness are open to all: probes cannot keep secrets and learn none.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error;

/// The rules of one server.
#[derive(Debug)]
pub(super) struct Guard {
    token: Option<String>,
}

impl Guard {
    pub(super) fn new(token: Option<String>) -> Self {
        Self { token }
    }

    fn judge(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        if matches!(path, "/livez" | "/readyz") {
            return Ok(());
        }
        let Some(token) = &self.token else { return from_no_page(method, headers) };
        let given = headers.get(header::AUTHORIZATION).map_or(&b""[..], header::HeaderValue::as_bytes);
        match given.split_at_checked(7) {
            Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"bearer ") && same(given, token.as_bytes()) => Ok(()),
            _ => Err((StatusCode::UNAUTHORIZED, "http.token is needed, as Authorization: Bearer")),
        }
    }
}

/// Without a token only loopback is listened on; but a browser there can be made to ask by any page: by a name that is
/// turned to 127.0.0.1 after the page was loaded, or by a form that posts across sites.
fn from_no_page(method: &Method, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    let host = headers.get(header::HOST).map_or(Ok("localhost"), header::HeaderValue::to_str);
    if !host.is_ok_and(is_loopback) {
        return Err((StatusCode::FORBIDDEN, "Host is not on loopback: set http.token to be asked by other names"));
    }
    if !matches!(*method, Method::GET | Method::HEAD) && headers.contains_key(header::ORIGIN) {
        return Err((StatusCode::FORBIDDEN, "not from a web page"));
    }
    Ok(())
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((six, _port)) => six,
        None => host.split_once(':').map_or(host, |(name, _port)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Compares in a time that does not tell how much was right; only lengths show.
fn same(given: &[u8], token: &[u8]) -> bool {
    let differs = given.iter().zip(token).fold(0, |differs, (a, b)| std::hint::black_box(differs | (a ^ b)));
    given.len() == token.len() && differs == 0
}

/// Lets a request through or answers it.
pub(super) async fn admit(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.judge(request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status @ StatusCode::UNAUTHORIZED, why)) => {
            ([(header::WWW_AUTHENTICATE, "Bearer")], error(status, why)).into_response()
        }
        Err((status, why)) => error(status, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_loopback() {
        for host in ["localhost", "LOCALHOST:8060", "127.0.0.1", "127.8.8.8:1", "[::1]", "[::1]:8060"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:80", "192.0.2.1", "[2001:db8::1]:80", "", "localhost.evil"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_token_is_right_as_a_whole_or_wrong() {
        assert!(same(b"secret", b"secret"));
        for wrong in [&b""[..], b"secre", b"secrets", b"Secret", b"secreT"] {
            assert!(!same(wrong, b"secret"));
        }
    }
}
