//! The binary format of `COPY`, with embeddings as their type sends them.

use crate::DIMENSION;
use half::f16;
use std::io::{self, BufWriter, Write};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, length of an extension of the header that nobody uses.
const HEADER: usize = SIGNATURE.len() + 8;
/// Dimension, nothing, model, codebook.
const EMBEDDING_HEADER: usize = 12;
const EMBEDDING: usize = EMBEDDING_HEADER + 2 * DIMENSION;

/// Tags of an embedding, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Origin {
    pub model: u32,
    pub codebook: u32,
}

pub struct Row {
    pub id: u64,
    pub origin: Origin,
    pub values: Vec<f16>,
}

/// Writes rows of an id and an embedding.
pub struct Writer<W: Write>(BufWriter<W>);

impl<W: Write> Writer<W> {
    pub fn new(out: W) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(1 << 20, out);
        out.write_all(SIGNATURE)?;
        out.write_all(&[0; HEADER - SIGNATURE.len()])?;
        Ok(Self(out))
    }

    pub fn write(&mut self, Row { id, origin, values }: &Row) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(EMBEDDING + 32);
        bytes.extend(2i16.to_be_bytes());
        bytes.extend(8i32.to_be_bytes());
        bytes.extend(id.to_be_bytes());
        bytes.extend((EMBEDDING as i32).to_be_bytes());
        bytes.extend((DIMENSION as u16).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(origin.model.to_be_bytes());
        bytes.extend(origin.codebook.to_be_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_be_bytes()));
        self.0.write_all(&bytes)
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.0.write_all(&(-1i16).to_be_bytes())?;
        self.0.flush()
    }
}

/// Reads rows of one embedding: their values, one row after the other, and their model.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] for NULLs, more columns, other dimensions, or several models.
pub fn read(bytes: &[u8]) -> io::Result<(Vec<f16>, u32)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "not one column of embeddings of 512 dimensions");
    let mut rest = bytes.get(HEADER..).filter(|_| bytes.starts_with(SIGNATURE)).ok_or_else(invalid)?;
    let (mut values, mut model) = (Vec::new(), None);
    let row_header = [&1i16.to_be_bytes()[..], &(EMBEDDING as i32).to_be_bytes()].concat();
    while let Some(row) = rest.strip_prefix(&row_header[..]) {
        let (embedding, next) = row.split_at_checked(EMBEDDING).ok_or_else(invalid)?;
        let (header, halves) = embedding.split_at(EMBEDDING_HEADER);
        let tag = [header[4], header[5], header[6], header[7]];
        if *model.get_or_insert(tag) != tag {
            return Err(invalid());
        }
        values.extend(halves.as_chunks().0.iter().map(|&half| f16::from_be_bytes(half)));
        rest = next;
    }
    match (rest, model) {
        ([0xff, 0xff], Some(model)) => Ok((values, u32::from_be_bytes(model))),
        _ => Err(invalid()),
    }
}
