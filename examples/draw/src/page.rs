//! The page itself, embedded in the binary, and the headers of every answer.

use axum::Router;
use axum::extract::Request;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{StatusCode, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const FILES: [(&str, &str, &str); 5] = [
    ("/", HTML, include_str!("../page/index.html")),
    ("/draw.css", CSS, include_str!("../page/draw.css")),
    ("/draw.js", SCRIPT, include_str!("../page/draw.js")),
    ("/icon.svg", SVG, include_str!("../page/icon.svg")),
    ("/signature_pad.js", SCRIPT, include_str!("../node_modules/signature_pad/dist/signature_pad.min.js")),
];

const EXAMPLES: [(&str, &str); 8] = [
    ("Balloon", include_str!("../../demo/drawings/balloon.json")),
    ("Bicycle", include_str!("../../demo/drawings/bicycle.json")),
    ("Car", include_str!("../../demo/drawings/car.json")),
    ("Elephant", include_str!("../../demo/drawings/elephant.json")),
    ("Hammer", include_str!("../../demo/drawings/hammer.json")),
    ("Sailboat", include_str!("../../demo/drawings/sailboat.json")),
    ("Teapot", include_str!("../../demo/drawings/teapot.json")),
    ("Zebra", include_str!("../../demo/drawings/zebra.json")),
];

/// Scripts, styles and photos come from here alone. "blob:" is an image that its user has chosen.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let examples: Vec<Value> = EXAMPLES
        .iter()
        .map(|(name, strokes)| json!({ "name": name, "strokes": serde_json::from_str::<Value>(strokes).expect("checked in") }))
        .collect();
    let examples = Value::from(examples).to_string();
    let router = Router::new().route("/examples", get(move || async move { file("application/json", examples) }));
    FILES.iter().fold(router, |router, &(path, media_type, text)| {
        router.route(path, get(move || async move { file(media_type, text) }))
    })
}

fn file(media_type: &'static str, text: impl IntoResponse) -> impl IntoResponse {
    // The files change with the binary, and are small.
    ([(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "no-cache")], text)
}

/// Adds the headers that keep the page apart from others.
pub async fn protect(mut response: Response) -> Response {
    for (name, value) in &HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Refuses a request for another host. Otherwise any page whose name resolves to this machine could read the photos.
pub async fn only_this_machine(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    match host.as_ref().map(Authority::host) {
        Some("localhost" | "127.0.0.1" | "[::1]") => next.run(request).await,
        _ => (StatusCode::MISDIRECTED_REQUEST, "This server answers on this machine only.").into_response(),
    }
}
