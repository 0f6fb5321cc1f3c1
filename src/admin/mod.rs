//! HTTP for operators and their tools: health, readiness, metrics, what is known, and a few orders. Decides nothing: it
//! reads the table, and asks a [`Node`] for all else.
//!
//! | route | answer |
//! |---|---|
//! | `GET /livez` | 200 while the process can answer |
//! | `GET /readyz` | 200, or 503 with the reason as text |
//! | `GET /metrics` | all metrics, Prometheus text |
//! | `GET /v1/cluster` | a [`ClusterView`] |
//! | `GET /v1/aors[?gone=true]` | NDJSON, a line a live contact; with `gone` what is only remembered too |
//! | `GET /v1/aors/{aor}` | an [`AorView`]; 404 if nothing is known |
//! | `DELETE /v1/aors/{aor}[?contact=URI]` | a [`Removal`]; 404 if no live contact was there |
//! | `POST /v1/drain` | 202; the node leaves |
//! | `POST /v1/ready` | 204; the node serves though it may lack contacts |
//! | `POST /v1/forget/{node}` | 204; the node is not waited for any more |
//!
//! Errors are `{"error": "…"}`. Who may ask is in `guard`, how many and how slowly in `listener`.

mod dump;
mod guard;
mod listener;
mod view;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aorta_proto::uri::AorRules;
use aorta_proto::{Aor, NodeId};
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::location::Location;
use crate::metrics::Metrics;

pub use view::{AorView, ClusterView, ContactView, GoneView, MemberView, Removal, TableView};

/// How long answers that are under way may take when the server stops.
const CLOSING: Duration = Duration::from_secs(1);

/// What the rest of the node says and does for an operator.
pub trait Node: Send + Sync + 'static {
    /// Whether it serves, and with which restriction, if any.
    ///
    /// # Errors
    /// Why it does not serve, in a sentence for people.
    fn readiness(&self) -> Result<Option<String>, String>;

    /// What it knows of itself and the others.
    fn cluster(&self) -> ClusterView;

    /// Removes one contact of an AoR, or all, everywhere: as a phone's own unregister would, acks included.
    fn remove<'a>(&'a self, aor: Aor, contact: Option<String>) -> Promise<'a, Result<Removal, Refused>>;

    /// Begins to leave. Again: nothing more.
    fn drain(&self);

    /// Serves from now on, whatever is missing.
    ///
    /// # Errors
    /// When that cannot be, such as without the cluster's time.
    fn force_ready(&self) -> Result<(), Refused>;

    /// Waits for a member no more.
    ///
    /// # Errors
    /// When it is unknown, or linked right now.
    fn forget(&self, node: &NodeId) -> Result<(), Refused>;
}

/// What will be there once it has been waited for.
pub type Promise<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why an order is not carried out; the text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// What was asked for makes no sense: 400.
    Bad(String),
    /// There is no such thing: 404.
    Unknown(String),
    /// Not in this state: 409.
    Conflict(String),
    /// Not now; another node may: 503.
    Unavailable(String),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, why) = match self {
            Self::Bad(why) => (StatusCode::BAD_REQUEST, why),
            Self::Unknown(why) => (StatusCode::NOT_FOUND, why),
            Self::Conflict(why) => (StatusCode::CONFLICT, why),
            Self::Unavailable(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        };
        error(status, &why)
    }
}

fn error(status: StatusCode, why: &str) -> Response {
    (status, Json(serde_json::json!({ "error": why }))).into_response()
}

/// How the server is to be run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `http.listen`; port 0 takes any.
    pub listen: SocketAddr,
    /// `http.token`; must be given beyond loopback.
    pub token: Option<String>,
    /// How an operator's text becomes an AoR.
    pub rules: AorRules,
}

/// What the server shows.
#[derive(Clone)]
pub struct Shown<N> {
    /// The rest of the node.
    pub node: Arc<N>,
    /// The table.
    pub location: Arc<Location>,
    /// Its time.
    pub clock: Arc<Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl<N> fmt::Debug for Shown<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

/// Why the server cannot be.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Anybody could give orders.
    #[error("http.listen = {0} is not on loopback: http.token must be given")]
    TokenNeeded(SocketAddr),
    /// The address cannot be had.
    #[error("cannot listen for HTTP on {0}: {1}")]
    Listen(SocketAddr, io::Error),
}

/// The server, bound and not yet answering.
#[derive(Debug)]
pub struct Admin {
    listener: listener::Bounded,
    local: SocketAddr,
    token: Option<String>,
    rules: AorRules,
}

impl Admin {
    /// Binds `settings.listen`.
    ///
    /// # Errors
    /// When it cannot be bound, or is beyond loopback without a token.
    pub async fn bind(settings: Settings) -> Result<Self, BindError> {
        let Settings { listen, token, rules } = settings;
        let token = token.filter(|token| !token.is_empty());
        if token.is_none() && !listen.ip().is_loopback() {
            return Err(BindError::TokenNeeded(listen));
        }
        let bound = listener::Bounded::bind(listen).await;
        let (listener, local) = bound.map_err(|cause| BindError::Listen(listen, cause))?;
        Ok(Self { listener, local, token, rules })
    }

    /// The address bound, with its port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.local
    }

    /// Answers until `stop`, then lets answers under way finish for at most a second.
    ///
    /// # Errors
    /// When the system no longer lets it listen.
    pub async fn serve<N: Node>(self, shown: Shown<N>, stop: CancellationToken) -> io::Result<()> {
        let guard = Arc::new(guard::Guard::new(self.token));
        let app = App { shown, rules: Arc::new(self.rules) };
        let router = routes().with_state(app).layer(axum::middleware::from_fn_with_state(guard, guard::admit));
        let server = axum::serve(self.listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        let server = server.into_future();
        tokio::pin!(server);
        tokio::select! {
            ended = &mut server => ended,
            () = stop.cancelled() => timeout(CLOSING, server).await.unwrap_or(Ok(())),
        }
    }
}

struct App<N> {
    shown: Shown<N>,
    rules: Arc<AorRules>,
}

impl<N> Clone for App<N> {
    fn clone(&self) -> Self {
        let Shown { node, location, clock, metrics } = &self.shown;
        let (node, location) = (Arc::clone(node), Arc::clone(location));
        let (clock, metrics) = (Arc::clone(clock), Arc::clone(metrics));
        Self { shown: Shown { node, location, clock, metrics }, rules: Arc::clone(&self.rules) }
    }
}

impl<N> App<N> {
    fn aor(&self, text: Result<Path<String>, PathRejection>) -> Result<Aor, Refused> {
        let Path(text) = text.map_err(|error| Refused::Bad(error.body_text()))?;
        self.rules.read(&text).map_err(|error| Refused::Bad(format!("{text} is no address of record: {error}")))
    }
}

fn routes<N: Node>() -> Router<App<N>> {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz::<N>))
        .route("/metrics", get(metrics::<N>))
        .route("/v1/cluster", get(async |State(app): State<App<N>>| Json(app.shown.node.cluster())))
        .route("/v1/aors", get(aors::<N>))
        .route("/v1/aors/{aor}", get(aor::<N>).delete(remove::<N>))
        .route("/v1/drain", post(drain::<N>))
        .route("/v1/ready", post(ready::<N>))
        .route("/v1/forget/{node}", post(forget::<N>))
        .fallback(async || Refused::Unknown("no such page".to_owned()))
        .method_not_allowed_fallback(async || error(StatusCode::METHOD_NOT_ALLOWED, "not with this method"))
}

async fn readyz<N: Node>(State(app): State<App<N>>) -> (StatusCode, String) {
    match app.shown.node.readiness() {
        Ok(None) => (StatusCode::OK, "ready\n".to_owned()),
        Ok(Some(restriction)) => (StatusCode::OK, format!("ready, {restriction}\n")),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics<N: Node>(State(app): State<App<N>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.shown.metrics.render())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DumpQuery {
    gone: bool,
}

async fn aors<N: Node>(
    State(app): State<App<N>>,
    query: Result<Query<DumpQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(query) = query.map_err(|error| Refused::Bad(error.body_text()))?;
    let lines = dump::lines(app.shown.location, app.shown.clock, query.gone);
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

async fn aor<N: Node>(
    State(app): State<App<N>>,
    text: Result<Path<String>, PathRejection>,
) -> Result<Json<AorView>, Refused> {
    let aor = app.aor(text)?;
    let now_us = app.shown.clock.now().cluster_us;
    let view = app.shown.location.get(&aor, |record| record.map(|record| AorView::of(&aor, record, now_us)));
    view.map(Json).ok_or_else(|| Refused::Unknown(format!("nothing is known of {aor}")))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RemoveQuery {
    contact: Option<String>,
}

async fn remove<N: Node>(
    State(app): State<App<N>>,
    text: Result<Path<String>, PathRejection>,
    query: Result<Query<RemoveQuery>, QueryRejection>,
) -> Result<Json<Removal>, Refused> {
    let aor = app.aor(text)?;
    let Query(query) = query.map_err(|error| Refused::Bad(error.body_text()))?;
    let removal = app.shown.node.remove(aor.clone(), query.contact).await?;
    if removal.removed == 0 {
        return Err(Refused::Unknown(format!("{aor} had no such live contact; the removal is remembered")));
    }
    Ok(Json(removal))
}

async fn drain<N: Node>(State(app): State<App<N>>) -> StatusCode {
    app.shown.node.drain();
    StatusCode::ACCEPTED
}

async fn ready<N: Node>(State(app): State<App<N>>) -> Result<StatusCode, Refused> {
    app.shown.node.force_ready().map(|()| StatusCode::NO_CONTENT)
}

async fn forget<N: Node>(
    State(app): State<App<N>>,
    node: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Refused> {
    let Path(node) = node.map_err(|error| Refused::Bad(error.body_text()))?;
    let node = NodeId::new(&node).map_err(|error| Refused::Bad(error.to_string()))?;
    app.shown.node.forget(&node).map(|()| StatusCode::NO_CONTENT)
}
