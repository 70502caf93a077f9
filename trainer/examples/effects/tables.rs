//! The tables: the steps that change and the queries that measure them.

use sketch_model::render::preprocess::{Colours, Crop, Fit, PhotoPreprocessing, Polarity, SketchPreprocessing};
use sketch_model::render::resize::Filter;
use sketch_trainer::data::{CALTECH, SKETCHY_PHOTOS};

use crate::queries::{Alteration, Queries};

pub struct Table {
    pub name: &'static str,
    pub queries: Vec<Queries>,
    /// Collection of the photos that are searched.
    pub gallery: &'static str,
    pub rows: Vec<Row>,
}

/// One way to prepare images.
pub struct Row {
    pub name: String,
    pub sketch: SketchPreprocessing,
    pub photo: PhotoPreprocessing,
}

fn row(name: impl Into<String>, change: impl Fn(&mut SketchPreprocessing, &mut PhotoPreprocessing)) -> Row {
    let (mut sketch, mut photo) = (SketchPreprocessing::best(), PhotoPreprocessing::best());
    change(&mut sketch, &mut photo);
    Row { name: name.into(), sketch, photo }
}

const BOTH: [Queries; 2] = [Queries::Sketches, Queries::Doodles];
const PENS: [Queries; 3] = [Queries::Pen(1.5), Queries::Pen(6.0), Queries::Pen(18.0)];

pub fn all() -> Vec<Table> {
    vec![presets(), robustness(), frame(), stroke(), bitmap_stroke(), filter(), photo_fit(), photo_filter()]
}

fn altered() -> Vec<Queries> {
    use Alteration::*;
    [WhiteOnBlack, Transparent, TransparentWhite, Yellow, Corner, Thick, Pencil].map(Queries::Altered).to_vec()
}

fn presets() -> Table {
    let exact = |sketch: &mut SketchPreprocessing, photo: &mut PhotoPreprocessing| {
        (*sketch, *photo) = (SketchPreprocessing::exact(), PhotoPreprocessing::exact());
    };
    Table {
        name: "presets",
        queries: [&BOTH[..], &PENS].concat(),
        gallery: SKETCHY_PHOTOS,
        rows: vec![row("best", |_, _| {}), row("exact", exact)],
    }
}

fn robustness() -> Table {
    Table {
        name: "robustness",
        queries: [vec![Queries::Sketches], altered()].concat(),
        gallery: SKETCHY_PHOTOS,
        rows: vec![
            row("best", |_, _| {}),
            row("paper not cleaned", |sketch, _| sketch.clean_paper = false),
            row("polarity kept, paper not cleaned", |sketch, _| {
                (sketch.polarity, sketch.clean_paper) = (Polarity::Keep, false);
            }),
            row("colours kept", |sketch, _| sketch.colours = Colours::Keep),
            row("contrast not stretched", |sketch, _| sketch.stretch_contrast = false),
            row("whole sheet", |sketch, _| sketch.frame = Crop::Whole),
            row("exact", |sketch, _| *sketch = SketchPreprocessing::exact()),
        ],
    }
}

fn frame() -> Table {
    let margin = |margin: f32| {
        row(format!("margin {:.0} %", 100.0 * margin), move |sketch, _| sketch.frame = Crop::Ink { margin })
    };
    let rows = [0.1, 0.0, 0.05, 0.15, 0.2, 0.3].map(margin);
    let whole = row("whole sheet", |sketch, _| sketch.frame = Crop::Whole);
    Table {
        name: "frame",
        queries: BOTH.to_vec(),
        gallery: SKETCHY_PHOTOS,
        rows: rows.into_iter().chain([whole]).collect(),
    }
}

fn stroke() -> Table {
    let width = |width: f32| row(format!("{width} px"), move |sketch, _| sketch.vector_stroke = width);
    Table {
        name: "vector stroke",
        queries: vec![Queries::Doodles],
        gallery: SKETCHY_PHOTOS,
        rows: [3.0, 1.0, 1.5, 2.0, 2.5, 3.5, 4.0, 5.0, 6.0, 8.0].map(width).into_iter().collect(),
    }
}

fn bitmap_stroke() -> Table {
    let set = |name: &str, width: Option<f32>| row(name, move |sketch, _| sketch.bitmap_stroke = width);
    Table {
        name: "bitmap stroke",
        queries: [&[Queries::Sketches, Queries::Altered(Alteration::Thick)][..], &PENS].concat(),
        gallery: SKETCHY_PHOTOS,
        rows: vec![
            set("kept", None),
            set("1.5 px", Some(1.5)),
            set("2 px", Some(2.0)),
            set("2.5 px", Some(2.5)),
            set("3 px", Some(3.0)),
            set("4 px", Some(4.0)),
        ],
    }
}

fn filter() -> Table {
    let set = |name: &str, filter: Filter| row(name, move |sketch, _| sketch.filter = filter);
    Table {
        name: "sketch filter",
        queries: [&[Queries::Sketches][..], &PENS].concat(),
        gallery: SKETCHY_PHOTOS,
        rows: vec![
            set("triangle", Filter::Triangle),
            set("area", Filter::Area),
            set("Catmull-Rom", Filter::CatmullRom),
            set("Lanczos", Filter::Lanczos3),
        ],
    }
}

fn photo_fit() -> Table {
    let set = |name: &str, fit: Fit| row(name, move |_, photo| photo.fit = fit);
    Table {
        name: "photo fit",
        queries: BOTH.to_vec(),
        gallery: CALTECH,
        rows: vec![
            set("squash", Fit::Squash),
            set("centre crop", Fit::CentreCrop),
            set("pad, white", Fit::Pad { colour: [255; 3] }),
            set("pad, grey", Fit::Pad { colour: [128; 3] }),
            set("pad, black", Fit::Pad { colour: [0; 3] }),
        ],
    }
}

fn photo_filter() -> Table {
    let set = |name: &str, filter: Filter| row(name, move |_, photo| photo.filter = filter);
    Table {
        name: "photo filter",
        queries: BOTH.to_vec(),
        gallery: SKETCHY_PHOTOS,
        rows: vec![
            set("triangle", Filter::Triangle),
            set("area", Filter::Area),
            set("Catmull-Rom", Filter::CatmullRom),
            set("Lanczos", Filter::Lanczos3),
        ],
    }
}
