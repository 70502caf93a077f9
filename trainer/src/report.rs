//! An evaluation as one self-contained HTML file: metrics, curves, classes, a map, and examples.

use std::collections::BTreeSet;
use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use ndarray::Array2;

use crate::evaluation::{RECALLS, Summary};

const STYLE: &str = include_str!("report/style.css");
/// Colours of the summaries, in order.
const COLOURS: [&str; 6] = ["#1f6fb2", "#d1702a", "#3d8f4f", "#8a5bb0", "#b03a52", "#5f6b72"];
/// Width and height of the map, and of the curves.
const MAP: (u32, u32) = (640, 420);
const CURVES: (u32, u32) = (360, 260);
/// Space for the numbers at an axis.
const MARGIN: f64 = 34.0;

/// An evaluation as a page.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub title: String,
    /// Names and values that describe what was evaluated.
    pub facts: Vec<(String, String)>,
    pub sections: Vec<Section>,
}

/// One set of queries.
#[derive(Clone, Debug)]
pub struct Section {
    /// Labelled summaries: the plain embedding's first, then each codebook's.
    pub summaries: Vec<(String, Summary)>,
    pub map: Option<Map>,
    pub best: Vec<Example>,
    pub worst: Vec<Example>,
}

/// Photos and queries in a plane: shapes `(g, 2)`, `(q, 2)`, and the class of each.
#[derive(Clone, Debug)]
pub struct Map {
    pub photos: (Array2<f64>, Vec<String>),
    pub queries: (Array2<f64>, Vec<String>),
}

/// A query and the photos nearest to it.
#[derive(Clone, Debug)]
pub struct Example {
    pub label: String,
    /// None if it could not be drawn.
    pub drawing: Option<RgbImage>,
    pub photos: Vec<Hit>,
}

/// A retrieved photo.
#[derive(Clone, Debug)]
pub struct Hit {
    pub label: String,
    pub picture: Option<RgbImage>,
    /// Whether it has the query's class.
    pub is_right: bool,
}

impl Report {
    /// The page.
    pub fn to_html(&self) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { (self.title) }
                style { (PreEscaped(STYLE)) }
                h1 { (self.title) }
                table { @for (name, value) in &self.facts { tr { td { (name) } td { (value) } } } }
                @for section in &self.sections { (section.to_html()) }
            }
        };
        page.into_string()
    }
}

impl Section {
    fn to_html(&self) -> Markup {
        let Some((_, first)) = self.summaries.first() else { return Markup::default() };
        html! {
            h2 { (first.name) ": " (first.queries) " queries, " (first.photos) " photos" }
            (self.figures(first))
            div class="side" {
                figure { (self.curves()) figcaption { "Precision over recall" } }
                @if let Some(map) = &self.map {
                    figure {
                        (map.to_svg())
                        figcaption {
                            "Embeddings in the plane of greatest variance: photos as dots, queries as rings, one colour per "
                            "class, each domain around its own mean. Hover over a point to read its class."
                        }
                    }
                }
            }
            h3 { "mAP of each class" }
            (self.bars(first))
            @for (title, shown) in [("Best queries", &self.best), ("Worst queries", &self.worst)] {
                @if !shown.is_empty() {
                    h3 { (title) ", and the first photos" }
                    @for shown in shown { (shown.to_html()) }
                }
            }
        }
    }

    fn figures(&self, first: &Summary) -> Markup {
        html! {
            table {
                tr { th {} @for metric in &first.metrics { th { (metric.name) } } }
                @for (name, summary) in &self.summaries {
                    tr {
                        td { (name) }
                        @for metric in &summary.metrics {
                            td {
                                b { (format!("{:.1}", metric.mean)) } " "
                                small { (format!("{:.1} to {:.1}", metric.low, metric.high)) }
                            }
                        }
                    }
                }
            }
            p { small { "Mean over classes, with the 95 % bootstrap interval." } }
        }
    }

    fn curves(&self) -> Markup {
        let (width, height) = (f64::from(CURVES.0), f64::from(CURVES.1));
        let at = |i: usize, value: f64| {
            let x = MARGIN + (width - MARGIN - 8.0) * i as f64 / (RECALLS - 1) as f64;
            (x, 8.0 + (height - MARGIN - 8.0) * (1.0 - value))
        };
        let ticks = [0, 5, 10].map(|tenth| (f64::from(tenth) / 10.0, tenth as usize * (RECALLS - 1) / 10));
        let points = |summary: &Summary| {
            let points = summary.precision.iter().enumerate().map(|(i, value)| at(i, *value));
            points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
        };
        svg(
            CURVES,
            html! {
                @for (value, i) in ticks {
                    @let ((left, y), (right, _), (x, bottom)) = (at(0, value), at(RECALLS - 1, value), at(i, 0.0));
                    path class="grid" d=(format!("M{left:.1} {y:.1}H{right:.1}")) {}
                    text x=(px(left - 6.0)) y=(px(y + 4.0)) text-anchor="end" { (value) }
                    text x=(px(x)) y=(px(bottom + 18.0)) text-anchor="middle" { (value) }
                }
                @for (i, ((name, summary), colour)) in self.summaries.iter().zip(COLOURS.iter().cycle()).enumerate() {
                    polyline stroke=(colour) points=(points(summary)) { title { (name) } }
                    text x=(px(width - 12.0)) y=(px(20.0 + 16.0 * i as f64)) text-anchor="end" style={ "fill:" (colour) } { (name) }
                }
            },
        )
    }

    /// The classes from the best to the worst, a bar for each summary.
    fn bars(&self, first: &Summary) -> Markup {
        let mut classes: Vec<(&String, &f64)> = first.classes.iter().collect();
        classes.sort_by(|a, b| b.1.total_cmp(a.1));
        html! {
            div class="bars" {
                @for (class, _) in classes {
                    span { (class) }
                    div {
                        @for ((name, summary), colour) in self.summaries.iter().zip(COLOURS.iter().cycle()) {
                            @let value = summary.classes.get(class).copied().unwrap_or(0.0);
                            i style={ "width:" (px(value)) "%;background:" (colour) } title=(name) {}
                            em { (format!("{value:.0}")) }
                        }
                    }
                }
            }
        }
    }
}

impl Map {
    fn to_svg(&self) -> Markup {
        let classes: BTreeSet<&String> = self.queries.1.iter().collect();
        let colour = |class: &String| match classes.iter().position(|other| *other == class) {
            Some(position) => format!("hsl({:.0} 65% 45%)", 360.0 * position as f64 / classes.len() as f64),
            None => "#c8c8c4".to_owned(),
        };
        let all = self.photos.0.rows().into_iter().chain(self.queries.0.rows());
        let reach = all.flatten().fold(f64::MIN_POSITIVE, |reach, value| reach.max(value.abs()));
        let scaled = |value: f64, side: u32| px((value / reach + 1.0) * (f64::from(side) / 2.0 - 8.0) + 8.0);
        svg(
            MAP,
            html! {
                @for ((points, names), radius, ring) in [(&self.photos, 3.0, false), (&self.queries, 3.5, true)] {
                    @for (point, class) in points.rows().into_iter().zip(names) {
                        @let (x, y) = (scaled(point[0], MAP.0), scaled(point.get(1).copied().unwrap_or(0.0), MAP.1));
                        @let colour = colour(class);
                        @let (fill, stroke) = if ring { ("none", colour.as_str()) } else { (colour.as_str(), "none") };
                        circle cx=(x) cy=(y) r=(radius) fill=(fill) stroke=(stroke) { title { (class) } }
                    }
                }
            },
        )
    }
}

impl Example {
    fn to_html(&self) -> Markup {
        html! {
            div class="row" {
                (picture(self.drawing.as_ref(), "query", &self.label))
                @for photo in &self.photos {
                    (picture(photo.picture.as_ref(), if photo.is_right { "right" } else { "wrong" }, &photo.label))
                }
            }
        }
    }
}

fn picture(picture: Option<&RgbImage>, class: &str, label: &str) -> Markup {
    html! {
        figure class=(class) title=(label) {
            div {
                @if let Some(jpeg) = picture.and_then(jpeg) {
                    img alt=(label) src={ "data:image/jpeg;base64," (STANDARD.encode(jpeg)) };
                }
            }
            figcaption { (label) }
        }
    }
}

fn svg((width, height): (u32, u32), content: Markup) -> Markup {
    html! { svg viewBox={ "0 0 " (width) " " (height) } width=(width) height=(height) { (content) } }
}

/// A coordinate with one decimal.
fn px(value: f64) -> String {
    format!("{value:.1}")
}

fn jpeg(picture: &RgbImage) -> Option<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 82)).ok()?;
    Some(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::Search;
    use ndarray::array;

    #[test]
    fn pages_hold_figures_pictures_and_no_foreign_markup() {
        let search = Search {
            name: "val".to_owned(),
            distances: array![[0.0, 1.0]],
            queries: vec!["<b>".to_owned()],
            gallery: vec!["<b>".to_owned(), "c".to_owned()],
            own: Vec::new(),
            seed: 0,
        };
        let found = Hit { label: "\"p\"".to_owned(), picture: Some(RgbImage::new(4, 4)), is_right: true };
        let shown = Example { label: "q".to_owned(), drawing: None, photos: vec![found] };
        let map = Map {
            photos: (array![[0.0, 1.0], [2.0, -1.0]], vec!["<b>".to_owned(), "c".to_owned()]),
            queries: (array![[1.0, 1.0]], vec!["<b>".to_owned()]),
        };
        let summaries = vec![("embedding".to_owned(), search.summary())];
        let section = Section { summaries, map: Some(map), best: vec![shown], worst: vec![] };
        let facts = vec![("network".to_owned(), "a & b".to_owned())];
        let html = Report { title: "t".to_owned(), facts, sections: vec![section] }.to_html();
        for part in [
            "a &amp; b",
            "<b>100.0</b>",
            "&lt;b&gt;",
            "&quot;p&quot;",
            "data:image/jpeg;base64,/9j/",
            "class=\"right\"",
        ] {
            assert!(html.contains(part), "{part} is missing");
        }
        assert_eq!(html.matches("<circle").count(), 3);
        assert_eq!(html.matches("<polyline").count(), 1);
        assert!(!html.contains("http"));
    }
}
