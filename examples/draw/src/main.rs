//! Serves a page on which a drawing finds photos while it is drawn.
//!
//! The database does the work: `gallery` has all of its SQL. See README.md for how to start it.

mod error;
mod gallery;
mod page;
mod thumbnail;

use anyhow::Context;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Parser;
use error::Error;
use gallery::{Gallery, Photo};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tower_http::timeout::TimeoutLayer;

/// A drawing or a phone's photo of one. The page sends larger photos scaled down.
const MAX_BODY: usize = 8 << 20;
const TIMEOUT: Duration = Duration::from_secs(20);
const MAX_RESULTS: i64 = 100;
const THUMBNAIL_SIZES: std::ops::RangeInclusive<u32> = 32..=1024;
/// Thumbnails that may be asked for with each search.
const PHOTOS_PER_SEARCH: u32 = 30;

/// Serves a page on which a drawing finds photos.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Connection string of the database, with a role that can only read
    #[arg(long, env = "DATABASE_URL")]
    url: String,
    /// Address and port; port 0 selects a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// File that contains the page's address while the server runs
    #[arg(long)]
    address_file: Option<PathBuf>,
    /// Connections to the database
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    connections: u16,
    /// Searches per second that one client may make
    #[arg(long, default_value = "20")]
    rate: NonZeroU32,
}

struct Server {
    gallery: Gallery,
    /// Thumbnails leave a core for the search.
    thumbnails: Semaphore,
}

type Limiter = Arc<DefaultKeyedRateLimiter<IpAddr>>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let gallery = Gallery::open(&options.url, options.connections.into()).await?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let server = Arc::new(Server { gallery, thumbnails: Semaphore::new((cores / 2).max(1)) });

    let listener =
        TcpListener::bind(options.listen).await.with_context(|| format!("could not listen on {}", options.listen))?;
    let address = listener.local_addr()?;
    let mut app = router(server, options.rate);
    if address.ip().is_loopback() {
        app = app.layer(from_fn(page::only_this_machine));
    }
    let page = format!("http://{address}/");
    if let Some(file) = &options.address_file {
        std::fs::write(file, format!("{page}\n")).with_context(|| format!("could not write {}", file.display()))?;
    }
    println!("{page}");
    let service = app.layer(map_response(page::protect)).into_make_service_with_connect_info::<SocketAddr>();
    tokio::select! {
        served = axum::serve(listener, service).into_future() => served?,
        () = stopped() => {}
    }
    if let Some(file) = &options.address_file {
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}

fn router(server: Arc<Server>, rate: NonZeroU32) -> Router {
    let searches = from_fn_with_state(limiter(rate), limit_rate);
    let photos = from_fn_with_state(
        limiter(rate.saturating_mul(NonZeroU32::new(PHOTOS_PER_SEARCH).expect("not zero"))),
        limit_rate,
    );
    Router::new()
        .route("/search", post(search).layer(searches))
        .route("/photo/{id}", get(photo).layer(photos))
        .route("/healthz", get(healthz))
        .merge(page::routes())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, TIMEOUT))
        .with_state(server)
}

/// Allows `rate` requests per second, and twice as many at once.
fn limiter(rate: NonZeroU32) -> Limiter {
    let burst = rate.saturating_mul(NonZeroU32::new(2).expect("not zero"));
    let limiter = Limiter::new(RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst)));
    let forgetting = Arc::clone(&limiter);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            forgetting.retain_recent();
        }
    });
    limiter
}

async fn limit_rate(
    State(limiter): State<Limiter>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match limiter.check_key(&client.ip()) {
        Ok(()) => next.run(request).await,
        Err(_) => Error::Rate.into_response(),
    }
}

#[derive(Deserialize)]
struct SearchOptions {
    /// A photo that takes the place of a drawing.
    like: Option<i64>,
    #[serde(default = "default_limit")]
    limit: i64,
}

fn default_limit() -> i64 {
    24
}

#[derive(Serialize)]
struct SearchAnswer {
    photos: Vec<Photo>,
    /// How many photos were ranked.
    searched: i64,
    /// Time that the ranking took.
    milliseconds: f64,
}

async fn search(
    State(server): State<Arc<Server>>,
    Query(options): Query<SearchOptions>,
    drawing: Result<Bytes, BytesRejection>,
) -> Result<Json<SearchAnswer>, Error> {
    let drawing = drawing.map_err(|_| Error::Body)?;
    let limit = options.limit.clamp(1, MAX_RESULTS);
    let searched = server.gallery.count().await?;
    let started = Instant::now();
    let photos = match options.like {
        Some(id) => server.gallery.more_like_this(id, limit).await?,
        None => server.gallery.search(&drawing, limit).await?,
    };
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    Ok(Json(SearchAnswer { photos, searched, milliseconds }))
}

#[derive(Deserialize)]
struct PhotoOptions {
    /// Width and height of the square that the photo should fit into; the photo itself without it.
    size: Option<u32>,
}

async fn photo(
    State(server): State<Arc<Server>>,
    Path(id): Path<i64>,
    Query(options): Query<PhotoOptions>,
) -> Result<impl IntoResponse, Error> {
    let photo = server.gallery.image(id).await?;
    let (media_type, bytes) = match options.size {
        None => (thumbnail::media_type(&photo), photo),
        Some(size) => {
            let size = size.clamp(*THUMBNAIL_SIZES.start(), *THUMBNAIL_SIZES.end());
            let _permit = server.thumbnails.acquire().await.expect("never closed");
            let small = tokio::task::spawn_blocking(move || thumbnail::thumbnail(&photo, size));
            ("image/jpeg", small.await.expect("decoding does not panic")?)
        }
    };
    Ok(([(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "private, max-age=3600")], bytes))
}

#[derive(Serialize)]
struct Health {
    photos: i64,
}

async fn healthz(State(server): State<Arc<Server>>) -> Result<Json<Health>, Error> {
    server.gallery.ping().await?;
    Ok(Json(Health { photos: server.gallery.count().await? }))
}

/// Returns when the server should stop.
async fn stopped() {
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM has a handler");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
