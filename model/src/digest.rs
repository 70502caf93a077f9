//! SHA-256 digests and the four-byte tags that embeddings carry.

use sha2::{Digest, Sha256};

/// A SHA-256 digest.
pub type Sha256Digest = [u8; 32];

/// Returns the SHA-256 of the concatenation of `parts`.
pub fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Sha256Digest {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Returns the tag of a digest: its first four bytes, big endian; never 0, which stands for "none".
pub fn tag(digest: &Sha256Digest) -> u32 {
    let tag = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    tag.max(1)
}
