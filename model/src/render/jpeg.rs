//! Photos in JPEG, decoded no larger than they are needed.
//!
//! A block of 8 x 8 pixels becomes 4 x 4, 2 x 2 or one, straight from its lowest coefficients. The others are skipped,
//! several to a table lookup, so that a reduced picture takes a fraction of the time and memory of the whole. Only what
//! cameras write is decoded here: one interleaved scan of Huffman codes, 8 bits, grey or YCbCr. Every other file, and
//! every one that is damaged, is left to the decoder of whole pictures, which also knows what to say about it.

mod header;
mod huffman;
mod idct;

use image::{DynamicImage, GrayImage, RgbImage};

use header::Component;
pub(crate) use header::Header;
use huffman::Reader;
use idct::{BLOCK, Transform};

/// The largest of 8, 4 and 2 that is no larger than `most`: a picture can be reduced so many times.
pub(crate) fn reduction(most: f64) -> Option<u32> {
    [8, 4, 2].into_iter().find(|&by| f64::from(by) <= most)
}

/// Bytes that [`decode`] allocates.
pub(crate) fn memory(header: &Header, by: u32) -> u64 {
    let side = |extent: u32| u64::from(extent.div_ceil(by));
    let channels = header.components.len() as u64;
    let band = u64::from(header.mcus().0 * header.mcu().0 * header.mcu().1 / by / by);
    channels * (side(header.width) * side(header.height) + band)
}

/// Decodes a picture of which [`Header::read`] has read the header, reduced `by` 2, 4 or 8 along each side.
///
/// Returns `None` if the file is damaged, or not of the kind that is decoded here.
pub(crate) fn decode(header: &Header, bytes: &[u8], by: u32) -> Option<DynamicImage> {
    Decoder::new(header, bytes, 8 / by)?.picture(by)
}

struct Decoder<'a> {
    header: &'a Header,
    reader: Reader<'a>,
    planes: Vec<Plane<'a>>,
}

/// The rows of one component that one row of MCUs holds, and how its blocks are decoded.
struct Plane<'a> {
    component: &'a Component,
    transform: Transform,
    /// Prediction of the next block's mean.
    dc: i32,
    width: usize,
    pixels: Vec<u8>,
}

impl<'a> Decoder<'a> {
    /// `size`: side of a block after reduction, where a component has one sample a pixel.
    fn new(header: &'a Header, bytes: &'a [u8], size: u32) -> Option<Self> {
        let (across, _) = header.mcus();
        let (widest, tallest) = header.sampling();
        let plane = |component: &'a Component| {
            // A component with fewer samples is reduced less, so that all have the same size.
            let block = (size * widest / component.across, size * tallest / component.down);
            let transform = Transform::new(block, &component.quantisation)?;
            let width = (across * size * widest) as usize;
            let pixels = vec![0; width * (size * tallest) as usize];
            Some(Plane { component, transform, dc: 0, width, pixels })
        };
        let planes = header.components.iter().map(plane).collect::<Option<_>>()?;
        Some(Self { header, reader: Reader::new(bytes.get(header.data..)?), planes })
    }

    fn picture(mut self, by: u32) -> Option<DynamicImage> {
        let (width, height) = (self.header.width.div_ceil(by), self.header.height.div_ceil(by));
        let rows = self.header.mcu().1 / by;
        let mut pixels = Vec::with_capacity(self.planes.len() * (width * height) as usize);
        let mut left = self.header.restart_interval;
        for band in 0..self.header.mcus().1 {
            self.band(&mut left)?;
            for y in 0..rows.min(height - band * rows) {
                self.row(y as usize, width as usize, &mut pixels);
            }
        }
        if !self.reader.is_at_end_of_image() {
            return None;
        }
        match self.planes.len() {
            1 => GrayImage::from_raw(width, height, pixels).map(Into::into),
            _ => RgbImage::from_raw(width, height, pixels).map(Into::into),
        }
    }

    /// Decodes one row of MCUs. `left`: MCUs until the next restart.
    fn band(&mut self, left: &mut u32) -> Option<()> {
        for mcu in 0..self.header.mcus().0 as usize {
            if self.header.restart_interval > 0 {
                if *left == 0 {
                    self.reader.restart()?;
                    self.planes.iter_mut().for_each(|plane| plane.dc = 0);
                    *left = self.header.restart_interval;
                }
                *left -= 1;
            }
            for plane in &mut self.planes {
                plane.mcu(mcu, &mut self.reader)?;
            }
            if self.reader.has_overrun() {
                return None;
            }
        }
        Some(())
    }

    /// Appends row `y` of the band to `pixels`, in grey or RGB.
    fn row(&self, y: usize, width: usize, pixels: &mut Vec<u8>) {
        let line = |plane: &'_ Plane<'a>| y * plane.width..y * plane.width + width;
        match self.planes.as_slice() {
            [luma, blue, red] => {
                let start = pixels.len();
                pixels.resize(start + 3 * width, 0);
                let chroma = blue.pixels[line(blue)].iter().zip(&red.pixels[line(red)]);
                let samples = luma.pixels[line(luma)].iter().zip(chroma);
                for (rgb, (&luma, (&blue, &red))) in pixels[start..].chunks_exact_mut(3).zip(samples) {
                    rgb.copy_from_slice(&to_rgb(luma, blue, red));
                }
            }
            planes => planes.iter().for_each(|plane| pixels.extend_from_slice(&plane.pixels[line(plane)])),
        }
    }
}

impl Plane<'_> {
    /// Decodes this component's blocks of one MCU.
    fn mcu(&mut self, mcu: usize, reader: &mut Reader) -> Option<()> {
        let (across, down) = (self.component.across as usize, self.component.down as usize);
        let (width, height) = self.transform.size();
        let mut block = [0.0; BLOCK];
        for y in 0..down {
            for x in 0..across {
                let last = reader.block(
                    &self.component.tables,
                    &mut self.dc,
                    self.transform.quantisation(),
                    self.transform.last(),
                    &mut block,
                )?;
                let at = y * height * self.width + (mcu * across + x) * width;
                self.transform.apply(&block, last, &mut self.pixels[at..], self.width);
            }
        }
        Some(())
    }
}

/// Source: JPEG File Interchange Format, version 1.02, conversion to and from RGB; in units of 2^-16.
fn to_rgb(luma: u8, blue: u8, red: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (luma, blue, red) = ((i32::from(luma) << 16) + HALF, i32::from(blue) - 128, i32::from(red) - 128);
    [luma + 91_881 * red, luma - 22_554 * blue - 46_802 * red, luma + 116_130 * blue]
        .map(|value| (value >> 16).clamp(0, 255) as u8)
}
