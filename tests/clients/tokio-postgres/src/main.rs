//! tokio-postgres: the server decides the type of a parameter, so that one without a cast is text.

use serde_json::json;
use std::env::var;
use std::error::Error;
use std::fs;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls};

/// A connection that counts its calls.
struct Database {
    client: Client,
    calls: usize,
}

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Database {
    async fn run(&mut self, statement: &str, parameters: Parameters<'_>) -> Result<(), Box<dyn Error>> {
        self.calls += 1;
        self.client.query(statement, parameters).await?;
        Ok(())
    }

    async fn nearest(&mut self, distance: &str, drawing: &(dyn ToSql + Sync)) -> Result<Vec<i64>, Box<dyn Error>> {
        self.calls += 1;
        let statement = format!("SELECT id FROM photo ORDER BY {distance} LIMIT $2");
        let rows = self.client.query(&statement, &[drawing, &10_i64]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config::new();
    config.host(var("PGHOST")?).user(var("PGUSER")?).dbname(var("PGDATABASE")?);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    let mut db = Database { client, calls: 0 };
    let strokes = json!([[[10, 90, 90, 10, 10], [20, 20, 80, 80, 20]]]);
    let text = strokes.to_string();

    db.run("CREATE EXTENSION pg_sketch", &[]).await?;
    db.run("CREATE TABLE photo (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, image bytea)", &[])
        .await?;
    for file in fs::read_dir(var("PHOTOS")?)? {
        let path = file?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        db.run("INSERT INTO photo (name, image) VALUES ($1, $2)", &[&name, &fs::read(&path)?]).await?;
    }
    db.run("SELECT sketch_enable($1::text::regclass, $2)", &[&"photo", &"image"]).await?;
    db.run("SELECT sketch_build_codebook($1, $2::text::regclass, weight => $3)", &[&"photo", &"photo", &0.3]).await?;
    db.run("SELECT sketch_fuse_photos($1::text::regclass)", &[&"photo"]).await?;

    let found = db.nearest("fused <-> sketch_embed($1::jsonb)", &strokes).await?;
    assert_eq!(found.len(), 10);
    assert_eq!(db.nearest("sketch_distance(fused, $1::jsonb)", &strokes).await?, found);
    assert_eq!(db.nearest("sketch_distance(fused, $1)", &text).await?, found);
    assert_eq!(db.nearest("sketch_distance(fused, $1::bytea)", &text.as_bytes()).await?, found);
    let values: Vec<f64> = {
        db.calls += 1;
        let row = db.client.query_one("SELECT sketch_embed($1)::real[]", &[&text]).await?;
        row.get::<_, Vec<f32>>(0).into_iter().map(f64::from).collect()
    };
    assert_eq!(db.nearest("fused <-> $1::double precision[]::embedding", &values).await?, found);
    println!("{} calls", db.calls);
    Ok(())
}
