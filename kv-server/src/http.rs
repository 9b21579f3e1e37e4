//! The HTTP port: whether the process lives, whether the node takes traffic, and its metrics.
//!
//! One request a connection: each is closed after its answer, or when its time is over (the port's bounds are in `services`),
//! so that nobody holds one. Metrics are made [`METRICS_PER_SECOND_MAX`] times in a second at the most, since the loop of the
//! node has to say how it is doing each time; whoever asks beyond that gets the last ones again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use kv_core::error::Error;
use tokio::sync::Mutex;

use crate::{net::Door, shared::Shared};

/// How often metrics are made in a second. Past it those who ask get what was made last.
const METRICS_PER_SECOND_MAX: u32 = 20;

/// Serves until the node closes.
pub(crate) async fn serve(door: Door, shared: Arc<Shared>) {
    let closing = shared.closing.clone();
    let router = Router::new()
        .route("/health", get(|| async { "alive\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .layer(map_response(close))
        .with_state(Arc::new(Pages { shared, metrics: Mutex::new(Made::nothing()) }));
    let served = axum::serve(door, router).with_graceful_shutdown(closing.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP port is closed");
    }
}

/// What the pages are made from.
struct Pages {
    shared: Arc<Shared>,
    metrics: Mutex<Made>,
}

/// The metrics as they were last made.
struct Made {
    text: Bytes,
    /// Since when `times` counts.
    since: Instant,
    times: u32,
}

impl Made {
    fn nothing() -> Self {
        Self { text: Bytes::new(), since: Instant::now(), times: 0 }
    }

    /// Whether they may be made once more.
    fn again(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.times) = (now, 0);
        }
        self.times += 1;
        self.times <= METRICS_PER_SECOND_MAX
    }
}

async fn close(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn ready(State(pages): State<Arc<Pages>>) -> impl IntoResponse {
    match pages.shared.unready.borrow().clone() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn metrics(State(pages): State<Arc<Pages>>) -> impl IntoResponse {
    match pages.metrics().await {
        Ok(text) => {
            let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            (StatusCode::OK, headers, text).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

impl Pages {
    async fn metrics(&self) -> Result<Bytes, Error> {
        let mut made = self.metrics.lock().await;
        if made.again(Instant::now()) || made.text.is_empty() {
            made.text = Bytes::from(self.shared.metrics.render(&self.shared.report().await?));
        }
        Ok(made.text.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_made_so_often_and_no_more() {
        let mut made = Made::nothing();
        let mut now = made.since;
        for _ in 0..3 {
            assert_eq!((0..1_000).filter(|_| made.again(now)).count(), METRICS_PER_SECOND_MAX as usize);
            now += Duration::from_secs(1);
        }
    }
}
