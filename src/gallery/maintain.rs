//! Maintenance of a gallery, `CALL sketch_maintain`: what is missing is embedded, the codebook is built anew if the gallery has
//! outgrown it, and an index is made if it pays.
//!
//! It goes in steps, each in a transaction of its own. The background worker does the same steps for the owner of the table.

use super::bulk::Part;
use super::census::{Census, quantisation_error};
use super::fuse::{self, ENOUGH, SAMPLE};
use super::{Gallery, Mode, queue};
use crate::catalog;
use crate::codebook::{self, Choice};
use crate::error::{Result, SqlError};
use crate::role::{Acting, as_owner};
use pgrx::JsonB;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use serde::{Deserialize, Serialize};
use sketch_model::codebook::{CodebookOptions, Length};

/// Photos from which on an index is faster than a scan: at 10,000 about twice as fast (docs/benchmarks.md).
pub const INDEX_PAYS: i64 = 10_000;
/// An index is built while writers wait: 50,000 photos take some seconds.
const INDEX_AT_ONCE: i64 = 50_000;
/// A codebook of so many times fewer photos is outgrown.
const GROWTH: f64 = 1.5;
/// A codebook is outgrown if photos are so much further from their prototypes than when it was built.
const DRIFT: f64 = 0.15;

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Queue what lacks an embedding.
    Missing,
    /// Embed a batch of the queue.
    Embed,
    /// Build the codebook and fuse all photos with it, in one transaction: whoever looks sees one codebook.
    Codebook,
    /// Fuse photos that were written or locked meanwhile.
    Rest,
    Index,
}

#[pg_extern(volatile, parallel_unsafe)]
fn maintain_step(photos: Option<pg_sys::Oid>, progress: Option<JsonB>) -> Result<Option<JsonB>, ErrorReport> {
    let photos = photos
        .ok_or_else(|| SqlError::new(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "\"photos\" must not be null"))?;
    let gallery = Gallery::of(photos)?;
    check_may_write(&gallery)?;
    let next = match progress {
        None => {
            // Whoever calls has changed something, such as a limit.
            queue::retry(photos)?;
            Some(Step::Missing)
        }
        Some(JsonB(progress)) => serde_json::from_value(progress).map_err(|error| {
            SqlError::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "\"progress\" is not of an earlier step")
                .detail(format!("{error}."))
        })?,
    };
    let next = next.map(|next| step(&gallery, next, None)).transpose()?.flatten();
    Ok(next.map(|next| JsonB(serde_json::to_value(next).expect("a name"))))
}

/// Refuses whoever may not read and change the rows: to the queue, that would look like photos that fail.
fn check_may_write(gallery: &Gallery) -> Result<()> {
    for part in Part::of_gallery(gallery.relation, gallery)? {
        // SAFETY: plain look-ups in the catalog.
        let may = unsafe {
            let wanted = (pg_sys::ACL_SELECT | pg_sys::ACL_UPDATE) as pg_sys::AclMode;
            let all = pg_sys::AclMaskHow::ACLMASK_ALL;
            pg_sys::pg_class_aclmask(part.table, pg_sys::GetUserId(), wanted, all) == wanted
        };
        if !may {
            return Err(SqlError::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied for table {}", catalog::relation_name(part.table)?),
            )
            .detail("It takes SELECT and UPDATE."));
        }
    }
    Ok(())
}

/// Does a step, with the rights of `role` or, without one, the caller's. Returns what is next.
pub fn step(gallery: &Gallery, step: Step, role: Option<pg_sys::Oid>) -> Result<Option<Step>> {
    let acting = || role.map(Acting::restricted);
    Ok(match step {
        Step::Missing => {
            let _acting = acting();
            queue::enqueue_missing(gallery)?;
            Some(Step::Embed)
        }
        // The queue takes the role for what concerns the table.
        Step::Embed if queue::drain(gallery, role)?.entries > 0 => Some(Step::Embed),
        Step::Embed => Some(Step::Codebook),
        Step::Codebook => {
            let _acting = acting();
            renew_codebook(gallery)?;
            Some(Step::Rest)
        }
        Step::Rest => {
            let _acting = acting();
            fuse_rest(gallery)?;
            Some(Step::Index)
        }
        Step::Index => {
            let _acting = acting();
            make_index(gallery)?;
            None
        }
    })
}

/// Why a codebook should be built.
pub fn outgrown(gallery: &Gallery, census: &Census) -> Result<Option<String>> {
    let embedded = census.embedded;
    if embedded < ENOUGH as i64 {
        return Ok(None);
    }
    let Some(codebook) = census.codebook else { return Ok(Some(format!("{embedded} photos are enough for one"))) };
    // What somebody else has built stays.
    let Some(built) = gallery.built.as_ref().filter(|built| built.codebook == codebook) else { return Ok(None) };
    let ratio = embedded.min(SAMPLE as i64) as f64 / built.photos.clamp(1, SAMPLE as i64) as f64;
    if ratio >= GROWTH {
        return Ok(Some(format!("it was built for {} photos, there are {embedded}", built.photos)));
    }
    Ok(census
        .drift(gallery)
        .filter(|drift| *drift >= DRIFT)
        .map(|drift| format!("photos are {:.0} % further from their prototypes than when it was built", 100.0 * drift)))
}

fn renew_codebook(gallery: &Gallery) -> Result<()> {
    let census = Census::take(gallery)?;
    let Some(reason) = outgrown(gallery, &census)? else { return Ok(()) };
    let table = catalog::relation_name(gallery.relation)?;
    // What was chosen for the last one counts for the next.
    let choice = match census.codebook.map(catalog::read_codebook).transpose()? {
        // An earlier version chose for it, and had less to choose from.
        Some(last) if last.length() != Length::Scaled => Choice {
            subspaces: Some(last.subspaces()),
            hubs: Some(last.hubs().strength),
            options: CodebookOptions { weight: last.weight(), length: last.length(), ..CodebookOptions::default() },
            ..Choice::default()
        },
        _ => Choice::default(),
    };
    let column = gallery.embedding.name().unwrap_or_default();
    let sample = codebook::read_sample(gallery.relation, &column, SAMPLE, Some(gallery.model))?;
    let Some(built) = fuse::build(&table, &gallery.codebook, sample, choice)? else { return Ok(()) };
    let fused = fuse_with(gallery, built)?;
    gallery.record_built(built)?;
    notice!("codebook of table \"{table}\" is new: {reason}; {fused} photos are fused with it");
    Ok(())
}

/// Fuses all photos that another codebook or none has fused, but for rows that other transactions have locked. Waits for
/// nobody, so that it cannot be part of a deadlock.
fn fuse_with(gallery: &Gallery, codebook: u32) -> Result<usize> {
    let schema = catalog::quoted_extension_schema()?;
    let model = gallery.model;
    let mut fused = 0;
    for part in Part::of_gallery(gallery.relation, gallery)? {
        let update = part.fuse_statement(&schema, model);
        let args =
            [gallery.codebook.name.as_str().into(), i64::from(codebook).into(), gallery.codebook.owner.as_str().into()];
        fused += Spi::connect_mut(|client| client.update(update.as_str(), None, &args).map(|rows| rows.len()))?;
    }
    Ok(fused)
}

fn fuse_rest(gallery: &Gallery) -> Result<()> {
    let Some(codebook) = catalog::find_codebook(&gallery.codebook, gallery.model)? else { return Ok(()) };
    if gallery.mode == Mode::Trigger {
        // Triggers of transactions in progress may have used the codebook of before.
        Spi::run(&format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", catalog::relation_name(gallery.relation)?))?;
    }
    fuse_with(gallery, codebook).map(drop)
}

/// Makes the index if the gallery has none and it pays; says so.
pub fn make_index(gallery: &Gallery) -> Result<()> {
    let census = Census::take(gallery)?;
    if census.embedded < INDEX_PAYS || super::census::index(gallery)?.is_some() {
        return Ok(());
    }
    let table = catalog::relation_name(gallery.relation)?;
    if census.embedded > INDEX_AT_ONCE {
        SqlError::new(
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            format!("table \"{table}\" has {} photos, for which an index pays", census.embedded),
        )
        .hint(format!("Run {}.", create_index(gallery, "CONCURRENTLY ")?))
        .notice();
        return Ok(());
    }
    Spi::run(&create_index(gallery, "")?)?;
    notice!("table \"{table}\" has {} photos, for which an index pays; it has been made", census.embedded);
    Ok(())
}

/// The statement that makes the index.
pub fn create_index(gallery: &Gallery, how: &str) -> Result<String> {
    let table = catalog::relation_name(gallery.relation)?;
    Ok(format!("CREATE INDEX {how}ON {table} USING ivfexact ({})", gallery.fused.quoted()))
}

/// A codebook that `sketch_enable` or maintenance built for a gallery.
pub struct Built {
    pub codebook: u32,
    /// Embedded photos at that time.
    pub photos: i64,
    /// Their mean squared distance from their prototypes.
    pub error: f32,
}

impl Gallery {
    /// Writes down what a codebook was built for, to tell later whether the gallery has outgrown it.
    pub fn record_built(&self, codebook: u32) -> Result<()> {
        let photos = Census::take(self)?.embedded;
        let error = quantisation_error(self, codebook, photos)?;
        let update = "UPDATE sketch.gallery SET built_codebook = $2, built_photos = $3, built_error = $4 \
             WHERE relation OPERATOR(pg_catalog.=) $1";
        let args = [self.relation.into(), i64::from(codebook).into(), photos.into(), error.into()];
        as_owner(|| Ok(Spi::run_with_args(update, &args)?))
    }
}
