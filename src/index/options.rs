//! What `WITH (…)` of CREATE INDEX takes.

use pgrx::prelude::*;
use sketch_model::index::BuildOptions;
use std::mem::offset_of;
use std::sync::OnceLock;

/// Bits of a code where nothing is asked for.
const DEFAULT_BITS: i32 = 8;
/// Lists are numbered in 16 bits.
const MAX_LISTS: i32 = 65_535;
/// Of random choices: an index that is built anew from the same rows is the same.
const SEED: u64 = 1;

/// As the server parses and keeps them with the index.
#[repr(C)]
struct Options {
    length_word: i32,
    lists: i32,
    bits: i32,
}

static KIND: OnceLock<pg_sys::relopt_kind::Type> = OnceLock::new();

/// Tells the server of the options; once, when the library is loaded.
pub fn define() {
    // Postgres keeps a pointer to the values of an option.
    let bits = [(c"4".as_ptr(), 4), (c"8".as_ptr(), 8), (std::ptr::null(), 0)]
        .map(|(string_val, symbol_val)| pg_sys::relopt_enum_elt_def { string_val, symbol_val });
    let bits = Box::leak(Box::new(bits)).as_mut_ptr();
    // SAFETY: all pointers are to constants or to memory that is never freed.
    unsafe {
        let kind = pg_sys::add_reloption_kind();
        let lock = pg_sys::AccessExclusiveLock as i32;
        pg_sys::add_int_reloption(
            kind,
            c"lists".as_ptr(),
            c"Number of lists that rows are grouped in, 0 to choose it by the number of rows".as_ptr(),
            0,
            0,
            MAX_LISTS,
            lock,
        );
        pg_sys::add_enum_reloption(
            kind,
            c"bits".as_ptr(),
            c"Bits of a code for each dimension".as_ptr(),
            bits,
            DEFAULT_BITS,
            c"Valid values are \"4\" and \"8\".".as_ptr(),
            lock,
        );
        KIND.set(kind).expect("defined once");
    }
}

/// Parses options.
#[pg_guard]
pub unsafe extern "C-unwind" fn parse(reloptions: pg_sys::Datum, validate: bool) -> *mut pg_sys::bytea {
    // PostgreSQL 18 has one field more.
    #[allow(clippy::needless_update)]
    let element = |name: &'static std::ffi::CStr, opttype, offset: usize| pg_sys::relopt_parse_elt {
        optname: name.as_ptr(),
        opttype,
        offset: offset as i32,
        ..Default::default()
    };
    let elements = [
        element(c"lists", pg_sys::relopt_type::RELOPT_TYPE_INT, offset_of!(Options, lists)),
        element(c"bits", pg_sys::relopt_type::RELOPT_TYPE_ENUM, offset_of!(Options, bits)),
    ];
    // SAFETY: the elements describe fields of `Options`, whose size is given.
    unsafe {
        pg_sys::build_reloptions(
            reloptions,
            validate,
            *KIND.get().expect("defined when the library was loaded"),
            size_of::<Options>(),
            elements.as_ptr(),
            elements.len() as i32,
        )
        .cast()
    }
}

/// The options of an index.
///
/// # Safety
/// `relation` is an open index of this access method.
pub unsafe fn options(relation: pg_sys::Relation) -> BuildOptions {
    // SAFETY: the server keeps there what `parse` returned, or null if no option was given.
    let options = unsafe { (*relation).rd_options.cast::<Options>().as_ref() };
    let (lists, bits) = options.map_or((0, DEFAULT_BITS), |options| (options.lists, options.bits));
    BuildOptions { lists: lists as usize, bits: bits as u8, seed: SEED }
}
