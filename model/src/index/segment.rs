//! Writing, reading and freeing one row in the pages of its segment.

use super::RowId;
use super::code::{
    DISTANCE, MIDDLE_BASE, MIDDLE_ERROR, NEAR_BASE, NEAR_CODES, NEAR_ERROR, NORM, REST, RowLayout, SCALE,
};
use super::layout::{FREE, Layout, get_f32, put, write_row_id};
use crate::simd::{BLOCK_BYTES, RESTS};

/// The fields of a slot: where they lie in a coded row, where on the segment's page, and how long they are.
fn fields(layout: &Layout, slot: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let rests = (0..RESTS).map(move |part| (REST + 2 * part, layout.rest_at(part, slot), 2));
    rests.chain([
        (NEAR_BASE, layout.near_base_at(slot), 4),
        (MIDDLE_BASE, layout.middle_base_at(slot), 4),
        (SCALE, layout.scale_at(slot), 2),
        (NEAR_ERROR, layout.near_error_at(slot), 2),
        (MIDDLE_ERROR, layout.middle_error_at(slot), 2),
    ])
}

/// Writes a coded row to its slot of the segment's page.
pub fn write_near(page: &mut [u8], layout: &Layout, row: &RowLayout, slot: usize, id: RowId, bytes: &[u8]) {
    for (from, to, length) in fields(layout, slot) {
        put(page, to, &bytes[from..from + length]);
    }
    for eighth in 0..BLOCK_BYTES / 4 {
        put(page, layout.near_code_at(slot, eighth), &bytes[NEAR_CODES + 4 * eighth..][..4]);
    }
    put(page, layout.middle_code_at(slot), &bytes[row.middle_codes..row.far]);
    write_row_id(page, layout.row_id_at(slot), id);
}

/// Reads back what [`write_near`] wrote; distance and norm are left unchanged in `bytes`.
pub fn read_near(page: &[u8], layout: &Layout, row: &RowLayout, slot: usize, bytes: &mut [u8]) {
    for (to, from, length) in fields(layout, slot) {
        put(bytes, to, &page[from..from + length]);
    }
    for eighth in 0..BLOCK_BYTES / 4 {
        put(bytes, NEAR_CODES + 4 * eighth, &page[layout.near_code_at(slot, eighth)..][..4]);
    }
    put(bytes, row.middle_codes, &page[layout.middle_code_at(slot)..][..row.far - row.middle_codes]);
}

/// Frees a slot.
pub fn free_slot(page: &mut [u8], layout: &Layout, slot: usize) {
    put(page, layout.near_base_at(slot), FREE.to_le_bytes());
}

/// Distance of a coded row from its centroid.
pub fn distance(bytes: &[u8]) -> f32 {
    get_f32(bytes, DISTANCE)
}

/// Length of the embedding of a coded row.
pub fn length(bytes: &[u8]) -> f32 {
    get_f32(bytes, NORM)
}
