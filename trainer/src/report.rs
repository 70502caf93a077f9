//! An evaluation as one HTML file that needs nothing else: figures, curves, classes, a map, and what was found.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use ndarray::Array2;

use crate::evaluation::{RECALLS, Summary};

const STYLE: &str = include_str!("report/style.css");
/// Lines of a curve, in this order.
const COLOURS: [&str; 6] = ["#1f6fb2", "#d1702a", "#3d8f4f", "#8a5bb0", "#b03a52", "#5f6b72"];
/// Width and height of the map, and of the curves.
const MAP: (f64, f64) = (640.0, 420.0);
const CURVES: (f64, f64) = (360.0, 260.0);
/// Space for the numbers at an axis.
const MARGIN: f64 = 34.0;

/// An evaluation, as it is shown.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub title: String,
    /// What was evaluated, by name and value.
    pub facts: Vec<(String, String)>,
    pub sections: Vec<Section>,
}

/// One set of queries.
#[derive(Clone, Debug)]
pub struct Section {
    /// The embedding's first, then those of each codebook, by what to call them.
    pub summaries: Vec<(String, Summary)>,
    pub map: Option<Map>,
    pub best: Vec<Shown>,
    pub worst: Vec<Shown>,
}

/// Photos and queries in a plane: shapes `(g, 2)`, `(q, 2)`, and the class of each.
#[derive(Clone, Debug)]
pub struct Map {
    pub photos: (Array2<f64>, Vec<String>),
    pub queries: (Array2<f64>, Vec<String>),
}

/// A query and the photos nearest to it.
#[derive(Clone, Debug)]
pub struct Shown {
    pub label: String,
    /// None if it could not be shown.
    pub drawing: Option<RgbImage>,
    pub photos: Vec<Found>,
}

/// A photo that was found.
#[derive(Clone, Debug)]
pub struct Found {
    pub label: String,
    pub picture: Option<RgbImage>,
    /// Whether it is of the query's class.
    pub is_right: bool,
}

impl Report {
    /// The page.
    pub fn to_html(&self) -> String {
        let facts: String = self.facts.iter().map(|(name, value)| row(&[name, value])).collect();
        let sections: String = self.sections.iter().map(Section::to_html).collect();
        let title = escape(&self.title);
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
             <h1>{title}</h1>\n<table>{facts}</table>\n{sections}</html>\n"
        )
    }
}

impl Section {
    fn to_html(&self) -> String {
        let Some((_, first)) = self.summaries.first() else { return String::new() };
        let mut html =
            format!("<h2>{}: {} queries, {} photos</h2>\n", escape(&first.name), first.queries, first.photos);
        html += &self.figures();
        html += "<div class=\"side\">";
        html += &format!("<figure>{}<figcaption>Precision over recall</figcaption></figure>", self.curves());
        let map = self.map.as_ref().map(Map::to_svg).unwrap_or_default();
        if !map.is_empty() {
            html += &format!(
                "<figure>{map}<figcaption>Embeddings in the plane of greatest variance: photos as dots, queries as \
                 rings, one colour a class, each domain around its own mean. Point at one to read its class.</figcaption></figure>"
            );
        }
        html += "</div>\n<h3>mAP of each class</h3>\n";
        html += &self.bars();
        for (title, shown) in [("Best queries", &self.best), ("Worst queries", &self.worst)] {
            if !shown.is_empty() {
                let rows: String = shown.iter().map(Shown::to_html).collect();
                html += &format!("<h3>{title}, and the first photos</h3>\n{rows}");
            }
        }
        html
    }

    fn figures(&self) -> String {
        let Some((_, first)) = self.summaries.first() else { return String::new() };
        let mut html = String::from("<table><tr><th></th>");
        first.metrics.iter().for_each(|metric| html += &format!("<th>{}</th>", metric.name));
        html += "</tr>";
        for (name, summary) in &self.summaries {
            let cell = |metric: &crate::evaluation::Metric| {
                format!("<td><b>{:.1}</b> <small>{:.1} to {:.1}</small></td>", metric.mean, metric.low, metric.high)
            };
            let cells: String = summary.metrics.iter().map(cell).collect();
            html += &format!("<tr><td>{}</td>{cells}</tr>", escape(name));
        }
        html + "</table><p><small>Mean over the classes; 95 % of draws of as many classes lie in the interval.</small></p>\n"
    }

    fn curves(&self) -> String {
        let (width, height) = CURVES;
        let at = |i: usize, value: f64| {
            let x = MARGIN + (width - MARGIN - 8.0) * i as f64 / (RECALLS - 1) as f64;
            (x, 8.0 + (height - MARGIN - 8.0) * (1.0 - value))
        };
        let mut svg = open_svg(CURVES);
        for tenth in [0, 5, 10] {
            let (value, i) = (tenth as f64 / 10.0, tenth * (RECALLS - 1) / 10);
            let ((left, y), (right, _)) = (at(0, value), at(RECALLS - 1, value));
            let (x, bottom) = at(i, 0.0);
            svg += &format!("<path class=\"grid\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>");
            svg += &format!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>", left - 6.0, y + 4.0);
            svg += &format!("<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value}</text>", bottom + 18.0);
        }
        for (number, (name, summary)) in self.summaries.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let points: Vec<String> = summary
                .precision
                .iter()
                .enumerate()
                .map(|(i, value)| at(i, *value))
                .map(|(x, y)| format!("{x:.1},{y:.1}"))
                .collect();
            let name = escape(name);
            svg += &format!(
                "<polyline stroke=\"{colour}\" points=\"{}\"><title>{name}</title></polyline>",
                points.join(" ")
            );
            let y = 20.0 + 16.0 * number as f64;
            svg += &format!(
                "<text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\" style=\"fill:{colour}\">{name}</text>",
                width - 12.0
            );
        }
        svg + "</svg>"
    }

    /// The classes from the best to the worst, a bar for each summary.
    fn bars(&self) -> String {
        let Some((_, first)) = self.summaries.first() else { return String::new() };
        let mut classes: Vec<(&String, &f64)> = first.classes.iter().collect();
        classes.sort_by(|a, b| b.1.total_cmp(a.1));
        let mut html = String::from("<div class=\"bars\">");
        for (class, _) in classes {
            html += &format!("<span>{}</span><div>", escape(class));
            for (number, (name, summary)) in self.summaries.iter().enumerate() {
                let (value, colour) =
                    (summary.classes.get(class).copied().unwrap_or(0.0), COLOURS[number % COLOURS.len()]);
                let title = escape(name);
                let _ = write!(
                    html,
                    "<i style=\"width:{value:.1}%;background:{colour}\" title=\"{title}\"></i><em>{value:.0}</em>"
                );
            }
            html += "</div>";
        }
        html + "</div>\n"
    }
}

impl Map {
    fn to_svg(&self) -> String {
        let classes: BTreeSet<&String> = self.queries.1.iter().collect();
        let colour = |class: &String| {
            let position = classes.iter().position(|other| *other == class);
            position
                .map(|position| format!("hsl({:.0} 65% 45%)", 360.0 * position as f64 / classes.len().max(1) as f64))
        };
        let all = self.photos.0.rows().into_iter().chain(self.queries.0.rows());
        let reach = all.flatten().fold(f64::MIN_POSITIVE, |reach, value| reach.max(value.abs()));
        let (width, height) = MAP;
        let mut svg = open_svg(MAP);
        let mut dots = |(points, names): &(Array2<f64>, Vec<String>), radius: f64, ring: bool| {
            for (point, class) in points.rows().into_iter().zip(names) {
                let (x, y) = (point[0] / reach, point.get(1).copied().unwrap_or(0.0) / reach);
                let (x, y) = ((x + 1.0) * (width / 2.0 - 8.0) + 8.0, (y + 1.0) * (height / 2.0 - 8.0) + 8.0);
                let colour = colour(class).unwrap_or_else(|| "#c8c8c4".to_owned());
                let paint =
                    if ring { format!("fill=\"none\" stroke=\"{colour}\"") } else { format!("fill=\"{colour}\"") };
                let class = escape(class);
                let _ = write!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" {paint}><title>{class}</title></circle>"
                );
            }
        };
        dots(&self.photos, 3.0, false);
        dots(&self.queries, 3.5, true);
        svg + "</svg>"
    }
}

impl Shown {
    fn to_html(&self) -> String {
        let drawing = picture(self.drawing.as_ref(), "query", &self.label);
        let photo = |found: &Found| {
            let class = if found.is_right { "right" } else { "wrong" };
            picture(found.picture.as_ref(), class, &found.label)
        };
        let photos: String = self.photos.iter().map(photo).collect();
        format!("<div class=\"row\">{drawing}{photos}</div>\n")
    }
}

fn picture(picture: Option<&RgbImage>, class: &str, label: &str) -> String {
    let label = escape(label);
    let image = picture.and_then(jpeg).map_or_else(String::new, |jpeg| {
        format!("<img alt=\"{label}\" src=\"data:image/jpeg;base64,{}\">", STANDARD.encode(jpeg))
    });
    format!("<figure class=\"{class}\" title=\"{label}\"><div>{image}</div><figcaption>{label}</figcaption></figure>")
}

fn jpeg(picture: &RgbImage) -> Option<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 82)).ok()?;
    Some(bytes.into_inner())
}

fn open_svg((width, height): (f64, f64)) -> String {
    format!("<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">")
}

fn row(cells: &[&str]) -> String {
    let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
    format!("<tr>{cells}</tr>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
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
            seed: 0,
        };
        let found = Found { label: "\"p\"".to_owned(), picture: Some(RgbImage::new(4, 4)), is_right: true };
        let shown = Shown { label: "q".to_owned(), drawing: None, photos: vec![found] };
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
