//! A table of photos in a live database.

use std::collections::HashSet;

use postgres::binary_copy::BinaryCopyInWriter;
use postgres::types::{ToSql, Type};
use postgres::{Client, GenericClient, NoTls};

/// Why a request to the database failed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("could not connect to the database: {}", explain(error))]
    Connect { error: postgres::Error },
    #[error("{}", explain(error))]
    Database { error: postgres::Error },
    #[error("table name \"{name}\" is malformed")]
    Name { name: String },
    #[error("table \"{name}\" does not exist; use --create to create it")]
    Missing { name: String },
}

impl From<postgres::Error> for TableError {
    fn from(error: postgres::Error) -> Self {
        Self::Database { error }
    }
}

/// The server's message with detail and hint, or the client's if the server did not answer.
fn explain(error: &postgres::Error) -> String {
    let Some(server) = error.as_db_error() else { return error.to_string() };
    let more = [("detail", server.detail()), ("hint", server.hint())];
    let more = more.iter().filter_map(|(what, text)| text.map(|text| format!("; {what}: {text}")));
    server.message().to_owned() + &more.collect::<String>()
}

/// Connects to the database at `url`, a connection URI or string as in libpq.
///
/// # Errors
/// [`TableError::Connect`].
pub fn connect(url: &str) -> Result<Client, TableError> {
    Client::connect(url, NoTls).map_err(|error| TableError::Connect { error })
}

/// Column names of a table of photos, unquoted.
#[derive(Clone, Debug)]
pub struct Columns {
    pub name: String,
    pub image: String,
    /// The class of a photo, if there is a column for it.
    pub label: Option<String>,
}

/// A photo to insert.
#[derive(Clone, Debug)]
pub struct Photo {
    pub name: String,
    pub image: Vec<u8>,
    pub label: String,
}

/// Identifies a row within one snapshot: its table, perhaps a partition, and its position there.
#[derive(Clone, Debug)]
pub struct Key {
    table: u32,
    place: String,
}

/// A photo with its class.
#[derive(Clone, Debug)]
pub struct Labelled {
    pub key: Key,
    pub class: String,
    pub name: String,
}

/// A photo in the result of a query.
#[derive(Clone, Debug)]
pub struct Ranked {
    pub name: String,
    pub image: Vec<u8>,
    /// L2 distance to the drawing: lower is nearer.
    pub distance: f64,
}

/// A table, by names that are safe in SQL.
#[derive(Clone, Debug)]
pub struct Table {
    /// Quoted, with its schema if one was given.
    table: String,
    columns: Columns,
}

impl Table {
    /// Finds the table `name`, written as in SQL.
    ///
    /// # Errors
    /// [`TableError::Name`] if `name` is malformed, [`TableError::Missing`] if there is no such table.
    pub fn open(client: &mut impl GenericClient, name: &str, columns: Columns) -> Result<Self, TableError> {
        let table = Self { table: quote_table(client, name)?, columns };
        let found: bool = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table.table])?.get(0);
        if found { Ok(table) } else { Err(TableError::Missing { name: name.to_owned() }) }
    }

    /// Creates the table if it does not exist, and opens it.
    ///
    /// # Errors
    /// [`TableError::Name`], [`TableError::Database`].
    pub fn create(client: &mut impl GenericClient, name: &str, columns: Columns) -> Result<Self, TableError> {
        let table = quote_table(client, name)?;
        let label = columns.label.as_deref().map(|label| format!(", {} text", quote(label))).unwrap_or_default();
        let (name_column, image) = (quote(&columns.name), quote(&columns.image));
        client.batch_execute(&format!(
            "CREATE TABLE IF NOT EXISTS {table} \
             (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {name_column} text, {image} bytea{label})"
        ))?;
        Self::open(client, name, columns)
    }

    /// The names of all photos in the table.
    ///
    /// # Errors
    /// [`TableError::Database`].
    pub fn names(&self, client: &mut Client) -> Result<HashSet<String>, TableError> {
        let name = quote(&self.columns.name);
        let sql = format!("SELECT {name}::text FROM {} WHERE {name} IS NOT NULL", self.table);
        Ok(client.query(&sql, &[])?.iter().map(|row| row.get(0)).collect())
    }

    /// Adds photos, all or none.
    ///
    /// # Errors
    /// [`TableError::Database`], also if a trigger of the table raises an error.
    pub fn add(&self, client: &mut Client, photos: &[Photo]) -> Result<(), TableError> {
        let mut columns = vec![quote(&self.columns.name), quote(&self.columns.image)];
        columns.extend(self.columns.label.as_deref().map(quote));
        let mut types = vec![Type::TEXT, Type::BYTEA];
        types.extend(self.columns.label.as_ref().map(|_| Type::TEXT));

        let sql = format!("COPY {} ({}) FROM STDIN BINARY", self.table, columns.join(", "));
        let mut writer = BinaryCopyInWriter::new(client.copy_in(&sql)?, &types);
        for photo in photos {
            let row: [&(dyn ToSql + Sync); 3] = [&photo.name, &photo.image, &photo.label];
            writer.write(&row[..types.len()])?;
        }
        writer.finish()?;
        Ok(())
    }

    /// The `limit` photos nearest to a drawing, the nearest first.
    ///
    /// `column`: the embeddings to compare with. `drawing`: the bytes of a picture, an SVG, or strokes.
    ///
    /// # Errors
    /// [`TableError::Database`], also if the drawing is malformed.
    pub fn rank(
        &self,
        client: &mut Client,
        column: &str,
        drawing: &[u8],
        limit: u32,
    ) -> Result<Vec<Ranked>, TableError> {
        let (name, image, column) = (quote(&self.columns.name), quote(&self.columns.image), quote(column));
        let sql = format!(
            "SELECT {name}::text, {image}, sketch_distance({column}, $1::bytea) FROM {} WHERE {column} IS NOT NULL \
             ORDER BY sketch_distance({column}, $1::bytea) LIMIT $2",
            self.table
        );
        let rows = client.query(&sql, &[&drawing, &i64::from(limit)])?;
        let ranked = |row: &postgres::Row| Ranked {
            name: row.get::<_, Option<String>>(0).unwrap_or_default(),
            image: row.get::<_, Option<Vec<u8>>>(1).unwrap_or_default(),
            distance: row.get(2),
        };
        Ok(rows.iter().map(ranked).collect())
    }

    /// The photos that have a class and an embedding in `column`, with their classes and names.
    ///
    /// [`Self::distances`] and [`Self::embeddings`] return their rows in the same order.
    ///
    /// # Errors
    /// [`TableError::Database`].
    pub fn labelled(&self, client: &mut impl GenericClient, column: &str) -> Result<Vec<Labelled>, TableError> {
        let (label, name) = (self.label(), quote(&self.columns.name));
        // Named "ctid", a column of text would be what ORDER BY sorts by.
        let sql = format!("SELECT tableoid, ctid::text AS place, {label}::text, {name}::text {}", self.rows(column));
        let labelled = |row: &postgres::Row| Labelled {
            key: Key { table: row.get(0), place: row.get(1) },
            class: row.get(2),
            name: row.get::<_, Option<String>>(3).unwrap_or_default(),
        };
        Ok(client.query(&sql, &[])?.iter().map(labelled).collect())
    }

    /// The distance of every such photo to a drawing.
    ///
    /// # Errors
    /// [`TableError::Database`], also if the drawing is malformed.
    pub fn distances(
        &self,
        client: &mut impl GenericClient,
        column: &str,
        drawing: &[u8],
    ) -> Result<Vec<f32>, TableError> {
        let sql = format!("SELECT sketch_distance({}, $1::bytea) {}", quote(column), self.rows(column));
        Ok(client.query(&sql, &[&drawing])?.iter().map(|row| row.get::<_, f64>(0) as f32).collect())
    }

    /// The embeddings of all such photos, one after the other.
    ///
    /// # Errors
    /// [`TableError::Database`].
    pub fn embeddings(&self, client: &mut impl GenericClient, column: &str) -> Result<Vec<f32>, TableError> {
        let sql = format!("SELECT {}::real[] {}", quote(column), self.rows(column));
        Ok(client.query(&sql, &[])?.iter().flat_map(|row| row.get::<_, Vec<f32>>(0)).collect())
    }

    /// The embedding of a drawing.
    ///
    /// # Errors
    /// [`TableError::Database`], also if the drawing is malformed.
    pub fn embed(&self, client: &mut impl GenericClient, drawing: &[u8]) -> Result<Vec<f32>, TableError> {
        Ok(client.query_one("SELECT sketch_embed($1::bytea)::real[]", &[&drawing])?.get(0))
    }

    /// The bytes of a photo.
    ///
    /// # Errors
    /// [`TableError::Database`].
    pub fn image(&self, client: &mut impl GenericClient, key: &Key) -> Result<Vec<u8>, TableError> {
        let image = quote(&self.columns.image);
        let sql = format!("SELECT {image} FROM {} WHERE tableoid = $1 AND ctid = $2::text::tid", self.table);
        let row = client.query_one(&sql, &[&key.table, &key.place])?;
        Ok(row.get::<_, Option<Vec<u8>>>(0).unwrap_or_default())
    }

    fn label(&self) -> String {
        quote(self.columns.label.as_deref().unwrap_or_default())
    }

    /// The SQL clauses that select the rows with a class and an embedding, in a fixed order.
    fn rows(&self, column: &str) -> String {
        let (label, column) = (self.label(), quote(column));
        format!("FROM {} WHERE {label} IS NOT NULL AND {column} IS NOT NULL ORDER BY tableoid, ctid", self.table)
    }
}

/// A column's name as a quoted SQL identifier.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name, parsed as SQL parses it, and quoted.
fn quote_table(client: &mut impl GenericClient, name: &str) -> Result<String, TableError> {
    let sql = "SELECT string_agg(quote_ident(part), '.') FROM unnest(parse_ident($1)) AS part";
    let malformed = |_| TableError::Name { name: name.to_owned() };
    Ok(client.query_one(sql, &[&name]).map_err(malformed)?.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        assert_eq!(quote("image"), "\"image\"");
        assert_eq!(quote("a\"; DROP TABLE photo; --"), "\"a\"\"; DROP TABLE photo; --\"");
    }
}
