//! The table of photos, through a pool of connections that can only read.

use crate::error::Error;
use anyhow::{Context, ensure};
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, NoTls, Row};

/// $1 is a drawing as its user sent it: strokes as JSON, SVG, PNG, JPEG or WebP.
const SEARCH: &str = "
    SELECT id, name, sketch_distance(fused, $1::bytea) AS distance
    FROM photo
    WHERE fused IS NOT NULL
    ORDER BY sketch_distance(fused, $1::bytea)
    LIMIT $2";

/// $1 is the id of a photo. Its embedding takes the place of a drawing's.
const MORE_LIKE_THIS: &str = "
    SELECT id, name, fused <-> (SELECT embedding FROM photo WHERE id = $1) AS distance
    FROM photo
    WHERE fused IS NOT NULL AND id <> $1
    ORDER BY fused <-> (SELECT embedding FROM photo WHERE id = $1)
    LIMIT $2";

const IMAGE: &str = "SELECT image FROM photo WHERE id = $1";
const COUNT: &str = "SELECT count(fused) FROM photo";
const CAN_WRITE: &str = "SELECT has_table_privilege('photo', 'INSERT, UPDATE, DELETE, TRUNCATE'), current_user::text";

/// The first embedding of a connection loads the network.
const WARM_UP: &str = "SELECT sketch_embed('[[[0, 1], [0, 1]]]'::jsonb)";

/// No statement of this server writes. Were there one, the server would refuse it.
const SESSION: &str = "-c default_transaction_read_only=on -c statement_timeout=10s -c application_name=sketch-draw";

/// How long an answer may give the number of photos as it was.
const COUNT_AGE: Duration = Duration::from_secs(5);

pub struct Gallery {
    pool: Pool,
    count: Mutex<Option<(Instant, i64)>>,
}

#[derive(Serialize)]
pub struct Photo {
    id: i64,
    name: Option<String>,
    distance: f64,
}

impl Gallery {
    /// Opens all connections, so that the first drawing does not wait for the network to load.
    ///
    /// # Errors
    /// If the database does not answer, lacks the table or the extension, or lets this role change photos.
    pub async fn open(url: &str, connections: usize) -> anyhow::Result<Self> {
        let mut config: Config = url.parse().context("could not read the connection string")?;
        let options = config.get_options().map_or(SESSION.to_owned(), |given| format!("{SESSION} {given}"));
        config.options(options).connect_timeout(Duration::from_secs(3));
        let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(Duration::from_secs(5)))
            .create_timeout(Some(Duration::from_secs(5)))
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(async move { client.batch_execute(WARM_UP).await.map_err(HookError::Backend) })
            }))
            .build()?;

        let mut opened: Vec<Object> = Vec::new();
        for _ in 0..connections {
            opened.push(pool.get().await.context("could not connect to the database")?);
        }
        let row = opened[0].query_one(CAN_WRITE, &[]).await.context("could not read the table \"photo\"")?;
        let (can_write, role): (bool, String) = (row.get(0), row.get(1));
        ensure!(
            !can_write,
            "role \"{role}\" can change photos; connect as one that can only read, see examples/draw/role.sql"
        );
        drop(opened);
        Ok(Self { pool, count: Mutex::new(None) })
    }

    pub async fn search(&self, drawing: &[u8], limit: i64) -> Result<Vec<Photo>, Error> {
        let rows = self.query(SEARCH, &[&drawing, &limit]).await?;
        Ok(rows.iter().filter_map(Photo::from_row).collect())
    }

    /// # Errors
    /// [`Error::NoPhoto`] if the table has no such photo, or it has no embedding.
    pub async fn more_like_this(&self, id: i64, limit: i64) -> Result<Vec<Photo>, Error> {
        let rows = self.query(MORE_LIKE_THIS, &[&id, &limit]).await?;
        let photos: Vec<Photo> = rows.iter().filter_map(Photo::from_row).collect();
        if photos.is_empty() && !rows.is_empty() {
            return Err(Error::NoPhoto);
        }
        Ok(photos)
    }

    pub async fn image(&self, id: i64) -> Result<Vec<u8>, Error> {
        let rows = self.query(IMAGE, &[&id]).await?;
        rows.first().and_then(|row| row.get(0)).ok_or(Error::NoPhoto)
    }

    /// How many photos a search ranks.
    pub async fn count(&self) -> Result<i64, Error> {
        let mut count = self.count.lock().await;
        match *count {
            Some((when, photos)) if when.elapsed() < COUNT_AGE => Ok(photos),
            _ => {
                let photos = self.query(COUNT, &[]).await?[0].get(0);
                *count = Some((Instant::now(), photos));
                Ok(photos)
            }
        }
    }

    /// # Errors
    /// If the database does not answer now.
    pub async fn ping(&self) -> Result<(), Error> {
        self.query("SELECT", &[]).await.map(|_| ())
    }

    async fn query(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let client = self.pool.get().await?;
        let statement = client.prepare_cached(statement).await?;
        Ok(client.query(&statement, parameters).await?)
    }
}

impl Photo {
    /// None if the distance is NULL.
    fn from_row(row: &Row) -> Option<Self> {
        Some(Self { id: row.get("id"), name: row.get("name"), distance: row.get::<_, Option<f64>>("distance")? })
    }
}
