//! What the bytes of a user may cost.

/// Bounds that every decoder checks before it spends memory or time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length of a file, or of a drawing's text, in bytes.
    pub bytes: usize,
    /// Width times height of a bitmap, read from its header.
    pub pixels: u64,
    /// Memory that decoding one bitmap may take, in bytes.
    pub allocation: u64,
    /// Points of a stroke drawing, or segments of all paths of an SVG with every `use` followed.
    pub points: usize,
}

impl Default for Limits {
    /// 32 MiB, 50 megapixels (a phone's camera), 256 MiB, 100,000 points (QuickDraw drawings have
    /// about 50, a dense SVG trace some 10,000).
    fn default() -> Self {
        Self { bytes: 32 << 20, pixels: 50_000_000, allocation: 256 << 20, points: 100_000 }
    }
}
