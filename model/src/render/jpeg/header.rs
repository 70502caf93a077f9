//! The segments of a JPEG file in front of its pixels.

use std::rc::Rc;

use image::metadata::Orientation;

use super::huffman::{AcTable, DcTable, Tables};
use super::idct::{BLOCK, ZIGZAG};

/// What is needed to decode the pixels.
pub(crate) struct Header {
    pub width: u32,
    pub height: u32,
    pub orientation: Orientation,
    pub(super) components: Vec<Component>,
    /// MCUs between two restart markers; 0 for none.
    pub(super) restart_interval: u32,
    /// Where the scan's codes begin.
    pub(super) data: usize,
}

/// One of the planes Y, Cb and Cr.
pub(super) struct Component {
    id: u8,
    /// Blocks in an MCU.
    pub across: u32,
    pub down: u32,
    table: u8,
    /// Divisors of the coefficients, row by row.
    pub quantisation: [f32; BLOCK],
    pub tables: Tables,
}

/// Tables as the segments so far define them.
#[derive(Default)]
struct Defined {
    quantisation: [Option<[f32; BLOCK]>; 4],
    dc: [Option<Rc<DcTable>>; 4],
    ac: [Option<Rc<AcTable>>; 4],
}

impl Header {
    /// Reads the segments up to the first scan; `None` if the file is damaged, or not of the kind that is decoded here.
    ///
    /// Source: ITU-T T.81, annex B; Adobe Technical Note 5116 for its segment.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        const ADOBE_YCBCR: u8 = 1;
        let mut defined = Defined::default();
        let mut header = None;
        let (mut orientation, mut restart_interval) = (Orientation::NoTransforms, 0);
        let mut at = 2;
        loop {
            let [0xff, code] = *bytes.get(at..at + 2)? else { return None };
            at += 2;
            if code == 0xff {
                // Any number of them may precede a marker.
                at -= 1;
                continue;
            }
            let length = usize::from(word(bytes.get(at..)?)?);
            let segment = bytes.get(at + 2..at + length)?;
            at += length;
            match code {
                // The size of two tables of coefficients is all that the two kinds of frame differ by.
                0xc0 | 0xc1 if header.is_none() => header = Some(Self::frame(segment)?),
                0xc4 => defined.huffman(segment)?,
                0xdb => defined.quantisation(segment)?,
                0xdd => restart_interval = word(segment)?.into(),
                0xda => {
                    let mut header = header?;
                    header.scan(segment, &defined)?;
                    return Some(Self { orientation, restart_interval, data: at, ..header });
                }
                0xe1 if segment.starts_with(b"Exif\0\0") => {
                    orientation = Orientation::from_exif_chunk(&segment[6..]).unwrap_or(Orientation::NoTransforms);
                }
                0xee if segment.starts_with(b"Adobe") && *segment.get(11)? != ADOBE_YCBCR => return None,
                // Segments of applications, and comments.
                0xe0..=0xef | 0xfe => {}
                _ => return None,
            }
        }
    }

    fn frame(segment: &[u8]) -> Option<Self> {
        let [8, _, _, _, _, count, components @ ..] = segment else { return None };
        let (height, width) = (u32::from(word(&segment[1..])?), u32::from(word(&segment[3..])?));
        if width == 0 || height == 0 || !matches!(count, 1 | 3) || components.len() != 3 * usize::from(*count) {
            return None;
        }
        let component = |part: &[u8]| Component {
            id: part[0],
            across: u32::from(part[1] >> 4),
            down: u32::from(part[1] & 15),
            table: part[2],
            quantisation: [0.0; BLOCK],
            tables: Tables::default(),
        };
        let mut components: Vec<Component> = components.chunks_exact(3).map(component).collect();
        let is_rgb = components.iter().map(|component| component.id).eq(*b"RGB");
        if let [grey] = components.as_mut_slice() {
            // The blocks of a lone component follow each other row by row, whatever its sampling.
            (grey.across, grey.down) = (1, 1);
        }
        let header =
            Self { width, height, orientation: Orientation::NoTransforms, components, restart_interval: 0, data: 0 };
        let (widest, tallest) = header.sampling();
        let is_even = |component: &Component| {
            let fits = |part: u32, whole: u32| (1..=4).contains(&part) && whole.is_multiple_of(part);
            fits(component.across, widest) && fits(component.down, tallest)
        };
        (!is_rgb && header.components.iter().all(is_even)).then_some(header)
    }

    /// Reads a scan's header; it must hold all components, and all of their coefficients.
    fn scan(&mut self, segment: &[u8], defined: &Defined) -> Option<()> {
        let count = self.components.len();
        let parts = segment.get(1..1 + 2 * count)?;
        if usize::from(segment[0]) != count || segment[1 + 2 * count..] != [0, 63, 0] {
            return None;
        }
        for (component, part) in self.components.iter_mut().zip(parts.chunks_exact(2)) {
            if component.id != part[0] {
                return None;
            }
            component.quantisation = (*defined.quantisation.get(usize::from(component.table))?)?;
            component.tables = Tables {
                dc: defined.dc.get(usize::from(part[1] >> 4))?.clone(),
                ac: defined.ac.get(usize::from(part[1] & 15))?.clone(),
            };
        }
        Some(())
    }

    /// Most blocks of a component in an MCU, across and down.
    pub(super) fn sampling(&self) -> (u32, u32) {
        let most = |of: fn(&Component) -> u32| self.components.iter().map(of).max().unwrap_or(1);
        (most(|component| component.across), most(|component| component.down))
    }

    /// Width and height of an MCU, the unit in which components are interleaved, in pixels.
    pub(super) fn mcu(&self) -> (u32, u32) {
        let (across, down) = self.sampling();
        (8 * across, 8 * down)
    }

    /// Number of MCUs, across and down.
    pub(super) fn mcus(&self) -> (u32, u32) {
        let (width, height) = self.mcu();
        (self.width.div_ceil(width), self.height.div_ceil(height))
    }
}

impl Defined {
    fn quantisation(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [kind, rest @ ..] = segment {
            let bytes = match kind >> 4 {
                0 => 1,
                1 => 2,
                _ => return None,
            };
            let (values, rest) = rest.split_at_checked(bytes * BLOCK)?;
            let mut table = [0.0; BLOCK];
            for (value, &place) in values.chunks_exact(bytes).zip(&ZIGZAG) {
                table[usize::from(place)] = value.iter().fold(0.0, |sum, &byte| 256.0 * sum + f32::from(byte));
            }
            *self.quantisation.get_mut(usize::from(kind & 15))? = Some(table);
            segment = rest;
        }
        Some(())
    }

    fn huffman(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [kind, rest @ ..] = segment {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let symbols: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let (symbols, rest) = rest.split_at_checked(symbols)?;
            let place = usize::from(kind & 15);
            match kind >> 4 {
                0 => *self.dc.get_mut(place)? = Some(Rc::new(DcTable::new(counts, symbols)?)),
                1 => *self.ac.get_mut(place)? = Some(Rc::new(AcTable::new(counts, symbols)?)),
                _ => return None,
            }
            segment = rest;
        }
        Some(())
    }
}

fn word(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}
