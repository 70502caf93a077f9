//! A picture of drawings and the photos that they retrieve.
//!
//! Each row has a drawing at the left, then its photos, the nearest first, each with its name below.

use ab_glyph::FontRef;
use image::imageops::{FilterType, overlay};
use image::{DynamicImage, Rgb, RgbImage, Rgba, RgbaImage};
use imageproc::drawing::{draw_text_mut, text_size};

/// Side of a drawing, in pixels of the picture.
pub const DRAWING_SIDE: u32 = 168;
/// Side of a photo.
const PHOTO_SIDE: u32 = 144;
/// Space around everything, and between the drawing and its photos.
const MARGIN: u32 = 32;
/// Space between photos.
const GAP: u32 = 14;
/// Space between rows.
const ROW_GAP: u32 = 20;
/// Height of a line of text with the space above it.
const LABEL: u32 = 26;
/// Space between a picture and the text below it.
const LABEL_GAP: u32 = 4;
const TEXT_SIZE: f32 = 18.0;

const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
/// Behind photos that are not square.
const MOUNT: Rgb<u8> = Rgb([246, 246, 244]);
const LINE: Rgb<u8> = Rgb([222, 222, 218]);
const INK: Rgb<u8> = Rgb([64, 64, 64]);
/// Frame of a drawing.
const ACCENT: Rgb<u8> = Rgb([31, 111, 178]);

/// A picture with a name; without a picture, an empty frame is shown.
#[derive(Clone, Debug)]
pub struct Cell {
    pub label: String,
    pub picture: Option<DynamicImage>,
}

/// Rows of drawings and photos.
pub struct Board {
    columns: usize,
    rows: Vec<(Cell, Vec<Cell>)>,
}

impl Board {
    /// A board for `columns` photos in a row.
    pub fn new(columns: usize) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a drawing and its photos; photos beyond the board's columns are not shown.
    pub fn add_row(&mut self, drawing: Cell, photos: Vec<Cell>) {
        self.rows.push((drawing, photos));
    }

    /// Width and height of the picture.
    fn size(&self) -> (u32, u32) {
        let photos = self.columns as u32 * (PHOTO_SIDE + GAP) - GAP;
        let rows = self.rows.len() as u32 * (row_height() + ROW_GAP);
        (MARGIN + DRAWING_SIDE + MARGIN + photos + MARGIN, MARGIN + rows.max(ROW_GAP) - ROW_GAP + MARGIN)
    }

    /// Draws the board.
    pub fn render(&self) -> RgbImage {
        let (width, height) = self.size();
        let mut board = RgbImage::from_pixel(width, height, PAPER);
        for (i, (drawing, photos)) in self.rows.iter().enumerate() {
            let top = MARGIN + i as u32 * (row_height() + ROW_GAP);
            let tile = Tile { left: MARGIN, top, side: DRAWING_SIDE, back: PAPER, line: ACCENT, thickness: 2 };
            tile.draw(&mut board, drawing);
            // Photos are smaller than the drawing and centred on it.
            let top = top + (DRAWING_SIDE - PHOTO_SIDE) / 2;
            for (j, photo) in photos.iter().take(self.columns).enumerate() {
                let left = 2 * MARGIN + DRAWING_SIDE + j as u32 * (PHOTO_SIDE + GAP);
                let tile = Tile { left, top, side: PHOTO_SIDE, back: MOUNT, line: LINE, thickness: 1 };
                tile.draw(&mut board, photo);
            }
        }
        board
    }
}

fn row_height() -> u32 {
    DRAWING_SIDE + LABEL
}

/// A square with a picture in it and a name below.
struct Tile {
    left: u32,
    top: u32,
    side: u32,
    back: Rgb<u8>,
    line: Rgb<u8>,
    thickness: u32,
}

impl Tile {
    fn draw(&self, board: &mut RgbImage, cell: &Cell) {
        fill(board, self.left, self.top, self.side, self.line);
        let inside = self.side - 2 * self.thickness;
        let (left, top) = (self.left + self.thickness, self.top + self.thickness);
        fill(board, left, top, inside, self.back);
        if let Some(picture) = &cell.picture {
            let fitted = fit(picture, inside, self.back);
            let (width, height) = fitted.dimensions();
            let (left, top) = (left + (inside - width) / 2, top + (inside - height) / 2);
            overlay(board, &fitted, left.into(), top.into());
        }
        write_centred(board, &cell.label, self.left, self.top + self.side + LABEL_GAP, self.side);
    }
}

fn fill(board: &mut RgbImage, left: u32, top: u32, side: u32, colour: Rgb<u8>) {
    overlay(board, &RgbImage::from_pixel(side, side, colour), left.into(), top.into());
}

/// Scales `picture` to fit into a square, with transparency over `back`.
fn fit(picture: &DynamicImage, side: u32, back: Rgb<u8>) -> RgbImage {
    let scaled = picture.resize(side, side, FilterType::Triangle).to_rgba8();
    let [red, green, blue] = back.0;
    let mut ground = RgbaImage::from_pixel(scaled.width(), scaled.height(), Rgba([red, green, blue, 255]));
    overlay(&mut ground, &scaled, 0, 0);
    DynamicImage::ImageRgba8(ground).into_rgb8()
}

/// Writes one line, centred in `width` pixels from `left`; text that does not fit ends in an ellipsis.
fn write_centred(board: &mut RgbImage, text: &str, left: u32, top: u32, width: u32) {
    // The bytes are a constant of the crate and a valid font.
    let Ok(font) = FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT) else { return };
    let text = shorten(&font, text, width);
    let left = left + (width - text_width(&font, &text)) / 2;
    draw_text_mut(board, INK, left as i32, top as i32, TEXT_SIZE, &font, &text);
}

fn text_width(font: &FontRef, text: &str) -> u32 {
    text_size(TEXT_SIZE, font, text).0
}

/// `text`, or as much of its beginning as fits into `width` with an ellipsis after it.
fn shorten(font: &FontRef, text: &str, width: u32) -> String {
    if text_width(font, text) <= width {
        return text.to_owned();
    }
    let mut short = text.to_owned();
    while short.pop().is_some() {
        let candidate = format!("{}…", short.trim_end());
        if text_width(font, &candidate) <= width {
            return candidate;
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(label: &str, colour: [u8; 4], width: u32, height: u32) -> Cell {
        let picture = RgbaImage::from_pixel(width, height, Rgba(colour));
        Cell { label: label.to_owned(), picture: Some(DynamicImage::ImageRgba8(picture)) }
    }

    fn font() -> FontRef<'static> {
        FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT).unwrap()
    }

    #[test]
    fn pictures_lie_where_they_belong() {
        let mut board = Board::new(2);
        let photos = vec![cell("wide", [255, 0, 0, 255], 400, 100), cell("clear", [0, 0, 255, 0], 50, 50)];
        board.add_row(cell("drawing", [0, 0, 0, 255], 10, 10), photos);
        board.add_row(cell("", [0, 0, 0, 255], 10, 10), vec![]);
        let picture = board.render();
        assert_eq!(
            picture.dimensions(),
            (MARGIN * 3 + DRAWING_SIDE + 2 * PHOTO_SIDE + GAP, 2 * MARGIN + 2 * 194 + ROW_GAP)
        );
        let middle = MARGIN + DRAWING_SIDE / 2;
        let first = 2 * MARGIN + DRAWING_SIDE + PHOTO_SIDE / 2;
        assert_eq!(picture.get_pixel(middle, middle).0, [0, 0, 0]);
        assert_eq!(picture.get_pixel(first, middle).0, [255, 0, 0]);
        // The mount shows above and below a wide photo, and through a transparent one.
        assert_eq!(*picture.get_pixel(first, middle - PHOTO_SIDE / 4), MOUNT);
        assert_eq!(*picture.get_pixel(first + PHOTO_SIDE + GAP, middle), MOUNT);
    }

    #[test]
    fn names_stay_inside_their_frames() {
        let mut board = Board::new(1);
        board.add_row(cell(&"W".repeat(80), [255, 255, 255, 255], 9, 9), vec![]);
        let picture = board.render();
        let inked = |x: u32| (0..picture.height()).any(|y| picture.get_pixel(x, y).0[0] < 128);
        assert!(!(0..MARGIN).any(inked));
        assert!(!(MARGIN + DRAWING_SIDE..picture.width()).any(inked));
        assert!((MARGIN..MARGIN + DRAWING_SIDE).any(inked));
    }

    #[test]
    fn long_names_end_in_an_ellipsis() {
        assert_eq!(shorten(&font(), "cat", 100), "cat");
        let short = shorten(&font(), "a very long name of a photo indeed", 100);
        assert!(short.ends_with('…') && text_width(&font(), &short) <= 100);
        assert_eq!(shorten(&font(), "cat", 1), "");
    }

    #[test]
    fn empty_board_is_a_picture() {
        assert_eq!(Board::new(1).render().height(), 2 * MARGIN);
    }
}
