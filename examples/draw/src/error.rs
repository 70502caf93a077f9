//! What can go wrong, in words for the person who draws. What the database says goes to the log.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use deadpool_postgres::PoolError;
use serde_json::json;
use tokio_postgres::error::SqlState;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no such photo")]
    NoPhoto,
    #[error("photo cannot be decoded: {0}")]
    Thumbnail(#[from] image::ImageError),
    #[error("the body is too large, or ended early")]
    Body,
    #[error("too many requests from one address")]
    Rate,
    #[error("no connection: {0}")]
    Pool(#[from] PoolError),
    #[error("{0}")]
    Database(#[from] tokio_postgres::Error),
}

const UNAVAILABLE: (StatusCode, &str) = (
    StatusCode::SERVICE_UNAVAILABLE,
    "The database does not answer. Your drawing stays here, and the search is repeated when the database is back.",
);

impl Error {
    fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoPhoto => (StatusCode::NOT_FOUND, "This photo is not in the gallery any more."),
            Self::Thumbnail(_) => (StatusCode::UNPROCESSABLE_ENTITY, "This photo cannot be shown."),
            Self::Body => (StatusCode::PAYLOAD_TOO_LARGE, "This image is too large. Choose a smaller one."),
            Self::Rate => (StatusCode::TOO_MANY_REQUESTS, "These were many searches at once. Wait a moment."),
            Self::Pool(PoolError::Timeout(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "The database is busy. The search is repeated in a moment.")
            }
            Self::Pool(_) => UNAVAILABLE,
            Self::Database(error) => error.code().map_or(UNAVAILABLE, of_state),
        }
    }
}

/// Says what an error of this SQLSTATE means to the person who draws.
fn of_state(state: &SqlState) -> (StatusCode, &'static str) {
    const FEATURE_NOT_SUPPORTED: &str = "0A000";
    const QUERY_CANCELED: &str = "57014";
    let code = state.code();
    match (code, &code[..2]) {
        (FEATURE_NOT_SUPPORTED, _) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "This is not an image that can be read. Use PNG, JPEG, WebP or a simple SVG.",
        ),
        (QUERY_CANCELED, _) => (StatusCode::GATEWAY_TIMEOUT, "The search took too long. Try again in a moment."),
        (_, "22") => {
            (StatusCode::UNPROCESSABLE_ENTITY, "This drawing cannot be read: it is empty or damaged. Try another one.")
        }
        (_, "54") => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "This drawing is too large. Draw with fewer lines, or choose a smaller image.",
        ),
        (_, "08" | "28" | "53" | "57") => UNAVAILABLE,
        (_, "42") => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "The gallery is not set up for this page. Whoever runs it finds the reason in the server's log.",
        ),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "The database could not answer this search. The server's log has the reason.",
        ),
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, words) = self.answer();
        if status.is_server_error() {
            eprintln!("sketch-draw: {self}{}", detail(&self));
        }
        (status, Json(json!({ "error": words }))).into_response()
    }
}

fn detail(error: &Error) -> String {
    match error {
        Error::Database(error) | Error::Pool(PoolError::Backend(error)) => {
            error.as_db_error().map_or(String::new(), |error| format!(": {error}"))
        }
        _ => String::new(),
    }
}
