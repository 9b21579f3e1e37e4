//! The HTTP port: whether the process lives, whether the node takes traffic, and its metrics.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use crate::{net::Door, shared::Shared};

/// Serves until the node closes.
pub(crate) async fn serve(door: Door, shared: Arc<Shared>) {
    let closing = shared.closing.clone();
    let router = Router::new()
        .route("/health", get(|| async { "alive\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(shared);
    let served = axum::serve(door, router).with_graceful_shutdown(closing.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP port is closed");
    }
}

async fn ready(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    match shared.unready.borrow().clone() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    match shared.report().await {
        Ok(report) => {
            let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            (StatusCode::OK, headers, shared.metrics.render(&report)).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}
