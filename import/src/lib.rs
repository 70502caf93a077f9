//! Photos in folders and CSV files, and tables of photos in a database. The command `pg-sketch` loads the former into the
//! latter.

#![forbid(unsafe_code)]

pub mod folder;
pub mod table;
